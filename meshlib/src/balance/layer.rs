//! The layer that gives each request an endpoint.

use std::fmt;
use std::future::Future;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use futures::future::BoxFuture;
use pin_project::pin_project;
use tokio::time::Instant;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;
use tower::load::TrackCompletion;
use tower::util::Oneshot;

use super::Balancer;
use super::Hints;
use super::LeastLoaded;
use super::accrual::Accrual;
use super::budget::Budget;
use super::by::BalanceByLayer;
use super::set::InFlight;
use super::set::Replica;
use super::shared::Nothing;
use super::shared::Shared;
use super::shared::View;
use super::wait::CrowdGate;
use super::wait::Place;
use super::wait::Waiting;
use crate::backoff::Backoff;
use crate::endpoint::EndpointKey;
use crate::error::Error;
use crate::error::Fault;
use crate::error::Unavailable;
use crate::io::Io;
use crate::observe::Event;
use crate::observe::Observer;
use crate::resolve::Resolution;
use crate::resolve::Resolver;
use crate::session::Session;
use crate::session::To;

/// Pause before a request that was tried on every endpoint begins a second round, doubled up to the second value.
const ROUND_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A request that can be made twice.
///
/// It is made again, on another endpoint, only where the first attempt provably sent nothing.
pub trait Replay: Sized {
    /// The same request once more. Default: none, it cannot be made twice.
    fn replay(&self) -> Option<Self> {
        None
    }

    /// A hash that is the same for requests that belong together, for balancers that keep them on one endpoint.
    /// Default: none.
    fn affinity(&self) -> Option<u64> {
        None
    }
}

impl Replay for Session {
    fn replay(&self) -> Option<Self> {
        Some(self.clone())
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

    /// Attempts on every endpoint in turn. Callers that may [wait](BalanceLayer::wait) then begin anew after a pause,
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

/// Balances requests over the endpoints of a name; `K` says when a request's work has ended.
///
/// Makes one balancer: the resolution belongs to it, and a second one would find nothing. Clone the balancer instead.
#[must_use = "layers do nothing unless applied"]
pub struct BalanceLayer<K = UntilEnd> {
    name: Arc<str>,
    resolution: std::sync::Mutex<Option<Resolution>>,
    options: Options<K>,
}

#[derive(Clone)]
pub(super) struct Options<K> {
    pub(super) balancer: Arc<dyn Balancer>,
    pub(super) accrual: Accrual,
    pub(super) attempts: Attempts,
    pub(super) waiting: Option<Waiting>,
    pub(super) tracking: K,
    pub(super) observer: Arc<dyn Observer>,
}

impl Default for Options<UntilEnd> {
    fn default() -> Self {
        Self {
            balancer: Arc::new(LeastLoaded::new()),
            accrual: Accrual::default(),
            attempts: Attempts::default(),
            waiting: None,
            tracking: UntilEnd::new(),
            observer: Arc::new(()),
        }
    }
}

impl BalanceLayer {
    /// Balances over the endpoints of one name: [`LeastLoaded`], five failures in a row eject, two attempts.
    ///
    /// The name is what the resolver is asked for and what errors and metrics call it. The resolution starts with the
    /// first request, or with [`Balance::start`], and is followed by a task of its own from then on. Requests wait for its
    /// first [`Update`](crate::Update) without limit, and an error is none: put a [`TimeoutLayer`](crate::TimeoutLayer)
    /// around the balancer.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use meshlib::{BalanceLayer, Static, TcpConnector, TimeoutLayer};
    /// use tower::ServiceBuilder;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let replicas = Static::new(["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?]);
    /// let connect = ServiceBuilder::new()
    ///     .layer(TimeoutLayer::connect(Duration::from_secs(5)))
    ///     .layer(BalanceLayer::new(replicas, "web"))
    ///     .service(TcpConnector::default());
    /// # let _ = connect;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new<T: fmt::Display>(resolver: impl Resolver<T>, name: T) -> Self {
        let label = name.to_string().into();
        let resolution = std::sync::Mutex::new(Some(resolver.resolve(name)));
        Self { name: label, resolution, options: Options::default() }
    }

    /// Balances over the endpoints of the name that a function finds in each request.
    ///
    /// Each name gets a balancer of its own with the options of the layer; one that was not used for 10 minutes is
    /// dropped. An error of the function is the answer to the request.
    ///
    /// # Examples
    ///
    /// By the server name of the client's TLS hello:
    ///
    /// ```
    /// use std::sync::Arc;
    /// use meshlib::{BalanceLayer, Error, Refusal, Resolver, Session, Static};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let docs = Static::new(["10.0.0.1:443".parse()?]);
    /// let resolver = move |name: Arc<str>| match &*name {
    ///     "docs.example" => docs.resolve(name),
    ///     _ => Static::new([]).resolve(name),
    /// };
    /// let layer = BalanceLayer::by(resolver, |session: &Session| {
    ///     session.server_name.clone().ok_or(Error::Refused(Refusal::Policy))
    /// });
    /// # let _ = layer;
    /// # Ok(())
    /// # }
    /// ```
    pub fn by<R, T, F>(resolver: impl Resolver<T>, name: F) -> BalanceByLayer<T, F>
    where
        F: Fn(&R) -> Result<T, Error> + Clone,
    {
        BalanceByLayer::new(Arc::new(resolver), name)
    }
}

impl<K> BalanceLayer<K> {
    /// Sets how to choose. Default [`LeastLoaded`].
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

