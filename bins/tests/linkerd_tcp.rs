//! The built `linkerd-tcp`, from outside: real sockets, real signals, real files.
//!
//! What can be had as a separate program is used as such (`openssl`, `curl`, `unshare`, `strace`); namerd is stood in for
//! by `meshlib_namerd::server` and backends by `meshlib::test_util`, both in the test's own process. A test that misses
//! a program or a permission says so and passes.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

#[path = "linkerd_tcp/admin.rs"]
mod admin;
#[path = "linkerd_tcp/balance.rs"]
mod balance;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/child.rs"]
mod child;
#[path = "linkerd_tcp/cli.rs"]
mod cli;
#[path = "linkerd_tcp/configuration.rs"]
mod configuration;
#[path = "linkerd_tcp/drain.rs"]
mod drain;
#[path = "linkerd_tcp/examples.rs"]
mod examples;
#[path = "linkerd_tcp/handover.rs"]
mod handover;
#[path = "linkerd_tcp/hybrid.rs"]
mod hybrid;
#[path = "linkerd_tcp/ipv6.rs"]
mod ipv6;
#[path = "linkerd_tcp/limits.rs"]
mod limits;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/lines.rs"]
mod lines;
#[path = "linkerd_tcp/log.rs"]
mod log;
#[path = "linkerd_tcp/metrics.rs"]
mod metrics;
#[path = "linkerd_tcp/namerd.rs"]
mod namerd;
#[path = "linkerd_tcp/names.rs"]
mod names;
#[path = "linkerd_tcp/prefixes.rs"]
mod prefixes;
#[path = "linkerd_tcp/process.rs"]
mod process;
#[path = "linkerd_tcp/reload.rs"]
mod reload;
#[path = "linkerd_tcp/slow.rs"]
mod slow;
#[path = "linkerd_tcp/spares.rs"]
mod spares;
#[path = "linkerd_tcp/streams.rs"]
mod streams;
#[path = "linkerd_tcp/talk.rs"]
mod talk;
#[path = "linkerd_tcp/tls.rs"]
mod tls;
#[path = "linkerd_tcp/trust.rs"]
mod trust;
#[path = "linkerd_tcp/watch.rs"]
mod watch;
