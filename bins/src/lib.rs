//! What the command-line tools have in common, and the tools themselves.
//!
//! The programs under `src/bin` only read arguments and set exit statuses; everything else is here, where tests,
//! fuzzers and the quickstart reach it.

pub mod about;
pub mod admin;
pub mod cli;
pub mod control;
pub mod dashboard;
pub mod ending;
pub mod limits;
pub mod load;
pub mod loading;
pub mod log;
pub mod manager;
pub mod metrics;
pub mod signals;
pub mod sockets;
pub mod state;
pub mod units;
pub mod workers;

#[cfg(feature = "echo-server")]
pub mod echo_server;
#[cfg(feature = "linkerd-tcp")]
pub mod linkerd_tcp;
#[cfg(feature = "meshctl")]
pub mod meshctl;
#[cfg(feature = "tproxy-poc")]
pub mod tproxy_poc;
#[cfg(feature = "tricot")]
pub mod tricot;
