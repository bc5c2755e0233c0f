//! The one error type of meshlib's services.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tower::BoxError;

use crate::forward::Transferred;
use crate::resolve::ResolveError;
use crate::tls::TlsError;

/// Why a connection or request failed.
///
/// [`Error::fault`] says who is to blame, which decides how loudly to log, what to answer and whether an endpoint loses
/// trust. The cause is in [`source`](StdError::source) and never in the text; [`Error::chain`] prints both.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Discovery failed for good before it had ever answered: its stream ended with an error.
    #[error("cannot resolve {name}")]
    Resolve {
        /// The name in question.
        name: Arc<str>,
        /// What went wrong.
        source: Box<ResolveError>,
    },
    /// Discovery answered, but there is nothing to connect to. An endpoint that is named and refuses the connection is
    /// [`Connect`](Self::Connect).
    #[error("no endpoint available for {name}: {reason}")]
    Unavailable {
        /// The name in question.
        name: Arc<str>,
        /// Why nothing can be used.
        reason: Unavailable,
    },
    /// The endpoint did not take the connection.
    #[error("cannot connect to {addr}")]
    Connect {
        /// The endpoint.
        addr: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The endpoint cannot be connected to from the client's address.
    #[cfg(feature = "tproxy")]
    #[error("cannot connect to {addr} from the client's address")]
    Source {
        /// The endpoint.
        addr: SocketAddr,
        /// Why not.
        source: Box<crate::tproxy::SourceError>,
    },
    /// No encrypted connection came about.
    #[error("TLS with {side} {addr} failed")]
    Tls {
        /// The side the handshake was with.
        side: Side,
        /// Its address.
        addr: SocketAddr,
        /// What went wrong.
        source: Box<TlsError>,
    },
    /// A deadline passed.
    #[error("{phase} took longer than {after:?}")]
    Timeout {
        /// What was being done.
        phase: Phase,
        /// The limit.
        after: Duration,
    },
    /// A connection broke while bytes were being forwarded.
    #[error("{side} connection failed")]
    Forward {
        /// The side that broke.
        side: Side,
        /// What was forwarded before.
        transferred: Box<Transferred>,
        /// What the operating system says.
        source: io::Error,
    },
    /// A policy or a limit of ours said no.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// An HTTP exchange failed.
    #[cfg(feature = "http")]
    #[error("HTTP exchange failed")]
    Http(#[source] Box<crate::http::HttpError>),
    /// The endpoint's answer was no good, in words of one's own; made by [`Error::endpoint`].
    #[error(transparent)]
    Endpoint(BoxError),
    /// An error of a service that is not meshlib's; made by [`Error::other`]. Its fault is [`Fault::Local`], and an HTTP
    /// server answers it with 500.
    #[error(transparent)]
    Other(BoxError),
}

impl Error {
    /// An error of one's own, as a service on meshlib's stack returns it: [`Error::Other`], unless there is a meshlib error
    /// inside, which comes out as it is.
    ///
    /// # Examples
    ///
    /// ```
    /// use meshlib::{Error, Fault};
    ///
    /// let error = Error::other("the cache is cold");
    /// assert_eq!(error.to_string(), "the cache is cold");
    /// assert_eq!(error.fault(), Fault::Local);
    /// assert!(!error.is_retryable());
    /// ```
    pub fn other(error: impl Into<BoxError>) -> Self {
        Self::from(error.into())
    }

    /// The failure of an endpoint that has answered: of a service between a balancer and its client that knows an answer to be
    /// no good. It counts against the endpoint like a connection that was refused; an HTTP server answers it with 502.
    ///
    /// # Examples
    ///
    /// Endpoints that answer 503 five times in a row are left alone for a while:
    ///
    /// ```
    /// # #[cfg(feature = "http")] {
    /// use http::{Response, StatusCode};
    /// use meshlib::http::{Body, ClientLayer};
    /// use meshlib::{BalanceLayer, Error, Fault, Static, TcpConnector};
    /// use tower::ServiceBuilder;
    ///
    /// let endpoints = Static::new(["127.0.0.1:8081".parse().unwrap(), "127.0.0.1:8082".parse().unwrap()]);
    /// let stack = ServiceBuilder::new()
    ///     .layer(BalanceLayer::new(endpoints, "web"))
    ///     .and_then(|answer: Response<Body>| async move {
    ///         match answer.status() {
    ///             StatusCode::SERVICE_UNAVAILABLE => Err(Error::endpoint("it is overloaded")),
    ///             _ => Ok(answer),
    ///         }
    ///     })
    ///     .layer(ClientLayer::new())
    ///     .service(TcpConnector::default());
    /// # let _ = stack;
    /// assert_eq!(Error::endpoint("it is overloaded").fault(), Fault::Server);
    /// # }
    /// ```
    pub fn endpoint(error: impl Into<BoxError>) -> Self {
        Self::Endpoint(error.into())
    }

    /// Who is to blame.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Resolve { .. } | Self::Unavailable { .. } => Fault::Discovery,
            Self::Connect { source, .. } if is_local(source) => Fault::Local,
            Self::Connect { .. } => Fault::Server,
            #[cfg(feature = "tproxy")]
            Self::Source { .. } => Fault::Local,
            Self::Tls { side, .. } | Self::Forward { side, .. } => side.fault(),
            Self::Timeout { phase, .. } => phase.fault(),
            Self::Refused(_) => Fault::Local,
            #[cfg(feature = "http")]
            Self::Http(error) => error.fault(),
            Self::Endpoint(_) => Fault::Server,
            Self::Other(_) => Fault::Local,
        }
    }

    /// Whether the same request may be sent to another endpoint: nothing of it can have reached this one, or it is an HTTP
    /// request that does no harm twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            #[cfg(feature = "tproxy")]
            Self::Source { .. } => true,
            Self::Tls { side, .. } => *side == Side::Server,
            Self::Timeout { phase, .. } => matches!(phase, Phase::Connect | Phase::ServerHandshake),
            #[cfg(feature = "http")]
            Self::Http(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Whether the connection alone was at fault: its endpoint may be asked again at once, and loses no trust.
    pub(crate) fn is_of_connection(&self) -> bool {
        match self {
            #[cfg(feature = "http")]
            Self::Http(error) => matches!(**error, crate::http::HttpError::Stale(_)),
            _ => false,
        }
    }

    /// The error and its causes on one line, outermost first, separated by `: `.
    pub fn chain(&self) -> impl fmt::Display {
        Chain(self)
    }
}

