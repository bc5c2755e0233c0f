//! The metrics of every program: what they print, where it is documented, and what is made of it.
//!
//! The built programs run with traffic, tricot with a real Consul and a real ACME authority where these are. Their pages are
//! read strictly in both formats; the tables of `docs/metrics.md` are compared with them, and the dashboard and the alerts
//! with these tables.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

#[path = "metrics/alerts.rs"]
mod alerts;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "tricot/ask.rs"]
mod ask;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/child.rs"]
mod child;
#[path = "metrics/dashboard.rs"]
mod dashboard;
#[path = "metrics/exposition.rs"]
mod exposition;
#[path = "metrics/families.rs"]
mod families;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/lines.rs"]
mod lines;
#[path = "support/optional.rs"]
mod optional;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "tricot/process.rs"]
mod process;
#[path = "metrics/programs.rs"]
mod programs;
#[path = "metrics/promql.rs"]
mod promql;
#[path = "metrics/reference.rs"]
mod reference;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "tricot/site.rs"]
mod site;
