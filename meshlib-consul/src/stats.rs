//! How often Consul was asked, and what came of it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::Answer;
use crate::client::Consul;
use crate::error::ConsulError;

/// What a client has done since it was made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// The counts of each endpoint of the API that was used: `health/service`, `kv`, `session/renew`, ...
    pub endpoints: BTreeMap<&'static str, EndpointStats>,
    /// Time since Consul last answered. `None`: it never has.
    pub last_contact: Option<Duration>,
}

/// The counts of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Requests that have ended.
    pub requests: u64,
    /// Those among them without a good answer. That nothing is there, 404, is a good one.
    pub errors: u64,
    /// How often its index went back, which happens when servers are set up anew.
    pub index_resets: u64,
}

impl Consul {
    /// The counts since this client was made.
    pub fn stats(&self) -> Stats {
        self.shared.counts.stats()
    }
}

/// The counts of a client.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    endpoints: BTreeMap<&'static str, EndpointStats>,
    answered: Option<Instant>,
}

impl Counts {
    pub(crate) fn asked(&self, uri: &str, result: &Result<Answer, ConsulError>) {
        let mut inner = self.lock();
        let failed = result.as_ref().map_or(true, |answer| answer.status >= 400 && answer.status != 404);
        let counts = inner.endpoints.entry(endpoint(uri)).or_default();
        counts.requests += 1;
        counts.errors += u64::from(failed);
        if result.is_ok() {
            inner.answered = Some(Instant::now());
        }
    }

    pub(crate) fn index_went_back(&self, uri: &str) {
        self.lock().endpoints.entry(endpoint(uri)).or_default().index_resets += 1;
    }

    fn stats(&self) -> Stats {
        let inner = self.lock();
        Stats {
            endpoints: inner.endpoints.clone(),
            last_contact: inner.answered.map(|answered| answered.elapsed()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoint of a path: one of few, whatever is asked for there.
fn endpoint(uri: &str) -> &'static str {
    const KNOWN: [&str; 15] = [
        "agent/self",
        "catalog/datacenters",
        "catalog/node",
        "catalog/nodes",
        "catalog/service",
        "catalog/services",
        "health/service",
        "health/state",
        "kv",
        "session/create",
        "session/destroy",
        "session/info",
        "session/renew",
        "status/leader",
        "txn",
    ];

    let path = uri.split('?').next().unwrap_or_default().trim_start_matches("/v1/");
    let is_below = |known: &&&str| {
        path.strip_prefix(**known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    KNOWN.iter().find(is_below).copied().unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_counted_by_its_endpoint() {
        assert_eq!(endpoint("/v1/health/service/web?index=7&wait=60s"), "health/service");
        assert_eq!(endpoint("/v1/catalog/services?stale"), "catalog/services");
        assert_eq!(endpoint("/v1/catalog/service/web"), "catalog/service");
        assert_eq!(endpoint("/v1/kv/tricot/certs/a?raw"), "kv");
        assert_eq!(endpoint("/v1/txn"), "txn");
        assert_eq!(endpoint("/v1/event/list"), "other");
    }
}
