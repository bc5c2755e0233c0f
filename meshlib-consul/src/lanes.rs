//! How many requests may be on their way at once.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Refusals that come together count as one.
const ONE_REFUSAL: Duration = Duration::from_secs(5);
/// After so long without a refusal one more request is tried at a time.
const GROW_EVERY: Duration = Duration::from_secs(10);
/// The fewest that a refusal leaves.
const FLOOR: usize = 4;

/// A number of requests that shrinks when the agent refuses connections and grows back.
///
/// Who waits is served in order.
#[derive(Debug)]
pub(crate) struct Lanes {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    most: usize,
    allowed: usize,
    used: usize,
    waiting: usize,
    refused: Option<Instant>,
    grown: Instant,
}

impl Lanes {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let state = State { most, allowed: most, used: 0, waiting: 0, refused: None, grown: Instant::now() };
        Arc::new(Self { state: Mutex::new(state), freed: Notify::new() })
    }

    /// Waits for one of them.
    pub(crate) async fn enter(self: &Arc<Self>) -> Lane {
        let mut waiting = None;
        loop {
            if let Some(lane) = self.try_enter() {
                return lane;
            }
            waiting.get_or_insert_with(|| Waiting::new(self));
            self.freed.notified().await;
        }
    }

    fn try_enter(self: &Arc<Self>) -> Option<Lane> {
        let mut state = self.lock();
        state.grow();
        let free = state.used < state.allowed;
        if free {
            state.used += 1;
            // Whoever was told of the same place, or waits for another one, looks again.
            if state.used < state.allowed && state.waiting > 0 {
                self.freed.notify_one();
            }
        }
        free.then(|| Lane(Arc::clone(self)))
    }

    /// Whether somebody waits.
    pub(crate) fn is_crowded(&self) -> bool {
        self.lock().waiting > 0
    }

    /// How many there are.
    pub(crate) fn allowed(&self) -> usize {
        self.lock().allowed
    }

    /// Whether other requests than one's own are on their way.
    pub(crate) fn is_shared(&self) -> bool {
        self.lock().used > 1
    }

    /// The agent has refused a connection: half as many from now on.
    pub(crate) fn refused(&self) {
        let mut state = self.lock();
        if state.refused.is_some_and(|at| at.elapsed() < ONE_REFUSAL) {
            return;
        }
        state.allowed = (state.used.min(state.allowed) / 2).max(FLOOR).min(state.most);
        state.refused = Some(Instant::now());
        tracing::warn!(requests = state.allowed, "consul refuses connections; fewer requests at a time");
    }

    /// Requests share connections: there may be this many of them.
    pub(crate) fn widen(&self, most: usize) {
        let mut state = self.lock();
        if state.most < most {
            state.most = most;
            state.allowed = most;
            drop(state);
            self.freed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn grow(&mut self) {
        let since = self.refused.map_or(self.grown, |at| self.grown.max(at));
        if self.allowed < self.most && since.elapsed() >= GROW_EVERY {
            self.allowed += 1;
            self.grown = Instant::now();
        }
    }
}

/// A place among the requests that are on their way.
#[derive(Debug)]
pub(crate) struct Lane(Arc<Lanes>);

impl Drop for Lane {
    fn drop(&mut self) {
        self.0.lock().used -= 1;
        self.0.freed.notify_one();
    }
}

struct Waiting<'a>(&'a Lanes);

impl<'a> Waiting<'a> {
    fn new(lanes: &'a Lanes) -> Self {
        lanes.lock().waiting += 1;
        Self(lanes)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_halves_the_lanes_and_they_grow_back() {
        let lanes = Lanes::new(20);
        let held: Vec<_> = (0..20).map(|_| lanes.enter().now_or_never().unwrap()).collect();
        assert!(lanes.enter().now_or_never().is_none());

        lanes.refused();
        lanes.refused();

        assert_eq!(lanes.allowed(), 10, "refusals that come together are one");
        drop(held);
        tokio::time::advance(GROW_EVERY).await;
        let _lane = lanes.enter().await;
        assert_eq!(lanes.allowed(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_who_waits_gets_a_turn() {
        let lanes = Lanes::new(2);
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let lanes = Arc::clone(&lanes);
                tokio::spawn(async move {
                    let _lane = lanes.enter().await;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                })
            })
            .collect();

        for task in tasks {
            task.await.unwrap();
        }
        assert!(!lanes.is_crowded());
    }
}
