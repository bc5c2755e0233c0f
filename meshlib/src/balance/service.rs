//! The service that gives each request an endpoint.

use std::fmt;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use tower::Service;
use tower::load::TrackCompletion;

use super::attempts::Attempts;
use super::attempts::Replay;
use super::future::BalanceFuture;
use super::layer::Options;
use super::set::InFlight;
use super::shared::Nothing;
use super::shared::Shared;
use super::shared::View;
use super::track::UntilEnd;
use super::wait::CrowdGate;
use super::wait::Waiting;
use crate::error::Error;
use crate::resolve::Resolution;
use crate::session::To;

/// Gives each request an endpoint; made by [`BalanceLayer`](super::BalanceLayer). A clone shares everything and costs little.
pub struct Balance<S, K = UntilEnd> {
    inner: S,
    shared: Arc<Shared>,
    calls: Arc<Calls<K>>,
}

/// What the calls of one balancer have in common.
pub(super) struct Calls<K> {
    pub(super) attempts: Attempts,
    pub(super) waiting: Option<Waiting>,
    pub(super) tracking: K,
}

impl<S, K: Clone> Balance<S, K> {
    pub(super) fn new(name: Arc<str>, resolution: Resolution, options: &Options<K>, inner: S) -> Self {
        let Options { balancer, accrual, attempts, waiting, tracking, observer } = options.clone();
        let shared = Shared::new(name, resolution, balancer, accrual, observer);
        Self { inner, shared, calls: Arc::new(Calls { attempts, waiting, tracking }) }
    }
}

impl<S, K> Balance<S, K> {
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Starts the resolution now instead of with the first request. Must be called in a runtime.
    pub fn start(&self) {
        self.shared.start();
    }

    /// Starts the resolution and waits until discovery has answered for the first time.
    pub async fn ready(&self) {
        self.start();
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !matches!(self.shared.nothing(), Some(Nothing::Pending)) {
                return;
            }
            changed.await;
        }
    }

    /// Holds back a [`Server`](crate::Server) while `most` callers wait for an endpoint.
    pub fn gate(&self, most: usize) -> CrowdGate {
        CrowdGate::new(&self.shared, most)
    }

    /// Lets people and metrics see what the balancer knows.
    pub fn view(&self) -> View {
        View::new(&self.shared)
    }
}

impl<S, K> Balance<S, K> {
    /// The same balancer in front of another service: endpoints and what is known about them are shared.
    #[must_use]
    pub fn with_service<T>(&self, inner: T) -> Balance<T, K> {
        Balance { inner, shared: Arc::clone(&self.shared), calls: Arc::clone(&self.calls) }
    }
}

impl<S, K> Balance<S, K> {
    /// Answers one request, for a balancer that is there for this one only: a call without a clone of it.
    pub fn call_once<R>(self, request: R) -> BalanceFuture<S, R, K>
    where
        S: Service<To<R>>,
        R: Replay,
    {
        if let Some(budget) = &self.calls.attempts.budget {
            budget.deposit();
        }
        BalanceFuture::new(self.inner, self.shared, self.calls, request)
    }
}

impl<S: Clone, K: Clone> Balance<S, K> {
    /// The same balancer for callers that wait otherwise.
    #[must_use]
    pub fn with_waiting(&self, waiting: Waiting) -> Self {
        let Calls { attempts, tracking, .. } = &*self.calls;
        let calls = Calls { attempts: attempts.clone(), waiting: Some(waiting), tracking: tracking.clone() };
        Self { calls: Arc::new(calls), ..self.clone() }
    }

    /// The same balancer for callers that try more often, or less.
    #[must_use]
    pub fn with_attempts(&self, attempts: Attempts) -> Self {
        let Calls { waiting, tracking, .. } = &*self.calls;
        let calls = Calls { attempts, waiting: *waiting, tracking: tracking.clone() };
        Self { calls: Arc::new(calls), ..self.clone() }
    }
}

impl<S: Clone, K> Clone for Balance<S, K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared), calls: Arc::clone(&self.calls) }
    }
}

impl<S, K> fmt::Debug for Balance<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl<R, S, K> Service<R> for Balance<S, K>
where
    S: Service<To<R>, Error = Error> + Clone,
    R: Replay,
    K: TrackCompletion<InFlight, S::Response> + Clone,
{
    type Response = K::Output;
    type Error = Error;
    type Future = BalanceFuture<S, R, K>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Waiting for discovery or an endpoint happens in the future, so that no caller holds up another.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> BalanceFuture<S, R, K> {
        self.clone().call_once(request)
    }
}
