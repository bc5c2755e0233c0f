//! The instances that are balanced over: those of one host, path and priority.

use std::collections::HashMap;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::StreamExt;
use futures::stream;
use meshlib::BalanceLayer;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Fault;
use meshlib::Resolution;
use meshlib::Update;
use meshlib::backoff::Backoff;
use meshlib::balance::Accrual;
use meshlib::balance::Attempts;
use meshlib::balance::Balance;
use meshlib::balance::LeastLoaded;
use meshlib::balance::PeakEwma;
use meshlib::balance::Policy;
use meshlib::balance::RoundRobin;
use meshlib::balance::Tiered;
use meshlib::balance::View;
use meshlib::http::HttpError;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::observe::prometheus::Counter;
use tokio::sync::watch;
use tower::Layer;

use super::args::Balancing;
use super::backend::Backend;
use super::backend::Known;
use super::backend::Own;
use super::metrics::Metrics;
use super::metrics::Requests;
use super::tags::Backend as Speaks;
use crate::kit::reasons::Reasons;

/// The instances of one host, path and priority, with all that is known about how they do.
///
/// A group outlives the table it is in, so that a new table forgets nothing.
pub(super) struct Group {
    /// The host of the rule, as in tags.
    pub(super) host: Arc<str>,
    /// The rule, for people.
    pub(super) name: Arc<str>,
    balance: Balance<()>,
    reasons: Reasons,
    updates: watch::Sender<Arc<[Endpoint]>>,
    usable: AtomicUsize,
    backends: Mutex<Backends>,
    unserved: ArcSwapOption<Requests>,
}

/// By what each says, its node and id, and its address.
type Backends = HashMap<(Arc<str>, SocketAddr), Arc<Backend>>;

/// How the requests of a group are spread.
#[derive(Clone, Debug)]
pub(super) struct Spreading {
    pub(super) balancing: Balancing,
    pub(super) own: Own,
}

/// Attempts for one request, in all groups that it is sent to.
pub(super) const ATTEMPTS: u32 = 3;
/// An instance that fails so often in a row is left alone for a while: the usual 5 s, at most a minute, since Consul
/// knows better what is down for longer.
const FAILURES: u32 = 5;
const PENALTY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

impl Group {
    pub(super) fn new(host: &str, name: &str, spreading: &Spreading, metrics: &Metrics) -> Self {
        let (updates, receiver) = watch::channel(Arc::from([]));
        let resolver = move |_: Arc<str>| {
            let changes = stream::unfold((receiver.clone(), true), |(mut endpoints, first)| async move {
                if !first {
                    endpoints.changed().await.ok()?;
                }
                let now = Arc::clone(&endpoints.borrow_and_update());
                Some((Ok(Update::Endpoints(now)), (endpoints, false)))
            });
            Resolution::new(changes.boxed())
        };
        let own = spreading.own.clone();
        let reasons = Reasons::default();
        let tier = move |endpoint: &Endpoint| own.tier(endpoint);
        let layer = BalanceLayer::new(resolver, Arc::<str>::from(name))
            .attempts(Attempts::most(ATTEMPTS))
            .accrual(
                Accrual::new(Policy::Consecutive(FAILURES))
                    .with_penalty(Backoff::new(PENALTY.0, PENALTY.1))
                    .with_max_ejected(0.5),
            )
            .observe(reasons.observe(Arc::new(Attempted(metrics.retries.clone()))));
        let layer = match spreading.balancing {
            Balancing::P2c => layer.balancer(Tiered::new(LeastLoaded::new(), tier)),
            Balancing::Ewma => layer.balancer(Tiered::new(PeakEwma::new(), tier)),
            Balancing::Rr => layer.balancer(Tiered::new(RoundRobin::new(), tier)),
        };
        let balance = layer.layer(());
        balance.start();
        Self {
            host: host.into(),
            name: name.into(),
            balance,
            reasons,
            updates,
            usable: AtomicUsize::new(0),
            backends: Mutex::default(),
            unserved: ArcSwapOption::empty(),
        }
    }