    /// Sets when a request's work has ended. Default [`UntilEnd`]: when the answer is dropped.
    pub fn tracking<L>(self, tracking: L) -> BalanceLayer<L> {
        let Options { balancer, accrual, attempts, waiting, observer, .. } = self.options;
        let options = Options { balancer, accrual, attempts, waiting, tracking, observer };
        BalanceLayer { name: self.name, resolution: self.resolution, options }
    }
}

impl<K> fmt::Debug for BalanceLayer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceLayer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<S, K: Clone> Layer<S> for BalanceLayer<K> {
    type Service = Balance<S, K>;

    fn layer(&self, inner: S) -> Balance<S, K> {
        let resolution = self.resolution.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let resolution = resolution.unwrap_or_else(|| Resolution::new(futures::stream::empty()));
        Balance::new(Arc::clone(&self.name), resolution, &self.options, inner)
    }
}

/// Gives each request an endpoint; made by [`BalanceLayer`]. A clone shares everything and costs little.
pub struct Balance<S, K = UntilEnd> {
    inner: S,
    shared: Arc<Shared>,
    calls: Arc<Calls<K>>,
}

/// What the calls of one balancer have in common.
struct Calls<K> {
    attempts: Attempts,
    waiting: Option<Waiting>,
    tracking: K,
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

impl<S: Clone, K: Clone> Balance<S, K> {
    /// The same balancer for callers that wait otherwise.
    #[must_use]
    pub fn with_waiting(&self, waiting: Waiting) -> Self {
        let Calls { attempts, tracking, .. } = &*self.calls;
        let calls = Calls { attempts: attempts.clone(), waiting: Some(waiting), tracking: tracking.clone() };
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
        if let Some(budget) = &self.calls.attempts.budget {
            budget.deposit();
        }
        BalanceFuture {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
            calls: Arc::clone(&self.calls),
            request: Some(request),
            tried: Vec::new(),
            attempts: 0,
            rounds: Backoff::new(ROUND_PAUSE.0, ROUND_PAUSE.1),
            asked: None,
            waiting_since: None,
            last: None,
            step: Step::Pick { place: None },
        }
    }
}

/// The answer of a [`Balance`].
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct BalanceFuture<S: Service<To<R>>, R, K> {
    inner: S,
    shared: Arc<Shared>,
    calls: Arc<Calls<K>>,
    /// Taken while an attempt runs that cannot be repeated.
    request: Option<R>,
    tried: Vec<EndpointKey>,
    attempts: u32,
    rounds: Backoff,
    /// When this attempt found no endpoint at once, if it did not.
    asked: Option<Instant>,
    /// When any attempt first had to wait. What it may wait is counted from here, however many attempts fail in between.
    waiting_since: Option<Instant>,
    /// Why the attempt before failed, if there is to be another.
    last: Option<Error>,
    #[pin]
    step: Step<S, R>,
}

#[pin_project(project = StepProj)]
enum Step<S: Service<To<R>>, R> {
    Pick {
        place: Option<Place>,
    },
    Wait {
        wait: BoxFuture<'static, Result<Place, Error>>,
    },
    Call {
        #[pin]
        call: Oneshot<S, To<R>>,
        attempt: Attempt,
        place: Option<Place>,
    },
}

impl<S, R, K> Future for BalanceFuture<S, R, K>
where
    S: Service<To<R>, Error = Error> + Clone,
    R: Replay,
    K: TrackCompletion<InFlight, S::Response> + Clone,
{
    type Output = Result<K::Output, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            match this.step.as_mut().project() {
                StepProj::Pick { place } => {
                    let place = place.take();
                    this.shared.start();
                    let queued = this.shared.waiters.load(Ordering::Relaxed) > 0;
                    let waiting = this.calls.waiting;
                    // Whoever comes while others wait goes behind them.
                    let picked = if place.is_none() && waiting.is_some() && queued {
                        Err(Nothing::Pending)
                    } else {
                        let hash = this.request.as_ref().and_then(Replay::affinity);
                        this.shared.pick(&Hints { exclude: this.tried, hash })
                    };
                    match picked {
                        Ok(replica) => {
                            // Whoever is behind has its turn. The place itself is kept until the attempt has succeeded:
                            // those that came later must not take it, or turn this one away when the attempt fails.
                            let place = place.map(Place::pass);
                            let Some(request) = this.request.take() else {
                                unreachable!("a request that cannot be repeated is not picked for twice")
                            };
                            if *this.attempts > 0 || this.calls.attempts.most != Some(1) {
                                *this.request = request.replay();
                            }
                            *this.attempts += 1;
                            let to = To::new(replica.endpoint().clone(), request);
                            let attempt = Attempt::begin(this.shared, replica, this.asked.take());
                            let call = this.inner.clone().oneshot(to);
                            this.step.set(Step::Call { call, attempt, place });
                        }
                        Err(nothing) => {
                            let mut floor = Duration::ZERO;
                            match nothing {
                                Nothing::Pending => {}
                                Nothing::Unavailable(reason) if waiting.is_none() => {
                                    // What went wrong is the attempt, not that there is nothing else to try.
                                    let failed = this.last.take();
                                    return Poll::Ready(Err(
                                        failed.unwrap_or_else(|| this.shared.error(reason))
                                    ));
                                }
                                Nothing::Unavailable(Unavailable::Excluded) => {
                                    this.tried.clear();
                                    floor = this.rounds.next_delay();
                                }
                                // Woken because there was something to pick, and it was not picked: another caller was
                                // quicker, or the balancer sees it otherwise and must not be asked in a loop.
                                Nothing::Unavailable(_) if place.is_some() => floor = ROUND_PAUSE.0,
                                Nothing::Unavailable(_) => {}
                            }
                            let now = Instant::now();
                            this.asked.get_or_insert(now);
                            let since = *this.waiting_since.get_or_insert(now);
                            let place = match place {
                                Some(place) => place,
                                None => Place::join(this.shared, waiting.as_ref(), since)?,
                            };
                            this.step.set(Step::Wait { wait: Box::pin(place.wait(waiting, floor)) });
                        }
                    }
                }
                StepProj::Wait { wait } => {
                    let place = ready!(wait.as_mut().poll(cx))?;
                    this.step.set(Step::Pick { place: Some(place) });
                }
                StepProj::Call { call, attempt, place } => {
                    let result = ready!(call.poll(cx));
                    let mut guard = attempt.end(result.as_ref().err());
                    let error = match result {
                        Ok(answer) => {
                            guard.answered(this.shared.times);
                            this.shared.succeeded(&attempt.replica);
                            return Poll::Ready(Ok(this.calls.tracking.track_completion(guard, answer)));
                        }
                        Err(error) => error,
                    };
                    drop(guard);
                    if error.fault() == Fault::Server {
                        this.shared.failed(&attempt.replica, &error);
                    }
                    let attempts = &this.calls.attempts;
                    let again = error.is_retryable()
                        && this.request.is_some()
                        && attempts.most.is_none_or(|most| *this.attempts < most)
                        && attempts.budget.as_ref().is_none_or(Budget::withdraw);
                    if !again {
                        return Poll::Ready(Err(error));
                    }
                    tracing::debug!(name = %this.shared.name, error = %error.chain(), "trying another endpoint");
                    this.tried.push(attempt.replica.endpoint().key());
                    *this.last = Some(error);
                    let place = place.take();
                    this.step.set(Step::Pick { place });
                }
            }
        }
    }
}

