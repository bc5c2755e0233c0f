//! HTTP/1.1 and HTTP/2 on meshlib's connections.
//!
//! | Part | What it does |
//! |---|---|
//! | [`HttpServer`] | the service of a [`Server`](crate::Server) that hands each request to another service |
//! | [`HeadersLayer`] | makes requests and answers fit to be passed on |
//! | [`UpgradeLayer`] | lets connections go on with another protocol: WebSocket |
//! | `CompressLayer` | compresses answers for clients that can read them so (feature `compress`) |
//! | [`RetryLayer`] | sends a request again whose answer is no good |
//! | [`ClientLayer`] | sends requests to chosen endpoints over connections that are kept |
//! | [`route`] | finds what belongs to a host and a path |
//! | [`status`] | tells a client of an error |
//! | [`admin`] | a small router for a program's own pages |
//! | [`Body`] | what requests and answers carry |
//!
//! Requests and answers are those of the [`http`](https://docs.rs/http/1) crate, version 1.
//!
//! # Examples
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use http::{Request, Response};
//! use meshlib::http::{Body, HttpServer};
//! use meshlib::{Drain, Error, Server};
//!
//! let hello = tower::service_fn(|request: Request<Body>| async move {
//!     Ok::<_, Error>(Response::new(Body::from(format!("you asked for {}\n", request.uri()))))
//! });
//! Server::bind("127.0.0.1:8080").await?.serve(HttpServer::new(hello), Drain::on_signals()).await
//! # }
//! ```
//!
//! [`HttpServer`] shows the same with TLS.
//!
//! # Order of layers
//!
//! A reverse proxy with everything but compression, from the server to the endpoint:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use meshlib::balance::PeakEwma;
//! use meshlib::http::{ClientLayer, HeadersLayer, HttpServer, IdempotentFailures, RetryLayer, UpgradeLayer};
//! use meshlib::{BalanceLayer, Drain, Phase, Server, Static, TcpConnector, TimeoutLayer};
//! use tower::ServiceBuilder;
//!
//! let replicas = Static::new(["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?]);
//! let proxy = ServiceBuilder::new()
//!     .layer(HeadersLayer::new())
//!     .layer(UpgradeLayer::new())
//!     .layer(TimeoutLayer::new(Phase::Request, Duration::from_secs(60)))
//!     .layer(RetryLayer::new(IdempotentFailures::new()))
//!     .layer(BalanceLayer::new(replicas, "web").balancer(PeakEwma::new()))
//!     .layer(TimeoutLayer::new(Phase::Request, Duration::from_secs(20)))
//!     .layer(ClientLayer::new())
//!     .layer(TimeoutLayer::connect(Duration::from_secs(5)))
//!     .service(TcpConnector::default());
//! Server::bind("0.0.0.0:8080").await?.serve(HttpServer::new(proxy), Drain::on_signals()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | Layer | Why it is there |
//! |---|---|
//! | [`HeadersLayer`] | first, so that no other layer sees a malformed request or a field of the client's connection; what logs or counts everything, refused requests too, goes above it |
//! | `CompressLayer` | above all that may ask again, so that only the answer that the client gets is compressed; it has a feature of its own and is not in the example |
//! | [`UpgradeLayer`] | above all that may send a request twice: it takes the client's connection out of it. Without this layer an upgrade that the endpoint grants ends in a dead connection |
//! | [`TimeoutLayer`](crate::TimeoutLayer) of [`Phase::Request`](crate::Phase::Request) | for all attempts and pauses together: how long a client waits at most |
//! | [`RetryLayer`] | above the balancer, so that each retry is given an endpoint anew |
//! | [`BalanceLayer`](crate::BalanceLayer) | gives the request its endpoint; what comes below is a service of [`To`](crate::To)`<Request<Body>>` and sees each attempt |
//! | [`TimeoutLayer`](crate::TimeoutLayer) once more | for one attempt: an endpoint that takes longer has failed, as below |
//! | [`ClientLayer`] | sends it, on a connection that was kept or from the connector below |
//! | [`TimeoutLayer::connect`](crate::TimeoutLayer::connect) | below the client, so that it is for opening a connection and not for the request |
//! | [`TcpConnector`](crate::TcpConnector) | opens connections |
//!
//! - The limit of an attempt belongs between balancer and client. There it is a failure of the endpoint, which is
//!   [ejected](crate::balance::Accrual) if it goes on like that, and which [`IdempotentFailures`] has tried again. A limit
//!   above the balancer only drops the attempt, which is then [abandoned](crate::observe::Event::Abandoned) and nobody's
//!   fault: an endpoint that hangs keeps its trust and is given more.
//! - Such a limit includes the way of the request's body to the endpoint, since most answer when they have all of it: a
//!   client that is slow to upload uses it up, and its endpoint is blamed. Bodies that [`RetryLayer`] has read beforehand, of
//!   up to 64 KiB, do not count. Make the limit several times what the slowest honest answer takes, and give large uploads a
//!   stack of their own without it. An upload that stands still is ended by [`ServerOptions::body_within`], which blames the
//!   client.
//! - [`Phase::Request`](crate::Phase::Request) ends when the answer's head has come. No layer limits how long the answer's
//!   body may take, which may be a stream that lasts for hours. An endpoint that is silent in the middle of it is left after
//!   [`PoolOptions::body_within`], if that is set; a client that does not take it is cut off after
//!   [`ServerOptions::write_within`].
//! - TLS to endpoints is [`ClientLayer::tls`], which also offers HTTP/2 and keeps connections apart by how they are
//!   encrypted. A [`TlsLayer`](crate::TlsLayer) below [`ClientLayer`] works too, with the protocols that its configuration
//!   offers; between balancer and client it does not, since there is no connection there. The compiler says
//!   `the trait bound Tls<HttpClient<_>>: Service<To<Request<Body>>> is not satisfied`.
//! - [`PeakEwma`](crate::balance::PeakEwma) goes by the time that endpoints take to answer. The default,
//!   [`LeastLoaded`](crate::balance::LeastLoaded), goes by the requests in flight: as good where endpoints are equally fast,
//!   and nothing is measured.
//! - A proxy that does without [`RetryLayer`] still sends a request to another endpoint that the first did not take, as
//!   [`Attempts`](crate::balance::Attempts) says.
//! - The type of a stack is long and names every layer. Where it must be written down, in a field or as what a function
//!   returns, [`BoxCloneSyncService`](tower::util::BoxCloneSyncService)`<Request<Body>, Response<Body>, Error>` is the name
//!   of all of them, made by `BoxCloneSyncService::new(proxy)`. It costs one allocation per request.
//!
//! # Which endpoint has answered
//!
//! A service between balancer and client sees the endpoint of each attempt. Most proxies do not ask, so nothing is kept of
//! it; for an access log a few lines put it among the answer's extensions, where every layer above finds it:
//!
//! ```
//! use http::Request;
//! use meshlib::http::{Body, ClientLayer};
//! use meshlib::{BalanceLayer, Endpoint, Error, Static, TcpConnector, To};
//! use tower::util::BoxCloneSyncService;
//! use tower::{Layer, ServiceExt};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = ClientLayer::new().layer(TcpConnector::default());
//! let noting = tower::service_fn(move |to: To<Request<Body>>| {
//!     let (client, endpoint) = (client.clone(), to.endpoint.clone());
//!     async move {
//!         let mut answer = client.oneshot(to).await?;
//!         answer.extensions_mut().insert(endpoint);
//!         Ok::<_, Error>(answer)
//!     }
//! });
//! let proxy = BalanceLayer::new(Static::new(["10.0.0.1:80".parse()?]), "web").layer(noting);
//! let logging = proxy.map_response(|answer| {
//!     let endpoint = answer.extensions().get::<Endpoint>().map(|endpoint| endpoint.addr);
//!     println!("{} from {endpoint:?}", answer.status());
//!     answer
//! });
//! let stack: BoxCloneSyncService<Request<Body>, http::Response<Body>, Error> = BoxCloneSyncService::new(logging);
//! # let _ = stack;
//! # Ok(())
//! # }
//! ```
//!
//! An attempt that failed has no answer; [`To`](crate::To) shows how to look at both.

