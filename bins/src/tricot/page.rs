//! The pages that the proxy makes itself.

use std::fmt;

use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header::ALLOW;
use http::header::CONTENT_TYPE;
use http::header::RETRY_AFTER;
use meshlib::Error;
use meshlib::Phase;
use meshlib::Unavailable;
use meshlib::http::Body;
use meshlib::http::HttpError;
use meshlib::http::status;

/// Why a request is not answered by an instance.
#[derive(Debug)]
pub(super) enum Refused {
    /// No rule is for its host and path.
    NoRule,
    /// There are rules, and Consul says that no instance of theirs may be used.
    NoneUsable,
    /// Consul has never answered.
    NotReady,
    /// Its host needs another certificate than the connection has shown.
    Misdirected,
    /// Its method is none that a proxy passes on.
    Method,
    /// It has come through here too often.
    Loop,
    /// It, or its way to an instance, failed.
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Refused {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoRule => StatusCode::NOT_FOUND,
            Self::NoneUsable | Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Loop => StatusCode::LOOP_DETECTED,
            // Nobody has taken the connection: to the client that is a gateway that does not work.
            Self::Failed(Error::Timeout { phase: Phase::Connect | Phase::ServerHandshake, .. }) => {
                StatusCode::BAD_GATEWAY
            }
            Self::Failed(Error::Unavailable { reason: Unavailable::Excluded, .. }) => StatusCode::BAD_GATEWAY,
            Self::Failed(error) => status::of(error),
        }
    }

    /// The page: a line of text with the id by which the request is found in the log.
    pub(super) fn answer(&self, id: RequestId) -> Response<Body> {
        let status = self.status();
        let mut answer = Response::new(Body::from(format!("{} {self} (request {id})\n", status.as_u16())));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        match self {
            Self::NotReady => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1"))),
            Self::NoneUsable => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("5"))),
            // RFC 9110 section 15.5.6. Whatever else there is is passed on as well; the instance has the last word.
            Self::Method => {
                let passed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
                headers.insert(ALLOW, passed);
            }
            _ => {}
        }
        answer
    }
}

/// What a client is told: what it can do something about, nothing about what is behind.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRule => "no site is served here under this host and path",
            Self::NoneUsable => "no instance of this site is in service at the moment",
            Self::NotReady => "this proxy has just started and knows no site yet",
            Self::Misdirected => "this host must be asked on a connection of its own",
            Self::Method => "this method is not passed on",
            Self::Loop => "this request has come through here too often: the site leads back to this proxy",
            Self::Failed(Error::Http(error)) => match &**error {
                HttpError::Malformed(why) => return write!(f, "the request is malformed: {why}"),
                HttpError::Silent { .. } => "the request's body did not come",
                _ => "the site did not answer",
            },
            Self::Failed(Error::Timeout { phase: Phase::Request, .. }) => "the site took too long to answer",
            Self::Failed(Error::Unavailable { .. }) => "no instance of this site could be reached",
            Self::Failed(_) => "the site could not be reached",
        })
    }
}

/// Tells requests apart in pages and in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestId(u64);

impl RequestId {
    pub(super) fn random() -> Self {
        Self(fastrand::u64(..))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