impl From<BoxError> for Error {
    /// Finds the meshlib error inside, so that layers of others lose nothing.
    fn from(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => *error,
            Err(error) => Self::Other(error),
        }
    }
}

/// Out of descriptors, ports or memory, or a source address that does not fit: not the endpoint's doing.
fn is_local(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::AddrInUse
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::QuotaExceeded
    ) || matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

/// Too many descriptors in the process, on the machine (Linux).
pub(crate) const EMFILE: i32 = 24;
pub(crate) const ENFILE: i32 = 23;

/// Prints an error with its causes.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Who caused an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The peer that connected to us misbehaved or went away.
    Client,
    /// The chosen endpoint failed; it counts against it.
    Server,
    /// Nothing usable is known under the name.
    Discovery,
    /// A limit, policy, file or socket of ours.
    Local,
}

/// One of the two ends of a forwarded connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// The peer that connected to us.
    Client,
    /// The endpoint we connected to.
    Server,
}

impl Side {
    /// Whose fault a failure on this side is.
    pub fn fault(self) -> Fault {
        match self {
            Self::Client => Fault::Client,
            Self::Server => Fault::Server,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// Why no endpoint can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unavailable {
    /// Discovery says that there is no such name.
    NotFound,
    /// The name exists and has no endpoints.
    Empty,
    /// Every endpoint failed lately, and none may be tried yet.
    ///
    /// Rare: when all endpoints are [ejected](crate::balance::ReplicaState::Ejected) they are used all the same, and a
    /// caller sees how that fails, [`Error::Connect`] for example. It happens where an
    /// [`Accrual`](crate::balance::Accrual) has a [`cool_down`](crate::balance::Accrual::cool_down) (there is none by
    /// default), until that of one endpoint is over, or where a [`Picker`](crate::balance::Picker) of one's own picks
    /// nothing.
    Ejected,
    /// Every endpoint was tried for this request. A balancer's caller does not see it, but the error of the last attempt.
    Excluded,
    /// Too many callers are waiting for an endpoint already.
    Crowded,
    /// The resolver ended without an answer.
    Unresolved,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "no such name",
            Self::Empty => "the set is empty",
            Self::Ejected => "all failed lately",
            Self::Excluded => "all were tried",
            Self::Crowded => "too many are waiting",
            Self::Unresolved => "resolution ended without an answer",
        })
    }
}

/// A step that has a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Waiting for an endpoint to use.
    Wait,
    /// Opening a connection, a TLS handshake with the endpoint included.
    Connect,
    /// The TLS handshake with the peer that connected to us.
    ClientHandshake,
    /// The TLS handshake with the endpoint.
    ServerHandshake,
    /// Forwarding without a byte in either direction.
    Idle,
    /// Forwarding in one direction after the other has ended.
    HalfClosed,
    /// The whole life of a connection.
    Lifetime,
    /// An HTTP request, until its answer's head.
    Request,
}

impl Phase {
    fn fault(self) -> Fault {
        match self {
            Self::Wait => Fault::Discovery,
            Self::Connect | Self::ServerHandshake | Self::Request => Fault::Server,
            Self::ClientHandshake => Fault::Client,
            Self::Idle | Self::HalfClosed | Self::Lifetime => Fault::Local,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wait => "waiting for an endpoint",
            Self::Connect => "connecting",
            Self::ClientHandshake => "the client's handshake",
            Self::ServerHandshake => "the server's handshake",
            Self::Idle => "silence",
            Self::HalfClosed => "the second direction",
            Self::Lifetime => "the connection",
            Self::Request => "the request",
        })
    }
}

/// What of ours refused a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// A [`TlsPolicy`](crate::tls::TlsPolicy).
    Policy,
    /// A limit on how much is done at once.
    Limit,
    /// The server is closing down.
    Draining,
    /// The session has no original destination.
    NoDestination,
    /// The client's TLS handshake has named no server.
    NoServerName,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Policy => "policy",
            Self::Limit => "limit reached",
            Self::Draining => "closing down",
            Self::NoDestination => "no original destination",
            Self::NoServerName => "the client has named no server (SNI)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small() {
        assert!(size_of::<Error>() <= 64, "{}", size_of::<Error>());
    }

    #[test]
    fn a_boxed_error_comes_back_whole() {
        let boxed: BoxError = Box::new(Error::Refused(Refusal::Limit));

        assert!(matches!(Error::from(boxed), Error::Refused(Refusal::Limit)));
    }

    #[test]
    fn the_chain_names_every_cause_once() {
        let error = Error::Connect {
            addr: "127.0.0.1:1".parse().unwrap(),
            source: io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens"),
        };

        assert_eq!(error.chain().to_string(), "cannot connect to 127.0.0.1:1: nobody listens");
    }
}
