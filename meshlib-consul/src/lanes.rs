//! How many requests may be on their way at once.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Refusals that come together count as one.
const ONE_REFUSAL: Duration = Duration::from_secs(5);
/// After so long without a refusal one more request is tried at a time.
const GROW_EVERY: Duration = Duration::from_secs(10);
/// The fewest that a refusal leaves.
const FLOOR: usize = 4;

/// A number of requests that shrinks when the agent refuses connections and grows back.
///
/// Who waits is served in order: a watch that comes back at once waits behind those who wait already.
#[derive(Debug)]
pub(crate) struct Lanes {
    state: Mutex<State>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct State {
    most: usize,
    allowed: usize,
    /// How many places there are, free ones and others: more than allowed until enough have been left.
    places: usize,
    used: usize,
    waiting: usize,
    refused: Option<Instant>,
    grown: Instant,
}

impl Lanes {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let state = State {
            most,
            allowed: most,
            places: most,
            used: 0,
            waiting: 0,
            refused: None,
            grown: Instant::now(),
        };
        Arc::new(Self { state: Mutex::new(state), places: Arc::new(Semaphore::new(most)) })
    }

    /// Waits for one of them.
    pub(crate) async fn enter(self: &Arc<Self>) -> Lane {
        self.grow();
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Ok(place),
            Err(_) => {
                let _waiting = Waiting::new(self);
                Arc::clone(&self.places).acquire_owned().await
            }
        };
        self.lock().used += 1;
        // Nobody closes the semaphore.
        Lane { lanes: Arc::clone(self), place: place.ok() }
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
        state.places -= self.places.forget_permits(state.places.saturating_sub(state.allowed));
        tracing::warn!(requests = state.allowed, "consul refuses connections; fewer requests at a time");
    }

    /// Requests share connections: there may be this many of them.
    pub(crate) fn widen(&self, most: usize) {
        let mut state = self.lock();
        if state.most < most {
            state.most = most;
            self.allow(&mut state, most);
        }
    }

    fn grow(&self) {
        let mut state = self.lock();
        let since = state.refused.map_or(state.grown, |at| state.grown.max(at));
        if state.allowed < state.most && since.elapsed() >= GROW_EVERY {
            let allowed = state.allowed + 1;
            self.allow(&mut state, allowed);
            state.grown = Instant::now();
        }
    }

    fn allow(&self, state: &mut State, allowed: usize) {
        state.allowed = allowed;
        let missing = allowed.saturating_sub(state.places);
        state.places += missing;
        self.places.add_permits(missing);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the requests that are on their way.
#[derive(Debug)]
pub(crate) struct Lane {
    lanes: Arc<Lanes>,
    place: Option<OwnedSemaphorePermit>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut state = self.lanes.lock();
        state.used -= 1;
        if state.places > state.allowed
            && let Some(place) = self.place.take()
        {
            // One too many since a refusal.
            place.forget();
            state.places -= 1;
        }
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

    #[tokio::test]
    async fn who_comes_back_at_once_waits_behind_those_who_wait() {
        let lanes = Lanes::new(1);
        let first = lanes.enter().await;
        let mut waits = Box::pin(lanes.enter());
        assert!(waits.as_mut().now_or_never().is_none());

        drop(first);
        let mut again = Box::pin(lanes.enter());

        assert!(again.as_mut().now_or_never().is_none());
        drop(waits.await);
        drop(again.await);
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
