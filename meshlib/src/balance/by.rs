//! One balancer per name, where the name is in the request.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use futures::future::Either;
use futures::future::Ready;
use futures::future::ready;
use tower::Layer;
use tower::Service;
use tower::load::TrackCompletion;

use super::Balancer;
use super::accrual::Accrual;
use super::attempts::Attempts;
use super::attempts::Replay;
use super::future::BalanceFuture;
use super::layer::Options;
use super::set::InFlight;
use super::track::UntilEnd;
use super::wait::Waiting;
use crate::error::Error;
use crate::observe::Observer;
use crate::resolve::Resolver;
use crate::session::To;

mod table;

use table::Table;

/// Names come from requests, which is from anybody: unless set, so many may be known.
const MAX_NAMES: usize = 10_000;

/// Makes [`BalanceBy`]; made by [`BalanceLayer::by`](super::BalanceLayer::by).
#[must_use = "layers do nothing unless applied"]
pub struct BalanceByLayer<T, F, K = UntilEnd> {
    resolver: Arc<dyn Resolver<T>>,
    name: F,
    max_names: usize,
    options: Options<K>,
}

impl<T, F> BalanceByLayer<T, F> {
    pub(super) fn new(resolver: Arc<dyn Resolver<T>>, name: F) -> Self {
        Self { resolver, name, max_names: MAX_NAMES, options: Options::default() }
    }
}

impl<T, F, K> BalanceByLayer<T, F, K> {
    /// Sets how many names may be known at a time. Default 10,000.
    ///
    /// When there is no room for one more, a tenth makes room: those that discovery does not know first, then those that
    /// nobody has asked for the longest. A name with work in flight stays; only if all have some is the new one refused.
    pub fn max_names(mut self, n: usize) -> Self {
        self.max_names = n;
        self
    }

    /// Sets how to choose. Default [`LeastLoaded`](super::LeastLoaded).
    pub fn balancer(mut self, balancer: impl Balancer) -> Self {
        self.options.balancer = Arc::new(balancer);
        self
    }

    /// Sets when failing endpoints are left alone. Default: after five failures in a row.
    pub fn accrual(mut self, accrual: Accrual) -> Self {
        self.options.accrual = accrual;
        self
    }

    /// Sets how often a request is tried. Default: at most twice.
    pub fn attempts(mut self, attempts: Attempts) -> Self {
        self.options.attempts = attempts;
        self
    }

    /// Lets callers wait when no endpoint can be used. Default: an error at once.
    pub fn wait(mut self, waiting: Waiting) -> Self {
        self.options.waiting = Some(waiting);
        self
    }

    /// Sets who is told about resolutions and attempts. Default: nobody.
    pub fn observe(mut self, observer: Arc<dyn Observer>) -> Self {
        self.options.observer = observer;
        self
    }
}

impl<T, F, K> fmt::Debug for BalanceByLayer<T, F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceByLayer").finish_non_exhaustive()
    }
}

impl<S, T, F: Clone, K: Clone> Layer<S> for BalanceByLayer<T, F, K> {
    type Service = BalanceBy<S, T, F, K>;

    fn layer(&self, inner: S) -> Self::Service {
        let table = Table::new(Arc::clone(&self.resolver), self.max_names, self.options.clone());
        BalanceBy { inner, name: self.name.clone(), table: Arc::new(table), waiting: None }
    }
}

/// Balances each request over the endpoints of the name that is in it. A clone is the same balancer.
pub struct BalanceBy<S, T, F, K = UntilEnd> {
    inner: S,
    name: F,
    table: Arc<Table<S, T, K>>,
    /// Instead of what the layer says.
    waiting: Option<Waiting>,
}

impl<S: Clone, T, F: Clone, K> BalanceBy<S, T, F, K> {
    /// The same balancer for callers that wait otherwise.
    #[must_use]
    pub fn with_waiting(&self, waiting: Waiting) -> Self {
        Self { waiting: Some(waiting), ..self.clone() }
    }
}

impl<S: Clone, T, F: Clone, K> Clone for BalanceBy<S, T, F, K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            name: self.name.clone(),
            table: Arc::clone(&self.table),
            waiting: self.waiting,
        }
    }
}

impl<S, T, F, K> fmt::Debug for BalanceBy<S, T, F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceBy").finish_non_exhaustive()
    }
}

impl<R, S, T, F, K> Service<R> for BalanceBy<S, T, F, K>
where
    S: Service<To<R>, Error = Error> + Clone + Send + Sync + 'static,
    R: Replay,
    T: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
    F: Fn(&R) -> Result<T, Error>,
    K: TrackCompletion<InFlight, S::Response> + Clone + Send + Sync + 'static,
{
    type Response = K::Output;
    type Error = Error;
    type Future = Either<BalanceFuture<S, R, K>, Ready<Result<K::Output, Error>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        match (self.name)(&request).and_then(|name| self.table.balance(name, &self.inner)) {
            Ok(balance) => Either::Left(match self.waiting {
                Some(waiting) => balance.with_waiting(waiting).call(request),
                None => { balance }.call(request),
            }),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }
}