    /// The balancer in front of what sends requests, for a request with so many attempts left.
    pub(super) fn balance<S: Clone>(&self, send: S, attempts: u32) -> Balance<S> {
        let balance = self.balance.with_service(send);
        if attempts == ATTEMPTS { balance } else { balance.with_attempts(Attempts::most(attempts)) }
    }

    pub(super) fn view(&self) -> View {
        self.balance.view()
    }

    /// With what instances failed last.
    pub(super) fn reasons(&self) -> &Reasons {
        &self.reasons
    }

    /// Whether an instance may get requests, as far as Consul knows.
    pub(super) fn is_usable(&self) -> bool {
        self.usable.load(Ordering::Relaxed) > 0
    }

    /// Its requests that no instance has answered.
    pub(super) fn unserved(&self) -> Option<Arc<Requests>> {
        self.unserved.load_full()
    }

    /// The service that such requests count for.
    pub(super) fn service(&self) -> Option<Arc<str>> {
        Some(Arc::clone(self.unserved.load().as_ref()?.service()))
    }

    /// Sets the service that such requests count for.
    pub(super) fn set_service(&self, service: &str, metrics: &Metrics) {
        if self.unserved.load().as_ref().is_none_or(|unserved| **unserved.service() != *service) {
            self.unserved.store(Some(Arc::new(metrics.unserved(&self.host, service))));
        }
    }

    /// What is attached to an instance here: the same for as long as the instance is.
    pub(super) fn backend(
        &self,
        addr: SocketAddr,
        known: &Arc<Known>,
        speaks: Speaks,
        metrics: &Metrics,
    ) -> Arc<Backend> {
        let tls = if speaks == Speaks::Https { "https" } else { "http" };
        let key = (format!("{tls} {}/{}", known.instance.node, known.instance.id).into(), addr);
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        let before = backends.get(&key);
        if let Some(same) = before.filter(|backend| backend.is_of(known, speaks)) {
            return Arc::clone(same);
        }
        let mut backend = Backend::new(Arc::clone(known), speaks, &self.host, metrics);
        if let Some(before) = before {
            backend = backend.after(before);
        }
        let backend = Arc::new(backend);
        backends.insert(key, Arc::clone(&backend));
        backend
    }

    /// Sets the endpoints that may get requests.
    pub(super) fn set(&self, endpoints: Vec<Endpoint>) {
        self.usable.store(endpoints.len(), Ordering::Relaxed);
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if backends.len() > 2 * endpoints.len() + 8 {
            // Instances that were here and are no more.
            let used: HashSet<_> =
                endpoints.iter().filter_map(Backend::of).map(|backend| Arc::as_ptr(&backend)).collect();
            backends.retain(|_, backend| used.contains(&Arc::as_ptr(backend)));
        }
        drop(backends);
        self.updates.send_if_modified(|now| {
            let changed = **now != *endpoints;
            if changed {
                *now = endpoints.into();
            }
            changed
        });
    }
}

/// A client that goes away sooner has changed its mind.
const LONG: Duration = Duration::from_secs(1);

/// Counts attempts beyond the first of a request, and says which instance did not answer.
#[derive(Debug)]
struct Attempted(Counter);

impl Observer for Attempted {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Attempt { attempt: 2.., .. } => self.0.inc(),
            Event::Attempted { name, endpoint, took, error: Some(error) } => {
                if let Some(backend) = Backend::of(endpoint) {
                    // A kept connection that was closed meanwhile is nobody's fault.
                    let is_stale =
                        matches!(error, Error::Http(error) if matches!(**error, HttpError::Stale(_)));
                    let matters = error.fault() == Fault::Server && !is_stale;
                    backend.did_not_answer(name, endpoint.addr, *took, &error.chain().to_string(), matters);
                }
            }
            Event::Abandoned { name, endpoint, took } => {
                if let Some(backend) = Backend::of(endpoint) {
                    let error = "the client went away before it did";
                    backend.did_not_answer(name, endpoint.addr, *took, error, *took >= LONG);
                }
            }
            _ => {}
        }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("name", &self.name).finish_non_exhaustive()
    }
}
