//! The command-line tools, and the kit of what they have in common.
//!
//! The programs under `src/bin` only read arguments and set exit statuses; everything else is here, where tests,
//! fuzzers and the quickstart reach it.

pub mod kit;

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
