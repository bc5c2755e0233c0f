//! One question for all who cannot get an answer: is there a leader again?

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time;
use tokio::time::Instant;

use crate::ask::Ask;
use crate::client::Consul;
use crate::client::Shared;
use crate::error::Chain;
use crate::error::ConsulError;

/// Time between two questions.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(5);
/// What is denied is said once in this time.
const ONE_LINE: Duration = Duration::from_secs(60);

/// Counts the watches that work and those that do not. While none works a task asks for the leader once a second, and
/// wakes all of them when there is one.
#[derive(Debug, Default)]
pub(crate) struct Leader {
    counts: Mutex<Counts>,
    found: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Counts {
    watches: usize,
    failing: usize,
    probing: bool,
    denied: Option<Instant>,
}

/// One watch among them.
pub(crate) struct Watching {
    shared: Weak<Shared>,
    failing: bool,
    found: watch::Receiver<u64>,
}

impl Watching {
    pub(crate) fn new(consul: &Consul) -> Self {
        let leader = &consul.shared.leader;
        leader.counts().watches += 1;
        Self { shared: Arc::downgrade(&consul.shared), failing: false, found: leader.found.subscribe() }
    }

    /// Says whether it works. What fails is logged for all watches together.
    pub(crate) fn set_failing(&mut self, error: Option<&ConsulError>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut counts = shared.leader.counts();
        match (self.failing, error) {
            (false, Some(error)) => {
                counts.failing += 1;
                if counts.failing == 1 && !error.is_denied() {
                    tracing::warn!(error = %Chain(error), "consul fails; what is known stays in force");
                }
            }
            (true, None) => {
                counts.failing -= 1;
                if counts.failing == 0 {
                    tracing::info!("consul answers again");
                }
            }
            _ => {}
        }
        if let Some(error) = error.filter(|error| error.is_denied())
            && counts.denied.is_none_or(|at| at.elapsed() >= ONE_LINE)
        {
            counts.denied = Some(Instant::now());
            tracing::error!(%error, "consul denies what is watched; what is known stays in force");
        }
        self.failing = error.is_some();
        if self.failing && counts.failing == counts.watches && !counts.probing {
            counts.probing = true;
            tokio::spawn(probe(Arc::downgrade(&shared)));
        }
        drop(counts);
        self.found.mark_unchanged();
    }

    /// Waits until a leader has been found.
    pub(crate) async fn found(&mut self) {
        if self.found.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let mut counts = shared.leader.counts();
            counts.watches -= 1;
            counts.failing -= usize::from(self.failing);
        }
    }
}

impl Leader {
    /// How many watches there are.
    pub(crate) fn watches(&self) -> usize {
        self.counts().watches
    }

    /// Whether all watches fail: there is a task that asks for the leader, and nobody else need ask anything.
    pub(crate) fn all_fail(&self) -> bool {
        let counts = self.counts();
        counts.watches > 0 && counts.failing == counts.watches
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all watches fail. If not nobody probes from here on.
    fn is_lost(&self) -> bool {
        let mut counts = self.counts();
        counts.probing = counts.watches > 0 && counts.failing == counts.watches;
        counts.probing
    }
}

/// Ends when a watch works again or all are gone, with the client at the latest.
async fn probe(shared: Weak<Shared>) {
    loop {
        time::sleep(EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        if !shared.leader.is_lost() {
            return;
        }
        let consul = Consul { shared };
        let answer = consul.ask_ok(Ask::get("/v1/status/leader").within(WITHIN)).await;
        let known = answer.is_ok_and(|answer| {
            serde_json::from_slice::<String>(&answer.body).is_ok_and(|leader| !leader.is_empty())
        });
        if known {
            consul.shared.leader.found.send_modify(|generation| *generation += 1);
        } else {
            consul.shared.doubt.trouble();
        }
    }
}
