//! The layer that gives each request an endpoint.

use std::fmt;
use std::sync::Arc;

use tower::Layer;

use super::Balancer;
use super::LeastLoaded;
use super::accrual::Accrual;
use super::attempts::Attempts;
use super::by::BalanceByLayer;
use super::service::Balance;
use super::track::UntilEnd;
use super::wait::Waiting;
use crate::error::Error;
use crate::observe::Observer;
use crate::resolve::Resolution;
use crate::resolve::Resolver;

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
