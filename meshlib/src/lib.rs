//! The network side of a service: finding endpoints, choosing one, connecting, encrypting, forwarding.
//!
//! Each step is a small layer over [`tower`]'s `Service`, from a name to bytes: a [resolver](resolve) turns a name into
//! endpoints, a [balancer](balance) chooses one of them, a [connector](connect) opens a connection, a
//! [TLS policy](tls) decides how to speak, and [`forward()`] moves bytes. No step knows the types of its neighbours, so any
//! of them can be yours.
//!
//! ```text
//!   Session ──► TimeoutLayer ──► BalanceLayer ──► TlsLayer ──► TcpConnector ──► Io
//!                                 │ To<Session>: a request with its endpoint
//!                                 └─ Resolver: Static, Dns, Dir, namerd, yours
//!
//!   Listener ──► Server ──► TlsLayer ──► TcpProxy ──► (the line above) ──► forward()
//! ```
//!
//! # A balanced, encrypted connection
//!
//! ```no_run
//! use std::time::Duration;
//! use meshlib::{BalanceLayer, Session, Static, TcpConnector, TimeoutLayer, TlsLayer, tls};
//! use tokio::io::AsyncWriteExt;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[cfg(feature = "native-roots")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let replicas = Static::new(["10.0.0.1:443".parse()?, "10.0.0.2:443".parse()?]);
//! let web = ServiceBuilder::new()
//!     .layer(TimeoutLayer::connect(Duration::from_secs(5)))
//!     .layer(BalanceLayer::new(replicas, "web"))
//!     .layer(TlsLayer::new(tls::Always::new(tls::ClientTls::from_native_roots("web.example.com")?)))
//!     .service(TcpConnector::default());
//!
//! let mut io = web.clone().oneshot(Session::default()).await?;
//! io.write_all(b"hello").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! | Module | What for |
//! |---|---|
//! | [`resolve`] | names to endpoints |
//! | [`balance`] | endpoints to one endpoint |
//! | [`connect`] | an endpoint to a connection |
//! | [`tls`] | encryption on either side, certificates, identities |
//! | [`io`] | the connection's bytes, and looking at the first of them |
//! | [`observe`] | what happens, for metrics |
//! | `http` | HTTP/1.1 and HTTP/2: server, client, what a proxy needs between them, admin router (feature `http`) |
//! | `dtab` | paths and prefixes (feature `dtab`) |
//! | `config` | configuration pieces (feature `config`) |
//! | `store` | values, watches and locks that a fleet shares (feature `store`) |
//! | `tproxy` | taking connections that were meant for others, connecting from the client's address (feature `tproxy`) |
//! | `test_util` | certificates, servers, resolvers for tests (feature `test-util`) |
//!
//! # Features
//!
//! | Feature | Default | Adds |
//! |---|---|---|
//! | `aws-lc-rs` | yes | TLS with aws-lc-rs: the fastest, with post-quantum key exchange |
//! | `ring` | no | TLS with ring, where no C toolchain fits |
//! | `native-roots` | no | trust in the operating system's certificate authorities |
//! | `dns` | no | DNS by time to live, and in static images |
//! | `http` | no | the `http` module |
//! | `compress` | no | `http::CompressLayer` with gzip and brotli |
//! | `compress-zstd` | no | the same with zstd, which is built from C |
//! | `dtab` | no | the `dtab` module |
//! | `config` | no | the `config` module |
//! | `prometheus` | no | `observe::prometheus` |
//! | `store` | no | the `store` module |
//! | `acme` | no | the `tls::acme` module (implies `http`, `store`) |
//! | `tproxy` | no | the `tproxy` module (Linux) |
//! | `test-util` | no | the `test_util` module |
//! | `full` | no | all but `ring` and `test-util` |
//!
//! # Logs
//!
//! Through [`tracing`], with targets that begin with `meshlib`; install a subscriber to see them. What somebody should
//! look at is `warn` (discovery fails, an endpoint is left alone, descriptors are used up), that it works again is `info`,
//! and what happens to single connections and attempts is `debug`: an [`Observer`](observe::Observer) counts those.
//!
//! # What it leaves alone
//!
//! A feature adds API and never changes behaviour. The library takes nothing that is process-wide: no default crypto
//! provider, no metrics registry, no environment variable, no thread, and no signal handler unless
//! [`Drain::on_signals`] is called. Its tasks run on the caller's tokio runtime and end with their last handle.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backoff;
pub mod balance;
pub mod connect;
pub mod io;
pub mod observe;
pub mod resolve;
pub mod tls;

#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "dtab")]
pub mod dtab;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "store")]
pub mod store;
#[cfg(feature = "test-util")]
pub mod test_util;
#[cfg(feature = "tproxy")]
pub mod tproxy;

mod drain;
mod endpoint;
mod error;
mod forward;
mod listen;
mod once;
mod proxy;
mod relay;
mod serve;
mod session;

pub use balance::BalanceLayer;
pub use connect::BoxConnector;
pub use connect::Connector;
pub use connect::TcpConnector;
pub use connect::TimeoutLayer;
pub use drain::Drain;
pub use drain::Draining;
pub use drain::UntilForced;
pub use endpoint::Attachment;
pub use endpoint::Endpoint;
pub use endpoint::EndpointKey;
pub use endpoint::InvalidWeight;
pub use endpoint::Metadata;
pub use endpoint::Protocol;
pub use endpoint::Weight;
pub use error::Error;
pub use error::Fault;
pub use error::Phase;
pub use error::Refusal;
pub use error::Side;
pub use error::Unavailable;
pub use forward::ForwardOptions;
pub use forward::Progress;
pub use forward::Transferred;
pub use forward::forward;
pub use forward::forward_counted;
pub use io::Io;
pub use listen::ListenOptions;
pub use listen::Listener;
pub use proxy::TcpProxy;
pub use resolve::Resolution;
pub use resolve::Resolver;
pub use resolve::Static;
pub use resolve::Update;
pub use serve::AcceptProxyHeader;
pub use serve::AcceptProxyHeaderLayer;
pub use serve::Gate;
pub use serve::Server;
pub use session::Conn;
pub use session::Session;
pub use session::TlsSession;
pub use session::To;
pub use tls::TlsLayer;
