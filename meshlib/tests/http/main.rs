//! A proxy of HTTP between raw clients and raw backends: what arrives is compared byte for byte.

#![cfg(feature = "http")]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as loudly as the test")]

mod answers;
mod bodies;
mod downgrade;
mod drain;
mod floods;
mod frames;
mod framing;
mod hops;
mod multiplexed;
mod pool;
mod recorder;
mod rig;
mod silence;
mod upgrades;
mod wire;
