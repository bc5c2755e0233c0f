//! The crate against the real agent. Each test has one of its own, and is skipped where there is none.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod catalog;
mod cluster;
mod kv;
mod lock;
mod rig;
mod scale;
mod service;
mod transport;
