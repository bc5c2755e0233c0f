//! Certificates, servers, resolvers and connectors for tests.
//!
//! | Helper | Stands in for |
//! |---|---|
//! | [`TestCa`] | a certificate authority, and the configurations of both TLS sides |
//! | [`Echo`] | a backend that sends back what it gets, plain or in TLS |
//! | [`Scripted`] | discovery, said line by line by the test |
//! | [`Flaky`] | a network that fails when the test says so |
//! | [`echo()`], [`echo_to_end`] | a client that checks a connection both ways |
//! | [`netns`] | other hosts: network namespaces, wired together (Linux) |
//! | [`Program`] | a server of others that runs while a test does |
//! | [`Consul`] | a Consul agent, or three of them |
//! | [`Pebble`] | a real ACME authority, with a DNS server of its own |
//! | [`Unavailable`], [`or_skip`] | what a test needs and does not have, and what it does then |
//!
//! They panic where a test has no use for an error: when no socket can be had or no key can be made.
//!
//! # Examples
//!
//! ```
//! use meshlib::test_util::{Echo, Scripted, echo};
//! use meshlib::{BalanceLayer, Error, Session, TcpConnector};
//! use tower::{Layer, Service};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let (resolver, updates) = Scripted::new();
//! let backend = Echo::start().await;
//! updates.endpoints([backend.addr()]);
//! let mut connect = BalanceLayer::new(resolver, "web").layer(TcpConnector::default());
//! let mut io = connect.call(Session::default()).await.unwrap();
//!
//! updates.endpoints([]);
//!
//! assert_eq!(echo(&mut io, b"still here").await.unwrap(), b"still here");
//! assert!(matches!(connect.call(Session::default()).await, Err(Error::Unavailable { .. })));
//! # }
//! ```

mod ca;
mod consul;
mod der;
mod echo;
mod flaky;
#[cfg(target_os = "linux")]
pub mod netns;
mod pebble;
mod program;
mod scripted;
mod talk;
mod unavailable;

pub use ca::CertOptions;
pub use ca::KeyKind;
pub use ca::TestCa;
pub use ca::TestCert;
pub use consul::Consul;
pub use consul::ConsulAnswer;
pub use consul::ConsulOptions;
pub use consul::ConsulTls;
pub use echo::Echo;
pub use echo::EchoOptions;
pub use flaky::Flaky;
pub use pebble::Pebble;
pub use pebble::PebbleOptions;
pub use program::Program;
pub use program::free_ports;
pub use program::locate;
pub use scripted::Scripted;
pub use scripted::Updates;
pub use talk::echo;
pub use talk::echo_to_end;
pub use unavailable::Unavailable;
pub use unavailable::or_skip;
pub use unavailable::require_programs;