use std::time::Duration;

use crate::error::Fault;
use crate::error::Side;

mod accepted;
pub mod admin;
mod body;
mod client;
#[cfg(feature = "compress")]
mod compress;
mod exchange;
mod expect;
mod form;
mod head_timer;
mod headers;
mod pool;
mod retry;
pub mod route;
mod server;
pub mod status;
mod stream_deadline;
mod upgrade;
mod write_deadline;

pub use accepted::Accepted;
pub use body::Body;
pub use client::ClientLayer;
pub use client::HttpClient;
pub use client::KeptRequest;
#[cfg(feature = "compress")]
pub use compress::Compress;
#[cfg(feature = "compress")]
pub use compress::CompressFuture;
#[cfg(feature = "compress")]
pub use compress::CompressLayer;
#[cfg(feature = "compress")]
pub use compress::CompressOptions;
#[cfg(feature = "compress")]
pub use compress::Effort;
#[cfg(feature = "compress")]
pub use compress::InvalidMediaType;
#[cfg(feature = "compress")]
pub use compress::MediaTypes;
pub use headers::Forwarded;
pub use headers::Headers;
pub use headers::HeadersFuture;
pub use headers::HeadersLayer;
pub use pool::PoolOptions;
pub use retry::Class;
pub use retry::Classify;
pub use retry::IdempotentFailures;
pub use retry::Outcome;
pub use retry::Retry;
pub use retry::RetryLayer;
pub use server::HttpServer;
pub use server::ServerOptions;
pub use upgrade::Upgrade;
pub use upgrade::UpgradeLayer;

