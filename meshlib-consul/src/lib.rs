//! Endpoints from [Consul](https://developer.hashicorp.com/consul)'s catalog, and its key-value store with locks.
//!
//! [`Consul`] is a client of Consul's HTTP API. It is a [`Resolver`](meshlib::Resolver) of service names, and it follows
//! whatever else changes: keys, prefixes, services by their tags. Everything it follows is a level, the whole of what is
//! known, and survives failures: agents that restart, elections, lost quorum and lost rights leave the last good value in
//! force and say that it is [`degraded`](watch::Level::degraded). What is missing after a failure is believed to be gone 10 s
//! later, and 5 min later if it was [everything](watch::Degraded::Forgotten).
//!
//! # Examples
//!
//! Connections to the healthy instances of a service, by their weights:
//!
//! ```
//! use meshlib::{BalanceLayer, TcpConnector};
//! use meshlib_consul::{Config, Consul};
//! use tower::Layer;
//!
//! # fn main() -> Result<(), meshlib_consul::ConfigError> {
//! let consul = Consul::new(Config::from_env()?)?;
//! let connect = BalanceLayer::new(consul, "web").layer(TcpConnector::default());
//! # drop(connect);
//! # Ok(())
//! # }
//! ```
//!
//! [`Consul::service`] in place of the client chooses by tag, state or datacenter.
//!
//! # Map
//!
//! | Part | What it is |
//! |---|---|
//! | [`Config`] | where Consul is, and how it is spoken to |
//! | [`Consul`] | a resolver of the names of services, and a client |
//! | [`Consul::service`] | one service: a resolver of its endpoints, or all its [`Instance`]s |
//! | [`Consul::services`] | all services whose tags are of interest, with their instances |
//! | [`Consul::node`], [`Consul::agent`] | nodes, and one's own |
//! | [`ConsulKv`] | the key-value store as a [`KvStore`](meshlib::store::KvStore) |
//! | [`Consul::kv_get`] and its like | the key-value store with all it can do |
//! | [`Consul::lock`], [`Consul::try_lock`] | locks that are kept, and whose loss is noticed |
//! | [`Consul::stats`] | how often Consul was asked, for metrics |
//! | [`watch`] | what is told about what is followed |
//!
//! # Limits
//!
//! An agent takes 200 connections from one address. A client keeps below that (see [`Config::max_requests`]): where there
//! are more services to follow, it reads what has changed instead of watching each. An answer of more than 64 MiB is
//! refused. Requests are not redirected.
//!
//! # Features
//!
//! | Feature | Default | Adds | Draws in |
//! |---|---|---|---|
//! | `aws-lc-rs` | yes | TLS towards Consul, with that provider | meshlib's feature of that name |
//! | `ring` | no | TLS towards Consul with ring | meshlib's feature of that name |
//! | `native-roots` | no | trust in the operating system's certificate authorities | meshlib's feature of that name |
//!
//! # More
//!
//! The [example `consul`] is a whole program: an HTTP client whose endpoints come from here. The [guide to tricot] shows what
//! an edge made of this crate does when Consul fails. [`meshlib`] has the layers that endpoints go to.
//!
//! [example `consul`]: https://github.com/meshlib/meshlib/blob/main/examples/consul.rs
//! [guide to tricot]: https://github.com/meshlib/meshlib/blob/main/docs/tricot.md

#![cfg_attr(docsrs, feature(doc_cfg))]

mod api;
mod ask;
mod catalog;
mod client;
mod config;
mod doubt;
mod emptiness;
mod error;
mod follow;
mod forgotten;
mod hub;
mod instance;
mod kv;
mod lanes;
mod leader;
mod lock;
mod pump;
mod secure;
mod service;
mod stats;
mod store;
mod sweep;
mod transport;
pub mod watch;

pub use api::KvPair;
pub use api::ServiceTags;
pub use api::Tags;
pub use api::TxnProblem;
pub use ask::Consistency;
pub use catalog::AgentInfo;
pub use catalog::NodeInfo;
pub use catalog::Services;
pub use client::Consul;
pub use config::Config;
pub use config::ConfigError;
pub use config::TlsOptions;
pub use config::Token;
pub use config::Verify;
pub use error::ConsulError;
pub use instance::Instance;
pub use instance::Instances;
pub use instance::Status;
pub use instance::Weights;
pub use kv::MAX_TXN;
pub use kv::PutOptions;
pub use kv::TxnOp;
pub use service::Service;
pub use stats::EndpointStats;
pub use stats::Stats;
pub use store::ConsulKv;

/// The README's examples are built like all others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
