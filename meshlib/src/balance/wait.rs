//! Waiting for something to pick: first come first served, bounded, with a deadline.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time;
use tokio::time::Instant;

use super::shared::Nothing;
use super::shared::Shared;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Unavailable;
use crate::serve::Gate;

/// How callers wait when no endpoint can be used.
///
/// Without it, callers wait only for the first answer of discovery; whatever is missing then is an error at once.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Waiting {
    /// How many may wait; one more is refused at once.
    pub most: usize,
    /// How long each may wait.
    pub limit: Duration,
    /// How long each may wait for a name that does not exist or has no endpoints, says discovery. Default: as `limit`.
    pub absent: Duration,
}

impl Waiting {
    /// Up to `most` callers wait for up to `limit` each.
    pub const fn new(most: usize, limit: Duration) -> Self {
        Self { most, limit, absent: limit }
    }

    /// Sets how long to wait where discovery says that there is nothing.
    #[must_use]
    pub const fn with_absent(mut self, limit: Duration) -> Self {
        self.absent = limit;
        self
    }
}

/// A place in the queue.
pub(super) struct Place {
    shared: Arc<Shared>,
    since: Instant,
    turn: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Joins the queue, for a caller that has waited since then in all.
    pub(super) fn join(
        shared: &Arc<Shared>,
        waiting: Option<&Waiting>,
        since: Instant,
    ) -> Result<Self, Error> {
        // Relaxed: a bound that is off by the callers of this very moment is still a bound.
        let before = shared.waiters.fetch_add(1, Ordering::Relaxed);
        let place = Self { shared: Arc::clone(shared), since, turn: None };
        match waiting {
            Some(waiting) if before >= waiting.most => Err(shared.error(Unavailable::Crowded)),
            _ => Ok(place),
        }
    }

    /// Lets the next caller have its turn, without leaving the queue.
    pub(super) fn pass(mut self) -> Self {
        self.turn = None;
        self
    }

    /// Waits until it is this caller's turn and something may be picked, at least `floor` from now unless
    /// something changes before.
    pub(super) async fn wait(mut self, waiting: Option<Waiting>, floor: Duration) -> Result<Self, Error> {
        let not_before = Instant::now() + floor;
        let shared = Arc::clone(&self.shared);
        // A limit that ends after all time is none.
        let limit = waiting.and_then(|waiting| Some((self.since.checked_add(waiting.limit)?, waiting.limit)));
        let turn = async {
            // Armed before the turn is waited for: news ends the pause, which is for endpoints that were tried already.
            let news = shared.changed.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.turn.is_none() && waiting.is_some() {
                // The semaphore is never closed.
                self.turn = Arc::clone(&shared.turn).acquire_owned().await.ok();
            }
            tokio::select! {
                () = time::sleep_until(not_before) => {}
                () = news => {}
            }
            loop {
                // Armed before the look, so that no change falls between the look and the wait.
                let changed = shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                match shared.pick_would(waiting.as_ref(), self.since) {
                    Look::Go => return Ok(()),
                    Look::Fail(error) => return Err(error),
                    Look::Wait(until) => {
                        let until = until.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
                        tokio::select! {
                            () = changed => {}
                            () = time::sleep_until(until) => {}
                        }
                    }
                }
            }
        };
        match limit {
            Some((until, after)) => time::timeout_at(until, turn)
                .await
                .map_err(|_| Error::Timeout { phase: Phase::Wait, after })??,
            None => turn.await?,
        }
        Ok(self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.waiters.fetch_sub(1, Ordering::Relaxed);
        self.shared.left.notify_waiters();
    }
}

/// Is open while few callers wait for an endpoint; made by [`Balance::gate`](super::Balance::gate).
#[derive(Clone)]
pub struct CrowdGate {
    shared: Arc<Shared>,
    most: usize,
}

impl CrowdGate {
    pub(super) fn new(shared: &Arc<Shared>, most: usize) -> Self {
        Self { shared: Arc::clone(shared), most: most.max(1) }
    }
}

impl Gate for CrowdGate {
    fn is_open(&self) -> bool {
        self.shared.waiters.load(Ordering::Relaxed) < self.most
    }

    fn opened(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                let left = self.shared.left.notified();
                tokio::pin!(left);
                left.as_mut().enable();
                if self.is_open() {
                    return;
                }
                left.await;
            }
        })
    }
}

impl fmt::Debug for CrowdGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrowdGate").field("most", &self.most).finish_non_exhaustive()
    }
}

enum Look {
    Go,
    Wait(Option<Instant>),
    Fail(Error),
}

impl Shared {
    /// What a pick without exclusions would say.
    fn pick_would(&self, waiting: Option<&Waiting>, since: Instant) -> Look {
        let now = Instant::now();
        match self.look() {
            Ok(opens_in) if opens_in.is_zero() => Look::Go,
            Ok(opens_in) => Look::Wait(now.checked_add(opens_in)),
            Err(Nothing::Pending) => Look::Wait(None),
            Err(Nothing::Unavailable(reason)) => match waiting {
                None => Look::Fail(self.error(reason)),
                Some(waiting) => match since.checked_add(waiting.absent) {
                    Some(until) if now >= until => Look::Fail(self.error(reason)),
                    until => Look::Wait(until),
                },
            },
        }
    }

    /// How long until there is something to pick, or why there is nothing to wait for but discovery.
    fn look(&self) -> Result<Duration, Nothing> {
        match self.nothing() {
            Some(nothing) => Err(nothing),
            None => self.opens_in().ok_or(Nothing::Unavailable(Unavailable::Empty)),
        }
    }
}