/// What a TLS server that speaks HTTP/2 and HTTP/1.1 offers in its handshake, the better one first.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why an HTTP exchange failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The endpoint's connection was closed before a byte of the request was sent.
    #[error("the connection was closed before the request was sent")]
    Unsent(#[source] tower::BoxError),
    /// A connection that had been kept was closed instead of answering a request that may be repeated.
    #[error("the kept connection was closed before the answer")]
    Stale(#[source] tower::BoxError),
    /// The exchange with a peer broke down.
    #[error("exchange with the {side} failed")]
    Exchange {
        /// The peer.
        side: Side,
        /// What happened.
        source: tower::BoxError,
    },
    /// A peer's connection broke before a request or an answer began.
    #[error("the connection of the {side} broke")]
    Lost {
        /// The peer.
        side: Side,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A body is larger than it may be.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// A body broke off.
    #[error("the body broke off")]
    Body(#[source] tower::BoxError),
    /// A peer was silent in the middle of a body.
    #[error("no byte of the {side}'s body came for {after:?}")]
    Silent {
        /// The peer.
        side: Side,
        /// The limit.
        after: Duration,
    },
    /// A request cannot be passed on as it is.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
}

impl HttpError {
    /// Who is to blame.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unsent(_) | Self::Stale(_) => Fault::Server,
            Self::Exchange { side, .. } | Self::Lost { side, .. } | Self::Silent { side, .. } => side.fault(),
            Self::TooLarge { .. } | Self::Malformed(_) => Fault::Client,
            Self::Body(_) => Fault::Server,
        }
    }

    /// Whether a connection ended in the middle of an exchange, and nothing was wrong with what had been said on it.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Unsent(source) | Self::Stale(source) | Self::Exchange { source, .. } => {
                exchange::is_closed(&**source)
            }
            Self::Lost { .. } => true,
            _ => false,
        }
    }

    /// Whether the request may be sent again: nothing of it can have reached its endpoint, or it does no harm twice.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unsent(_) | Self::Stale(_))
    }
}
