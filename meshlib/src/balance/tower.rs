//! Bridges to tower's own balancing, both ways.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use futures::Stream;
use futures::StreamExt;
use futures::future::Either;
use futures::future::Ready;
use futures::stream;
use tower::BoxError;
use tower::Service;
use tower::ServiceExt;
use tower::discover::Change;
use tower::discover::Discover;
use tower::load::Load;
use tower::util::Oneshot;

use super::layer::Options;
use super::service::Balance;
use super::set::Cost;
use crate::endpoint::Endpoint;
use crate::endpoint::EndpointKey;
use crate::endpoint::Weight;
use crate::error::Error;
use crate::error::Unavailable;
use crate::resolve::Resolution;
use crate::resolve::Update;
use crate::session::To;

/// A resolution as tower's `Discover`: a stream of services to insert and keys to remove.
///
/// Feed it to `tower::balance::p2c::Balance`. The services are what `make` returns, so their [`Load`] is its choice:
/// tower's `PendingRequests` and `PeakEwma`, or anything whose load is a number in [`Weighted`]. An endpoint whose weight
/// or metadata changed is inserted again, which makes a new service. Failed attempts are logged and keep the set.
///
/// tower's balancer neither leaves failing endpoints alone nor tries another one: an endpoint that refuses looks idle and
/// attracts requests. Where endpoints may fail use [`BalanceLayer`](super::BalanceLayer).
///
/// # Examples
///
/// ```
/// use meshlib::balance::Changes;
/// use meshlib::{Endpoint, Resolver, Static};
/// use meshlib::{Io, Session, TcpConnector, To};
/// use tower::Service;
/// use tower::load::{PendingRequests, TrackCompletion};
///
/// /// A connection counts until it is closed.
/// #[derive(Clone)]
/// struct UntilClosed;
///
/// impl<H: Send + 'static> TrackCompletion<H, Io> for UntilClosed {
///     type Output = Io;
///
///     fn track_completion(&self, handle: H, mut io: Io) -> Io {
///         io.hold(handle);
///         io
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let resolution = Static::new(["10.0.0.1:80".parse()?]).resolve("web");
/// let discover = Changes::new(resolution, |endpoint: &Endpoint| {
///     let endpoint = endpoint.clone();
///     let connect = tower::service_fn(move |session: Session| {
///         TcpConnector::default().call(To::new(endpoint.clone(), session))
///     });
///     PendingRequests::new(connect, UntilClosed)
/// });
/// let balance = tower::balance::p2c::Balance::new(discover);
/// # let _ = balance;
/// # Ok(())
/// # }
/// ```
pub struct Changes<F, S> {
    resolution: Resolution,
    make: F,
    known: HashMap<EndpointKey, Endpoint>,
    next: VecDeque<Change<EndpointKey, S>>,
}

impl<F, S> Changes<F, S>
where
    F: FnMut(&Endpoint) -> S,
{
    /// Makes a service for each endpoint.
    pub fn new(resolution: Resolution, make: F) -> Self {
        Self { resolution, make, known: HashMap::new(), next: VecDeque::new() }
    }

    fn update(&mut self, endpoints: &[Endpoint]) {
        let mut gone = std::mem::take(&mut self.known);
        for endpoint in endpoints {
            let key = endpoint.key();
            // Of several with one key the first counts.
            if self.known.contains_key(&key) {
                continue;
            }
            if gone.remove(&key).as_ref() != Some(endpoint) {
                self.next.push_back(Change::Insert(key.clone(), (self.make)(endpoint)));
            }
            self.known.insert(key, endpoint.clone());
        }
        self.next.extend(gone.into_keys().map(Change::Remove));
    }
}

impl<F, S> Unpin for Changes<F, S> {}

