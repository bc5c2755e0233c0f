//! What the programs of this package share: connections, certificates, and what the kernel knows about processes.
#![expect(clippy::exhaustive_enums, reason = "only the programs of this package use it")]

pub mod counters;
pub mod histogram;
pub mod http;
pub mod limits;
pub mod procfs;
pub mod talk;
pub mod tls;
pub mod wire;
