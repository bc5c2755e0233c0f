//! `tricot`: an HTTPS edge proxy that takes its routes from the tags of Consul's services.
//!
//! | Part | What it is |
//! |---|---|
//! | [`args`] | the command line and the variables |
//! | [`tags`] | what the tags of an instance say |
//! | `discovery`, `outage` | follows Consul and makes tables of what it says, or says why it cannot |
//! | `addresses` | finds instances that are registered with a host name |
//! | `table`, `group`, `backend` | from instances to rules, to sets that are balanced over, to one place to send to |
//! | `route`, `send` | from a request to a rule, to an instance |
//! | `hops` | finds requests that go round in circles |
//! | `access`, `page` | what goes around each request: log, numbers, pages of our own |
//! | `seldom` | keeps warnings about single requests few |
//! | `plain` | the HTTP port |
//! | `policy`, `on_demand` | which certificate a client sees, and when one is ordered for it |
//! | `mirror` | copies of certificates on disk |
//! | `files` | what is wrong with files that settings name |
//! | `admin`, `shown`, `metrics`, `observer` | what operators see |
//! | `sockets` | where it listens |
//! | `parts`, `run` | what is made of the settings, and running it |

mod access;
mod addresses;
mod admin;
pub mod args;
mod backend;
mod discovery;
mod files;
mod group;
mod hops;
mod host;
mod metrics;
mod mirror;
mod observer;
mod on_demand;
mod outage;
mod page;
mod parts;
mod plain;
mod policy;
mod program;
mod route;
mod run;
mod seldom;
mod send;
mod shown;
mod sockets;
mod table;
mod tag_problems;
pub mod tags;

pub use program::main;

use std::fmt;

use http::HeaderMap;

/// Headers for logs: what lets somebody in is not shown.
fn masked(headers: &HeaderMap) -> Masked<'_> {
    Masked(headers)
}

struct Masked<'a>(&'a HeaderMap);

impl fmt::Debug for Masked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, value)| {
            let secret = matches!(
                name.as_str(),
                "authorization" | "proxy-authorization" | "cookie" | "set-cookie" | "x-consul-token"
            );
            (
                name.as_str(),
                if secret { "(hidden)".into() } else { String::from_utf8_lossy(value.as_bytes()) },
            )
        });
        f.debug_map().entries(shown).finish()
    }
}
