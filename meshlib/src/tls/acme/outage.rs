//! A store that fails: one look at it tells for all names whether it is back.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time;
use tokio::time::Instant;

use super::Shared;
use super::plan::Failed;
use crate::backoff::Backoff;
use crate::error::Chain;
use crate::store::Read;
use crate::store::StoreError;

/// The first pause before a store that failed is looked at. It doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause. A look may begin just before the store is back, so that is noticed after a look and a pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// How long a look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// A store that fails again sooner than this was not well in between: its pauses go on growing.
const WELL_AFTER: Duration = Duration::from_secs(5);

/// Whether the store fails, and why.
#[derive(Debug, Default)]
pub(super) struct Outage {
    state: watch::Sender<Option<Failed>>,
}

impl Outage {
    pub(super) fn is_on(&self) -> bool {
        self.state.borrow().is_some()
    }

    /// What is waited for.
    pub(super) fn failed(&self) -> Option<Failed> {
        self.state.borrow().clone()
    }
}

impl Shared {
    /// The store has failed. If it is out of reach nothing more is asked of it for any name until a look at it succeeds. One
    /// that answers, and refuses, may do so for one name only.
    pub(super) fn store_fails(&self, error: &StoreError) {
        if !matches!(error, StoreError::Unreachable(_)) {
            return;
        }
        let failed = Failed { until: self.now() + FIRST_PAUSE, error: Chain(error).to_string().into() };
        self.outage.state.send_if_modified(|state| {
            let begins = state.is_none();
            state.get_or_insert(failed);
            begins
        });
    }

    /// Looks at a store that fails until it answers, then lets the names go on. Never ends.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: an outage that is on is looked at by the next call.
    pub(super) async fn outlast(&self) -> Infallible {
        let mut state = self.outage.state.subscribe();
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut well_since = None::<Instant>;
        loop {
            let error = state.wait_for(Option::is_some).await.ok();
            let error = error.and_then(|failed| failed.as_ref().map(|failed| Arc::clone(&failed.error)));
            // The sender is ours, so there is one.
            let error = error.as_deref().unwrap_or_default();
            if well_since.is_some_and(|since| since.elapsed() >= WELL_AFTER) {
                backoff.reset();
            }
            tracing::warn!(error, "the store fails; orders for certificates wait for it");
            let began = Instant::now();
            loop {
                let pause = backoff.next_delay();
                let until = self.now() + pause;
                self.outage.state.send_modify(|state| {
                    if let Some(failed) = state {
                        failed.until = until;
                    }
                });
                time::sleep(pause).await;
                match self.look_at_store().await {
                    Ok(()) => break,
                    Err(error) => tracing::debug!(error = %Chain(&error), "the store still fails"),
                }
            }
            tracing::info!(after = ?began.elapsed(), "the store answers again");
            well_since = Some(Instant::now());
            self.outage.state.send_replace(None);
            self.plan().resume();
            self.wake.notify_one();
        }
    }

    /// If it answers it may have lost everything: names go on when that is written back.
    async fn look_at_store(&self) -> Result<(), StoreError> {
        let mark = self.layout.mark();
        let look = time::timeout(LOOK_WITHIN, self.store.get(&mark, Read::Latest));
        match look.await {
            Ok(Err(error @ StoreError::Unreachable(_))) => Err(error),
            Err(late) => Err(StoreError::Unreachable(late.into())),
            // Whatever it says, it is back.
            Ok(_) => self.restore_if_allowed().await,
        }
    }
}
