//! `forward` between real sockets, and over memory where time matters.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as loudly as the test")]

mod endings;
mod legs;
mod limits;
mod stall;
mod transfer;
