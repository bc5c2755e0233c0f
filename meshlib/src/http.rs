//! HTTP/1.1 on meshlib's connections.
//!
//! | Part | What it is |
//! |---|---|
//! | [`HttpServer`] | the service of a [`Server`](crate::Server) that hands each request to another service |
//! | [`ClientLayer`] | sends requests to chosen endpoints over connections that are kept |
//! | [`Body`] | what requests and answers carry |
//! | [`admin`] | a small router for a program's own pages |
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

use crate::error::Fault;
use crate::error::Side;

pub mod admin;
mod body;
mod client;
mod pool;
mod server;
mod write_deadline;

pub use body::Body;
pub use client::ClientLayer;
pub use client::HttpClient;
pub use pool::PoolOptions;
pub use server::HttpServer;
pub use server::ServerOptions;

/// Why an HTTP exchange failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The endpoint's connection was closed before a byte of the request was sent.
    #[error("the connection was closed before the request was sent")]
    Unsent(#[source] hyper::Error),
    /// The exchange with a peer broke down.
    #[error("exchange with the {side} failed")]
    Exchange {
        /// The peer.
        side: Side,
        /// What happened.
        source: hyper::Error,
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
}

impl HttpError {
    /// Who is to blame.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unsent(_) => Fault::Server,
            Self::Exchange { side, .. } => side.fault(),
            Self::TooLarge { .. } => Fault::Client,
            Self::Body(_) => Fault::Server,
        }
    }

    /// Whether nothing of the request can have reached its endpoint.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Unsent(_))
    }
}