/// One attempt on one replica. Says how it ended, also when its caller does not wait for that.
struct Attempt {
    shared: Arc<Shared>,
    replica: Replica,
    since: Instant,
    /// Taken when it has ended.
    guard: Option<InFlight>,
}

impl Attempt {
    fn begin(shared: &Arc<Shared>, replica: Replica, asked: Option<Instant>) -> Self {
        let since = Instant::now();
        let waited = asked.map_or(Duration::ZERO, |asked| since - asked);
        let (name, endpoint) = (&shared.name, replica.endpoint());
        shared.observer.on(&Event::Attempt { name, endpoint, waited });
        let guard = Some(replica.begin());
        Self { shared: Arc::clone(shared), replica, since, guard }
    }

    fn end(&mut self, error: Option<&Error>) -> InFlight {
        let Some(guard) = self.guard.take() else { unreachable!("an attempt ends once") };
        let (name, endpoint, took) = (&self.shared.name, self.replica.endpoint(), self.since.elapsed());
        self.shared.observer.on(&Event::Attempted { name, endpoint, took, error });
        guard
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.guard.is_some() {
            let (name, endpoint, took) = (&self.shared.name, self.replica.endpoint(), self.since.elapsed());
            self.shared.observer.on(&Event::Abandoned { name, endpoint, took });
        }
    }
}

impl<S: Service<To<R>>, R, K> fmt::Debug for BalanceFuture<S, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceFuture").field("attempts", &self.attempts).finish_non_exhaustive()
    }
}

/// A request's work lasts until its answer is dropped: until the connection is closed, the body read.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct UntilEnd {}

impl UntilEnd {
    /// There are no options.
    pub const fn new() -> Self {
        Self {}
    }
}

impl TrackCompletion<InFlight, Io> for UntilEnd {
    type Output = Io;

    fn track_completion(&self, guard: InFlight, mut io: Io) -> Io {
        io.set_answer_times(guard.answer_times());
        io.hold(guard);
        io
    }
}

#[cfg(feature = "http")]
impl TrackCompletion<InFlight, http::Response<crate::http::Body>> for UntilEnd {
    type Output = http::Response<crate::http::Body>;

    fn track_completion(&self, guard: InFlight, response: Self::Output) -> Self::Output {
        response.map(|body| body.holding(guard))
    }
}
