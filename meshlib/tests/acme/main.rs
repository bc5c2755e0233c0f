//! Certificates from a real ACME authority, by one node and by several that share a store.

#![cfg(feature = "acme")]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as loudly as the test")]

mod authority;
mod clock;
mod ending;
mod fleet;
mod issue;
mod lost;
mod on_demand;
mod outage;
mod refused;
mod renew;
mod rig;
mod stored;
mod suggested;
