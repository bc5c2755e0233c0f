//! One balancer per name, where the name is in the request.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::Either;
use futures::future::Ready;
use futures::future::ready;
use tokio::time;
use tokio::time::Instant;
use tower::Layer;
use tower::Service;
use tower::load::TrackCompletion;

use super::Balancer;
use super::accrual::Accrual;
use super::layer::Attempts;
use super::layer::Balance;
use super::layer::BalanceFuture;
use super::layer::Options;
use super::layer::Replay;
use super::layer::UntilEnd;
use super::set::InFlight;
use super::wait::Waiting;
use crate::error::Error;
use crate::error::Refusal;
use crate::observe::Observer;
use crate::resolve::Resolver;
use crate::session::To;

/// After this long without a request a name is forgotten.
const IDLE: Duration = Duration::from_secs(600);
/// Names come from requests, which is from anybody: unless set, so many may be in use.
const MAX_NAMES: usize = 10_000;
/// How often names are looked at.
const SWEEP: Duration = Duration::from_secs(60);

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
    /// Sets how many names may be in use at a time; a request for one more is refused. Default 10,000.
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
        let names = Arc::new(Names {
            resolver: Arc::clone(&self.resolver),
            max_names: self.max_names,
            options: self.options.clone(),
            current: ArcSwap::default(),
            writing: Mutex::new(false),
        });
        BalanceBy { inner, name: self.name.clone(), names }
    }
}

/// Balances each request over the endpoints of the name that is in it. A clone is the same balancer.
pub struct BalanceBy<S, T, F, K = UntilEnd> {
    inner: S,
    name: F,
    names: Arc<Names<S, T, K>>,
}

struct Names<S, T, K> {
    resolver: Arc<dyn Resolver<T>>,
    max_names: usize,
    options: Options<K>,
    current: ArcSwap<HashMap<T, Arc<Entry<S, K>>>>,
    /// Held while `current` is replaced. The value: whether the sweeper runs.
    writing: Mutex<bool>,
}

struct Entry<S, K> {
    balance: Balance<S, K>,
    used: ArcSwap<Instant>,
}

impl<S, T, K> Names<S, T, K>
where
    S: Clone + Send + Sync + 'static,
    T: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
    K: Clone + Send + Sync + 'static,
{
    fn balance(self: &Arc<Self>, name: T, inner: &S) -> Result<Balance<S, K>, Error> {
        if let Some(entry) = self.current.load().get(&name) {
            // The clock is written once a second per name, not once per request.
            if entry.used.load().elapsed() > Duration::from_secs(1) {
                entry.used.store(Arc::new(Instant::now()));
            }
            return Ok(entry.balance.clone());
        }
        let mut sweeping = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load();
        if current.len() >= self.max_names && !current.contains_key(&name) {
            return Err(Error::Refused(Refusal::Limit));
        }
        let mut names = HashMap::clone(&current);
        let entry = names.entry(name).or_insert_with_key(|name| {
            let resolution = self.resolver.resolve(name.clone());
            let balance = Balance::new(name.to_string().into(), resolution, &self.options, inner.clone());
            Arc::new(Entry { balance, used: ArcSwap::from_pointee(Instant::now()) })
        });
        let balance = entry.balance.clone();
        self.current.store(Arc::new(names));
        if !*sweeping {
            *sweeping = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        Ok(balance)
    }

    fn forget_idle(&self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let names = self.current.load();
        if names.values().any(|entry| entry.used.load().elapsed() > IDLE) {
            let used = names.iter().filter(|(_, entry)| entry.used.load().elapsed() <= IDLE);
            self.current
                .store(Arc::new(used.map(|(name, entry)| (name.clone(), Arc::clone(entry))).collect()));
        }
    }
}

/// Ends with the balancer.
async fn sweep<S, T, K>(names: Weak<Names<S, T, K>>)
where
    S: Clone + Send + Sync + 'static,
    T: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
    K: Clone + Send + Sync + 'static,
{
    loop {
        time::sleep(SWEEP).await;
        let Some(names) = names.upgrade() else { return };
        names.forget_idle();
    }
}

impl<S: Clone, T, F: Clone, K> Clone for BalanceBy<S, T, F, K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), name: self.name.clone(), names: Arc::clone(&self.names) }
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
        match (self.name)(&request).and_then(|name| self.names.balance(name, &self.inner)) {
            Ok(mut balance) => Either::Left(balance.call(request)),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }
}
