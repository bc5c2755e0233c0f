//! The status that tells a client of an error.
//!
//! [`HttpServer`](super::HttpServer) gives [`answer`] by itself where its service fails. A service of one's own in front
//! of a stack can give another.
//!
//! # Examples
//!
//! A page of one's own for "nobody is there", which is more than [`Error::Unavailable`]: discovery names nobody, or an
//! endpoint that it names refuses the connection (the only one, or each that was tried), or does not answer it in time.
//! The status stays what it is, and so does what other errors are answered with:
//!
//! ```
//! use http::Response;
//! use meshlib::http::{Body, status};
//! use meshlib::{Error, Phase};
//!
//! fn page(error: &Error) -> Response<Body> {
//!     let answer = status::answer(error);
//!     match error {
//!         Error::Resolve { .. }
//!         | Error::Unavailable { .. }
//!         | Error::Connect { .. }
//!         | Error::Timeout { phase: Phase::Wait | Phase::Connect, .. } => {
//!             answer.map(|_| Body::from("nobody is there; try again in a moment\n"))
//!         }
//!         _ => answer,
//!     }
//! }
//!
//! let error = Error::Timeout { phase: Phase::Connect, after: std::time::Duration::from_secs(5) };
//! assert_eq!(page(&error).status(), 504);
//! ```

use http::Response;
use http::StatusCode;

use super::Body;
use super::HttpError;
use crate::error::Error;
use crate::error::Fault;
use crate::error::Phase;

/// The status for an error, by [whose fault](Error::fault) it is:
///
/// | Status | Fault | Errors |
/// |---|---|---|
/// | 400 | the client's | [`HttpError::Malformed`], an exchange with the client that broke down |
/// | 408 | the client's | [`HttpError::Silent`] of the client |
/// | 413 | the client's | [`HttpError::TooLarge`] |
/// | 502 | the endpoint's | [`Error::Connect`]: it refuses, or all that were tried do; [`Error::Tls`]; it closed without an answer; [`Error::Endpoint`] |
/// | 504 | the endpoint's | [`Error::Timeout`] of [`Phase::Connect`], [`Phase::ServerHandshake`] or [`Phase::Request`]; [`HttpError::Silent`] of the endpoint, where its answer's body was read for an answer of one's own |
/// | 503 | discovery's | [`Error::Unavailable`], [`Error::Resolve`], [`Error::Timeout`] of [`Phase::Wait`]: no endpoint is known or may be used |
/// | 503 | ours | [`Error::Refused`] |
/// | 500 | ours | [`Error::Other`], and [`Error::Connect`] where the system lacks descriptors, ports or rights |
///
/// That the endpoints which discovery names are all down is thus 502 and not 503.
pub fn of(error: &Error) -> StatusCode {
    match error {
        Error::Http(error) if matches!(**error, HttpError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
        Error::Http(error) if matches!(**error, HttpError::Silent { .. }) => match error.fault() {
            Fault::Client => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::GATEWAY_TIMEOUT,
        },
        Error::Timeout { phase: Phase::Request | Phase::Connect | Phase::ServerHandshake, .. } => {
            StatusCode::GATEWAY_TIMEOUT
        }
        Error::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => match error.fault() {
            Fault::Client => StatusCode::BAD_REQUEST,
            Fault::Server => StatusCode::BAD_GATEWAY,
            Fault::Discovery => StatusCode::SERVICE_UNAVAILABLE,
            Fault::Local => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

/// The answer to a request whose service failed: [its status](of) alone. The reason is not told but logged, at `debug`.
pub fn answer(error: &Error) -> Response<Body> {
    let status = of(error);
    tracing::debug!(error = %error.chain(), %status, "request failed");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
