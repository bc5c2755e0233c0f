//! The built `tricot`, from outside: a real Consul, a real ACME authority, real sockets and signals.
//!
//! Sites are played in the test's own process. A test that misses a server says so and passes.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

#[path = "tricot/admin.rs"]
mod admin;
#[path = "tricot/ask.rs"]
mod ask;
#[path = "tricot/authority.rs"]
mod authority;
#[path = "tricot/certificates.rs"]
mod certificates;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/child.rs"]
mod child;
#[path = "tricot/choice.rs"]
mod choice;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/devtools.rs"]
mod devtools;
#[path = "tricot/first.rs"]
mod first;
#[path = "tricot/front.rs"]
mod front;
#[path = "tricot/handover.rs"]
mod handover;
#[path = "tricot/headers.rs"]
mod headers;
#[path = "tricot/health.rs"]
mod health;
#[path = "tricot/life.rs"]
mod life;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/lines.rs"]
mod lines;
#[path = "tricot/load.rs"]
mod load;
#[path = "tricot/loops.rs"]
mod loops;
#[path = "tricot/on_demand.rs"]
mod on_demand;
#[path = "support/optional.rs"]
mod optional;
#[path = "tricot/outage.rs"]
mod outage;
#[path = "tricot/process.rs"]
mod process;
#[path = "tricot/reach.rs"]
mod reach;
#[path = "tricot/relay.rs"]
mod relay;
#[path = "tricot/site.rs"]
mod site;
#[path = "tricot/streams.rs"]
mod streams;
