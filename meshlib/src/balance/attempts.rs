//! How often a request is tried, and which can be tried again.

use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;

use super::budget::Budget;
use crate::session::Session;

/// A request that can be made twice.
///
/// It is made again, on another endpoint, only where the first attempt provably sent nothing.
pub trait Replay: Sized {
    /// What is kept of a request while it is tried. For one that is cheap to clone, the request itself.
    type Kept: Send;

    /// Keeps what it takes to make the same request once more. `None`: it cannot be made twice.
    fn keep(&mut self) -> Option<Self::Kept>;

    /// The same request once more.
    fn replay(kept: Self::Kept) -> Self;

    /// A hash that is the same for requests that belong together, for balancers that keep them on one endpoint.
    /// Default: none.
    fn affinity(&self) -> Option<u64> {
        None
    }
}

impl Replay for Session {
    type Kept = Self;

    fn keep(&mut self) -> Option<Self> {
        Some(self.clone())
    }

    fn replay(kept: Self) -> Self {
        kept
    }

    /// Of the client's address, without its port.
    fn affinity(&self) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        self.peer?.ip().hash(&mut hasher);
        Some(hasher.finish())
    }
}

/// How often a request that provably did not reach its endpoint is tried.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempts {
    /// Most attempts, the first included. Default 2; `None`: see [`unlimited`](Self::unlimited).
    pub most: Option<u32>,
    /// What further attempts are paid from. Default: nothing, they are free.
    pub budget: Option<Budget>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { most: Some(2), budget: None }
    }
}

impl Attempts {
    /// At most this many attempts, the first included.
    pub fn most(most: u32) -> Self {
        Self { most: Some(most.max(1)), budget: None }
    }

    /// Attempts on every endpoint in turn. Callers that may [wait](super::BalanceLayer::wait) then begin anew after a pause,
    /// until they give up: put a [`TimeoutLayer`](crate::TimeoutLayer) around the balancer. Others get the last error.
    pub fn unlimited() -> Self {
        Self { most: None, budget: None }
    }

    /// Lets further attempts be paid from a budget.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }
}
