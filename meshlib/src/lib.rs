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
//! The page of each module begins with what it is for and an example. Whole programs, a page each, are in the repository's
//! [examples]: proxies for TCP, TLS and HTTP, a server under axum, clients, a resolver, a balancer and a connector of one's
//! own. The [guides] are about the tools that are made of this library. Sisters of this crate bring more resolvers:
//! [meshlib-consul] and [meshlib-namerd].
//!
//! [examples]: https://github.com/meshlib/meshlib/tree/main/examples
//! [guides]: https://github.com/meshlib/meshlib/tree/main/docs
//! [meshlib-consul]: https://docs.rs/meshlib-consul
//! [meshlib-namerd]: https://docs.rs/meshlib-namerd
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
//! | [`backoff`] | pauses that grow while something keeps failing |
//! | `http` | HTTP/1.1 and HTTP/2: server, client, what a proxy needs between them, admin router (feature `http`) |
//! | `dtab` | paths and prefixes (feature `dtab`) |
//! | `config` | configuration pieces (feature `config`) |
//! | `store` | values, watches and locks that a fleet shares (feature `store`) |
//! | `tproxy` | taking connections that were meant for others, connecting from the client's address (feature `tproxy`) |
//! | `test_util` | certificates, servers, resolvers for tests (feature `test-util`) |
//!
//! # Features
//!
//! The last column has what a feature draws in: other features of this crate, and crates that it depends on only with the
//! feature. Without any there are some 50 crates in all.
//!
//! | Feature | Default | Adds | Draws in |
//! |---|---|---|---|
//! | `aws-lc-rs` | yes | TLS with aws-lc-rs: the fastest, with post-quantum key exchange | rustls's support for it; some C to build |
//! | `ring` | no | TLS with ring, for targets that aws-lc-rs is not made for | rustls's support for it; some C to build |
//! | `native-roots` | no | trust in the operating system's certificate authorities | `rustls-native-certs` |
//! | `dns` | no | DNS by time to live, and in static images | `hickory-resolver`, with 60 crates of its own |
//! | `http` | no | the `http` module | `http`, `http-body`, `httparse`, `hyper`, `hyper-util` |
//! | `compress` | no | `http::CompressLayer` with gzip and brotli | `http`, `async-compression` |
//! | `compress-zstd` | no | the same with zstd | `compress`; zstd, which is C to build |
//! | `dtab` | no | the `dtab` module | |
//! | `config` | no | the `config` module | `serde` |
//! | `prometheus` | no | `observe::prometheus` | |
//! | `store` | no | the `store` module | |
//! | `acme` | no | the `tls::acme` module | `aws-lc-rs`, `http`, `store`, `instant-acme`, `rcgen`, `serde`, `serde_json`, `time`, `x509-parser` |
//! | `tproxy` | no | the `tproxy` module (Linux) | `ipnet`, `nix` |
//! | `test-util` | no | the `test_util` module | `aws-lc-rs`, `rcgen`, `time`, `nix` |
//! | `full` | no | all but `ring` and `test-util` | |
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

/// The README's examples are built like all others.
#[cfg(all(doctest, feature = "native-roots"))]
#[doc = include_str!("../README.md")]
struct Readme;
