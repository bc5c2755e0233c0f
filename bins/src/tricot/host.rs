//! The host of a request.

use http::Request;
use http::header::HOST;
use meshlib::http::Body;

/// What the client wrote as its host, port included.
pub(super) fn of(request: &Request<Body>) -> Option<&str> {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    authority.or_else(|| request.headers().get(HOST).and_then(|host| host.to_str().ok()))
}
