//! What must hold of a request that is passed on, or it is refused or answered here.

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Version;
use http::header;
use http::uri::Authority;
use hyper::ext::Protocol;

use super::super::Body;
use super::super::HttpError;
use crate::error::Error;

fn malformed(why: &'static str) -> Error {
    Error::Http(Box::new(HttpError::Malformed(why)))
}

/// There must be one way to tell where a body ends, and it must be one that every server reads alike.
///
/// The server has refused lengths that differ, codings that do not end in `chunked` and line breaks in values already,
/// and has dropped a length beside a coding.
pub(super) fn check_framing(request: &Request<Body>) -> Result<(), Error> {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(malformed("its transfer coding is not chunked alone")),
    }
}

/// A proxy that balances over endpoints opens no tunnels to wherever clients want (`CONNECT` of RFC 9110 section 9.3.6), but
/// for those that carry a protocol inside HTTP/2 (RFC 8441). And `*` is a target for `OPTIONS` only (RFC 9112 section 3.2.4).
pub(super) fn check_target(request: &Request<Body>) -> Result<(), Error> {
    if *request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none() {
        return Err(malformed("it asks for a tunnel"));
    }
    if request.uri().path() == "*" && *request.method() != Method::OPTIONS {
        return Err(malformed("its target is for OPTIONS only"));
    }
    Ok(())
}

/// RFC 9110 section 7.6.2: `OPTIONS` and `TRACE` go over so many proxies and no further. The last one answers itself, and
/// others count down.
pub(super) fn last_hop(request: &mut Request<Body>) -> Option<Response<Body>> {
    if !matches!(*request.method(), Method::OPTIONS | Method::TRACE) {
        return None;
    }
    let field = request.headers().get(header::MAX_FORWARDS)?;
    let left: u64 = field.to_str().ok()?.trim().parse().ok()?;
    if let Some(left) = left.checked_sub(1) {
        request.headers_mut().insert(header::MAX_FORWARDS, left.into());
        return None;
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = if *request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT
    } else {
        // To reflect what a client sent, its credentials among it, helps attackers only.
        StatusCode::METHOD_NOT_ALLOWED
    };
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("OPTIONS"));
    Some(answer)
}

/// Makes one field of a length that is told several times. HTTP/2 lets that through as long as all are the same, and an
/// HTTP/1 server may refuse it.
pub(super) fn one_length(headers: &mut HeaderMap) -> Result<(), Error> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(first), Some(second)) = (lengths.next(), lengths.next()) else { return Ok(()) };
    if first != second || lengths.any(|length| length != first) {
        return Err(malformed("its lengths differ"));
    }
    let first = first.clone();
    headers.insert(header::CONTENT_LENGTH, first);
    Ok(())
}

/// The host that a request is for, as it will be told to the endpoint.
pub(super) fn host(request: &mut Request<Body>, fields: u32) -> Result<Option<HeaderValue>, Error> {
    let field = request.headers().get(header::HOST).cloned();
    if fields > 1 {
        return Err(malformed("it has more than one Host"));
    }
    if let Some(field) = &field
        && !is_host(field.as_bytes())
    {
        return Err(malformed("its Host is not one"));
    }
    let authority = request.uri().authority().map(Authority::as_str);
    let Some(authority) = authority else {
        let needed = request.version() != Version::HTTP_10 && request.version() != Version::HTTP_09;
        return if field.is_none() && needed { Err(malformed("it has no host")) } else { Ok(field) };
    };
    if !is_host(authority.as_bytes()) {
        return Err(malformed("its authority is not a host"));
    }
    if field.is_none() && request.version() == Version::HTTP_11 {
        // RFC 9112 section 3.2: also if the target has an authority.
        return Err(malformed("it has no host"));
    }
    // RFC 9112 section 3.2.3: an authority alone is the target of CONNECT only. Else it is a path without its slash.
    if request.uri().scheme().is_none() && request.method() != Method::CONNECT {
        return Err(malformed("its target is an authority alone"));
    }
    if request.version() == Version::HTTP_2
        && field.as_ref().is_some_and(|field| !field.as_bytes().eq_ignore_ascii_case(authority.as_bytes()))
    {
        return Err(malformed("its authority and its Host differ"));
    }
    // RFC 9112 section 3.2.2: a proxy goes by the authority, and replaces what Host says.
    let host = HeaderValue::from_str(authority).map_err(|_| malformed("its authority is not a host"))?;
    request.headers_mut().insert(header::HOST, host.clone());
    Ok(Some(host))
}

/// A name, an IPv4 address or an IPv6 address in brackets, with a port or without (RFC 3986 section 3.2.2).
fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let (address, after) = rest.split_at(end);
            let address = address.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
            return address
                && matches!(&after[1..], [] | [b':', ..])
                && is_port(after.get(2..).unwrap_or_default());
        }
        _ => match text.iter().position(|byte| *byte == b':') {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, &b""[..]),
        },
    };
    let allowed = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            )
    };
    !host.is_empty() && host.iter().all(allowed) && is_port(port)
}

fn is_port(text: &[u8]) -> bool {
    text.len() <= 5 && text.iter().all(u8::is_ascii_digit)
}
