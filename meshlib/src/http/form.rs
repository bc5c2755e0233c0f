//! The form of a request in the version of HTTP that its endpoint speaks.

use http::HeaderValue;
use http::Method;
use http::Request;
use http::Uri;
use http::Version;
use http::header;
use http::uri::Authority;
use http::uri::PathAndQuery;
use http::uri::Scheme;

use super::Body;
use super::expect;

/// What is sent to an HTTP/1.1 server for a request.
pub(super) fn in_http1(mut request: Request<Body>) -> Request<Body> {
    for_http1(&mut request);
    if request.headers().contains_key(header::EXPECT) { expect::holding_back(request) } else { request }
}

/// The path alone, the authority in `Host` (RFC 9112 section 3.2.1).
fn for_http1(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_11;
    if request.uri().authority().is_none() || request.method() == Method::CONNECT {
        return;
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if let Some(authority) = parts.authority.take()
        && !request.headers().contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(without_user(authority.as_str()))
    {
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = parts.path_and_query.map_or_else(Uri::default, Uri::from);
}

/// A scheme, the authority and the path (RFC 9113 section 8.3.1); nothing that concerns a connection (section 8.2.2).
pub(super) fn for_http2(request: &mut Request<Body>, tls: bool) {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(header::HOST);
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        request.headers_mut().remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        request.headers_mut().remove(name);
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if parts.authority.is_none() {
        parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    }
    if request.method() != Method::CONNECT || parts.path_and_query.is_some() {
        parts.path_and_query = parts.path_and_query.or_else(|| Some(PathAndQuery::from_static("/")));
        if parts.authority.is_some() {
            parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
        }
    }
    // All three came from what was a URI or a valid authority; one without an authority keeps its path.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

/// The host and port of an authority: whoever was named in front is no business of a server's.
fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, host: Option<&str>) -> Request<Body> {
        let mut request = Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn http1_gets_a_path_and_a_host() {
        let mut request = request("http://me:secret@example.com:81/a?b=%20c", None);

        for_http1(&mut request);

        assert_eq!(request.uri(), "/a?b=%20c");
        assert_eq!(request.headers()["host"], "example.com:81");
    }

    #[test]
    fn http2_gets_an_authority_and_no_headers_of_a_connection() {
        let mut request = request("/a?b", Some("example.com"));
        request.headers_mut().insert("connection", HeaderValue::from_static("close"));

        for_http2(&mut request, true);

        assert_eq!(request.uri(), "https://example.com/a?b");
        assert!(request.headers().is_empty());
    }

    #[test]
    fn a_request_in_the_form_of_one_version_comes_back_from_the_other() {
        let mut request = request("/x/../y?z", Some("example.com:8080"));

        for_http2(&mut request, false);
        for_http1(&mut request);

        assert_eq!(request.uri(), "/x/../y?z");
        assert_eq!(request.headers()["host"], "example.com:8080");
    }
}
