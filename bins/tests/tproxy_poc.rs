//! The built `tproxy-poc` in network namespaces: real clients, real servers, real rules.
//!
//! Needs root, `ip`, `iptables`, `nft` and `setpriv`; a test that misses one says so and passes, or fails if
//! `MESHLIB_REQUIRE_NETNS=1`.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/child.rs"]
mod child;
#[path = "tproxy_poc/defaults.rs"]
mod defaults;
#[path = "tproxy_poc/direct.rs"]
mod direct;
#[path = "tproxy_poc/drain.rs"]
mod drain;
#[path = "tproxy_poc/faults.rs"]
mod faults;
#[path = "tproxy_poc/filters.rs"]
mod filters;
#[path = "tproxy_poc/gateway.rs"]
mod gateway;
#[path = "tproxy_poc/header.rs"]
mod header;
#[path = "tproxy_poc/life.rs"]
mod life;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/lines.rs"]
mod lines;
#[path = "tproxy_poc/loops.rs"]
mod loops;
#[path = "tproxy_poc/many.rs"]
mod many;
#[path = "tproxy_poc/matrix.rs"]
mod matrix;
#[path = "tproxy_poc/net.rs"]
mod net;
#[path = "tproxy_poc/payload.rs"]
mod payload;
#[path = "tproxy_poc/ports.rs"]
mod ports;
#[path = "tproxy_poc/privileges.rs"]
mod privileges;
#[path = "tproxy_poc/process.rs"]
mod process;
#[path = "tproxy_poc/rules.rs"]
mod rules;
#[path = "tproxy_poc/seed.rs"]
mod seed;
#[path = "tproxy_poc/spoof.rs"]
mod spoof;
#[path = "tproxy_poc/sysctls.rs"]
mod sysctls;
#[path = "tproxy_poc/talk.rs"]
mod talk;
#[path = "tproxy_poc/watch.rs"]
mod watch;
