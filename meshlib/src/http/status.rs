//! The status that tells a client of an error.

use http::Response;
use http::StatusCode;

use super::Body;
use super::HttpError;
use crate::error::Error;
use crate::error::Fault;
use crate::error::Phase;

/// By whose fault an error is: 400 the client's, 408 if it was silent, 413 if it sent too much; 502 the endpoint's, 504 if
/// it took too long; 503 if there is no endpoint; 500 ours, or 503 if it is a limit of ours.
pub fn of(error: &Error) -> StatusCode {
    match error {
        Error::Http(error) if matches!(**error, HttpError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
        Error::Http(error) if matches!(**error, HttpError::Silent { .. }) => StatusCode::REQUEST_TIMEOUT,
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

/// The answer to a request whose service failed: [its status](of) alone. The reason is logged, not told.
pub fn answer(error: &Error) -> Response<Body> {
    let status = of(error);
    tracing::debug!(error = %error.chain(), %status, "request failed");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