impl<F, S> Stream for Changes<F, S>
where
    F: FnMut(&Endpoint) -> S,
{
    type Item = Result<Change<EndpointKey, S>, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(change) = self.next.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            match ready!(self.resolution.poll_next_unpin(cx)) {
                Some(Ok(Update::Endpoints(endpoints))) => self.update(&endpoints),
                Some(Ok(Update::NotFound)) => self.update(&[]),
                Some(Err(error)) => tracing::warn!(%error, "resolution failed; keeping what is known"),
                // tower takes the end of a discovery for its failure, while here it means that the set is final.
                None => return Poll::Pending,
            }
        }
    }
}

impl<F, S> fmt::Debug for Changes<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("known", &self.known).finish_non_exhaustive()
    }
}

/// A service whose [`Load`] is divided by a weight.
///
/// The load must be a number (`Into<f64>`), which those of tower's own trackers are not.
#[derive(Clone, Debug)]
pub struct Weighted<S> {
    inner: S,
    weight: Weight,
}

impl<S> Weighted<S> {
    /// Gives a service the weight of its endpoint.
    pub fn new(inner: S, weight: Weight) -> Self {
        Self { inner, weight }
    }
}

impl<S, R> Service<R> for Weighted<S>
where
    S: Service<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.inner.call(request)
    }
}

impl<S> Load for Weighted<S>
where
    S: Load<Metric: Into<f64>>,
{
    type Metric = Cost;

    fn load(&self) -> Cost {
        Cost::scaled(self.inner.load().into(), self.weight)
    }
}

/// Balances over the services that a tower `Discover` brings.
///
/// Its keys must say which endpoint they stand for; the services must be `Clone`, since each request gets one of its
/// own. The discovery is polled with the first request or with [`Balance::start`].
pub fn from_discover<D>(name: &str, discover: D) -> Balance<Discovered<D::Service>>
where
    D: Discover<Key: Into<EndpointKey>, Error: Into<BoxError>> + Send + 'static,
    D::Service: Send + 'static,
{
    let services = Services::default();
    let resolution = Resolution::new(stream::unfold(
        (Box::pin(discover), services.clone()),
        |(mut discover, services)| async move {
            let change = poll_fn(|cx| discover.as_mut().poll_discover(cx)).await?;
            let item = match change {
                Ok(change) => Ok(services.apply(change)),
                Err(error) => Err(crate::resolve::ResolveError::other(error)),
            };
            Some((item, (discover, services)))
        },
    ));
    Balance::new(name.into(), resolution, &Options::default(), Discovered { services })
}

/// Sends a request to the service of its endpoint; made by [`from_discover`].
pub struct Discovered<S> {
    services: Services<S>,
}

/// The services by endpoint. Written per change, read per request: a lock held for a look-up and a clone.
struct Services<S>(Arc<Mutex<HashMap<EndpointKey, S>>>);

impl<S> Services<S> {
    fn apply<K: Into<EndpointKey>>(&self, change: Change<K, S>) -> Update {
        let mut services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Insert(key, service) => services.insert(key.into(), service),
            Change::Remove(key) => services.remove(&key.into()),
        };
        Update::endpoints(services.keys().map(|key| {
            let endpoint = Endpoint::new(key.addr);
            match &key.instance {
                Some(instance) => endpoint.with_instance(Arc::clone(instance)),
                None => endpoint,
            }
        }))
    }
}

impl<S> Default for Services<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S> Clone for Services<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Clone for Discovered<S> {
    fn clone(&self) -> Self {
        Self { services: self.services.clone() }
    }
}

impl<S> fmt::Debug for Discovered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovered").finish_non_exhaustive()
    }
}

impl<S, R> Service<To<R>> for Discovered<S>
where
    S: Service<R, Error = Error> + Clone,
{
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Oneshot<S, R>, Ready<Result<S::Response, Error>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: To<R>) -> Self::Future {
        let key = to.endpoint.key();
        let service = self.services.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        match service {
            Some(service) => Either::Left(service.oneshot(to.request)),
            None => Either::Right(futures::future::ready(Err(Error::Unavailable {
                name: key.addr.to_string().into(),
                reason: Unavailable::NotFound,
            }))),
        }
    }
}
