//! The HTTP port: answers to challenges, and redirects to HTTPS for everything else.

use std::task::Context;
use std::task::Poll;

use futures::future::Ready;
use futures::future::ready;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::header::HOST;
use http::header::LOCATION;
use meshlib::Error;
use meshlib::http::Body;
use meshlib::observe::prometheus::Counter;
use tower::Service;

use super::host;
use super::tags;

/// Sends every request to the same place on the HTTPS port.
#[derive(Clone, Debug)]
pub(super) struct ToHttps {
    port: u16,
    redirects: Counter,
}

impl ToHttps {
    /// To this port of the host that was asked for.
    pub(super) fn new(port: u16, redirects: Counter) -> Self {
        Self { port, redirects }
    }

    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        let Some(location) = self.location(request) else {
            return page(
                StatusCode::BAD_REQUEST,
                "400 the request has no host that could be redirected to\n",
            );
        };
        self.redirects.inc();
        // 308 keeps the method and the body; clients older than it have no use for other methods here.
        let status = match *request.method() {
            Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
            _ => StatusCode::PERMANENT_REDIRECT,
        };
        let mut answer = page(status, "This site is served over HTTPS.\n");
        answer.headers_mut().insert(LOCATION, location);
        answer
    }

    fn location(&self, request: &Request<Body>) -> Option<HeaderValue> {
        if request.headers().get_all(HOST).iter().nth(1).is_some() {
            return None;
        }
        let host = host::of(request)?;
        let bare = match host.rsplit_once(':') {
            Some((bare, port)) if !port.contains(']') => bare,
            _ => host,
        };
        // What is no host would be a way to be sent anywhere.
        tags::Host::new(bare).ok()?;
        let path = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let path = if path.starts_with('/') { path } else { "/" };
        let location = match self.port {
            443 => format!("https://{bare}{path}"),
            port => format!("https://{bare}:{port}{path}"),
        };
        HeaderValue::from_str(&location).ok()
    }
}

fn page(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

impl Service<Request<Body>> for ToHttps {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Ready<Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(self.answer(&request)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(port: u16, method: &str, uri: &str, hosts: &[&'static str]) -> (u16, String) {
        let mut request = Request::builder().method(method).uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        let answer = ToHttps::new(port, Counter::default()).answer(&request.body(Body::empty()).unwrap());
        let location = answer.headers().get(LOCATION).map(|it| it.to_str().unwrap().to_owned());
        (answer.status().as_u16(), location.unwrap_or_default())
    }

    #[test]
    fn every_host_is_redirected_with_path_and_query_as_they_are() {
        let to = |host| answer(443, "GET", "/a%20b//../c?d=%2f&e", &[host]);

        assert_eq!(to("www.example.com"), (301, "https://www.example.com/a%20b//../c?d=%2f&e".into()));
        assert_eq!(to("www.example.com:80"), (301, "https://www.example.com/a%20b//../c?d=%2f&e".into()));
        assert_eq!(to("[::1]:80"), (301, "https://[::1]/a%20b//../c?d=%2f&e".into()));
        assert_eq!(to("localhost"), (301, "https://localhost/a%20b//../c?d=%2f&e".into()));
    }

    #[test]
    fn another_port_is_named_and_other_methods_are_kept() {
        assert_eq!(answer(4443, "GET", "/", &["a.example:8080"]), (301, "https://a.example:4443/".into()));
        assert_eq!(answer(443, "POST", "/x", &["a.example"]), (308, "https://a.example/x".into()));
        assert_eq!(answer(443, "HEAD", "/x", &["a.example"]), (301, "https://a.example/x".into()));
        assert_eq!(answer(443, "OPTIONS", "*", &["a.example"]), (308, "https://a.example/".into()));
    }

    #[test]
    fn without_one_host_there_is_nowhere_to_go() {
        for hosts in [&[][..], &["a.example", "b.example"], &["a@b"], &["a/b"], &["a b"], &[""], &["a\\b"]] {
            assert_eq!(answer(443, "GET", "/", hosts).0, 400, "{hosts:?}");
        }
    }
}
