//! Opening connections to chosen endpoints.
//!
//! | Part | What it does |
//! |---|---|
//! | [`TcpConnector`] | opens a TCP connection to the endpoint |
//! | [`TimeoutLayer`] | gives what is below it a deadline |
//! | [`SpareLayer`] | keeps a few connections ready, above a balancer |
//! | [`ProxyHeaderLayer`] | tells the endpoint who the client is, by the PROXY protocol |
//! | [`DirectLayer`] | goes where the client wanted to go, in the place of a balancer |
//! | [`Connector`] | what all of these are, and what yours may be |
//!
//! # Examples
//!
//! Without a balancer a connector is asked for an endpoint of one's own choice:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use meshlib::{Endpoint, Session, TcpConnector, TimeoutLayer, To};
//! use tower::{Layer, ServiceExt};
//!
//! let connect = TimeoutLayer::connect(Duration::from_secs(5)).layer(TcpConnector::default());
//! let to = To::new(Endpoint::new("10.0.0.1:80".parse()?), Session::default());
//! let io = connect.oneshot(to).await?;
//! println!("connected from {:?}", io.local_addr());
//! # Ok(())
//! # }
//! ```

use tower::Service;
use tower::util::BoxCloneSyncService;

use crate::error::Error;
use crate::io::Io;
use crate::session::Session;
use crate::session::To;

mod direct;
mod proxy_header;
mod spare;
mod tcp;
mod timeout;

pub use direct::Direct;
pub use direct::DirectLayer;
pub use proxy_header::ProxyHeader;
pub use proxy_header::ProxyHeaderLayer;
pub use proxy_header::WithProxyHeader;
pub use spare::Spare;
pub use spare::SpareLayer;
pub use tcp::SocketOptions;
pub use tcp::TcpConnector;
pub use timeout::Timeout;
pub use timeout::TimeoutFuture;
pub use timeout::TimeoutLayer;

/// Anything that opens a connection to a chosen endpoint on behalf of a session.
///
/// An alias: implement [`Service`]`<To<Session>, Response = Io, Error = Error>`, or use [`tower::service_fn`], and bound
/// on `Connector`.
///
/// # Examples
///
/// ```
/// use meshlib::{Connector, Error, Io, Session, To};
///
/// fn in_memory() -> impl Connector {
///     tower::service_fn(|to: To<Session>| async move {
///         let (ours, _theirs) = tokio::io::duplex(1024);
///         println!("asked for {}", to.endpoint.addr);
///         Ok::<_, Error>(Io::new(ours))
///     })
/// }
/// # in_memory();
/// ```
pub trait Connector:
    Service<To<Session>, Response = Io, Error = Error, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Connector for S where
    S: Service<To<Session>, Response = Io, Error = Error, Future: Send> + Clone + Send + Sync + 'static
{
}

/// A connector whose type is forgotten. Made with `BoxConnector::new(connector)`.
pub type BoxConnector = BoxCloneSyncService<To<Session>, Io, Error>;
