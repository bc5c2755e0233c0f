//! Balancers of connections: shares, failures, waiting, changes of the set, and tower's side.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as loudly as the test")]

mod changes;
mod failures;
mod memory;
mod names;
mod shares;
mod spares;
mod waiting;
