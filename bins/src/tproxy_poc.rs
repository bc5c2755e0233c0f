//! `tproxy-poc`: a sidecar that takes what is meant for its pod's server, and connects to it from the client's address.
//!
//! Arguments become a plan or are refused; rules are set by running the commands that the library writes, when the
//! sockets listen already; then workers serve until a signal ends it and the rules go again.

mod args;
mod commands;
mod loops;
mod metrics;
mod plan;
mod privileges;
mod program;
mod rules;
mod run;
mod serve;
mod upstream;
mod watch;
mod wire;

pub use program::main;
