//! The host of a request.

use std::borrow::Cow;

use http::Request;
use http::header::HOST;
use meshlib::http::Body;

/// A host without its port, in lower case.
pub(super) fn name(host: &str) -> Cow<'_, str> {
    let host = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// What the client wrote as its host, port included.
pub(super) fn of(request: &Request<Body>) -> Option<&str> {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    authority.or_else(|| request.headers().get(HOST).and_then(|host| host.to_str().ok()))
}
