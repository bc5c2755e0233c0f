//! How many orders this node places.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::names::registered_domain;

/// Most orders that are under way: an authority that is slow must not collect more and more of them.
const MAX_UNDER_WAY: usize = 32;

/// Counts orders in a window of time, and by registered domain.
#[derive(Debug)]
pub(super) struct Limits {
    most: usize,
    window: Duration,
    per_domain: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the orders of the last window began.
    began: VecDeque<Instant>,
    under_way: usize,
    domains: HashMap<Box<str>, usize>,
}

/// Why an order must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Too many have begun a moment ago; none may begin before this.
    Until(Instant),
    /// Too many are under way; one must end first.
    Ends,
    /// Too many of the same registered domain are under way. Others may begin.
    Domain,
}

impl Limits {
    pub(super) fn new(most: usize, window: Duration, per_domain: usize) -> Arc<Self> {
        let (most, per_domain) = (most.max(1), per_domain.max(1));
        Arc::new(Self { most, window, per_domain, state: Mutex::default() })
    }

    /// Begins an order for a name.
    pub(super) fn begin(self: &Arc<Self>, name: &str) -> Result<Permit, Wait> {
        let now = Instant::now();
        let mut state = self.state();
        while state.began.front().is_some_and(|began| now.duration_since(*began) >= self.window) {
            state.began.pop_front();
        }
        if state.began.len() >= self.most {
            return Err(Wait::Until(state.began.front().map_or(now, |began| *began + self.window)));
        }
        if state.under_way >= MAX_UNDER_WAY {
            return Err(Wait::Ends);
        }
        let domain: Box<str> = registered_domain(name).into();
        let of_domain = state.domains.entry(domain.clone()).or_default();
        if *of_domain >= self.per_domain {
            return Err(Wait::Domain);
        }
        *of_domain += 1;
        state.under_way += 1;
        state.began.push_back(now);
        Ok(Permit { limits: Arc::clone(self), domain, began: now })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An order that may be placed, until this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    limits: Arc<Limits>,
    domain: Box<str>,
    began: Instant,
}

impl Permit {
    /// Gives it back: no order was placed.
    pub(super) fn refund(self) {
        let mut state = self.limits.state();
        if let Some(at) = state.began.iter().rposition(|began| *began == self.began) {
            state.began.remove(at);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.limits.state();
        state.under_way = state.under_way.saturating_sub(1);
        if let Some(n) = state.domains.get_mut(&self.domain) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                state.domains.remove(&self.domain);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn so_many_begin_in_a_window() {
        let limits = Limits::new(3, 10 * SECOND, 2);
        let begin = |n: usize| limits.begin(&format!("{n}.example{n}.test"));
        let began = Instant::now();

        for n in 0..3 {
            drop(begin(n).unwrap());
            time::sleep(SECOND).await;
        }

        assert_eq!(
            begin(3).unwrap_err(),
            Wait::Until(began + 10 * SECOND),
            "those that have ended count, too"
        );
        time::sleep(7 * SECOND).await;
        begin(4).unwrap().refund();
        assert!(begin(5).is_ok(), "what was given back does not count");
        assert!(matches!(begin(6), Err(Wait::Until(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_of_a_domain_at_a_time() {
        let limits = Limits::new(100, 10 * SECOND, 2);

        let first = limits.begin("a.example.test").unwrap();
        let _second = limits.begin("b.example.test").unwrap();

        assert_eq!(limits.begin("c.example.test").unwrap_err(), Wait::Domain);
        assert!(limits.begin("c.other.test").is_ok());
        drop(first);
        assert!(limits.begin("c.example.test").is_ok());
        assert_eq!(limits.state().domains.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_under_way() {
        let limits = Limits::new(1000, 10 * SECOND, 100);

        let held: Vec<_> = (0..MAX_UNDER_WAY).map(|n| limits.begin(&format!("{n}.test")).unwrap()).collect();

        assert_eq!(limits.begin("a.test").unwrap_err(), Wait::Ends);
        drop(held);
        assert!(limits.begin("a.test").is_ok());
    }
}
