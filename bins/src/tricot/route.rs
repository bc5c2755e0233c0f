//! From a request to the instance that answers it.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header::LOCATION;
use http::uri::PathAndQuery;
use meshlib::Error;
use meshlib::balance::Replay;
use meshlib::http::Accepted;
use meshlib::http::Body;
use meshlib::http::route::host_name;
use pin_project::pin_project;
use tokio::sync::Notify;
use tokio::time;
use tower::Service;
use tower::ServiceExt;

use super::access::Unserved;
use super::group::ATTEMPTS;
use super::group::Group;
use super::hops;
use super::host;
use super::metrics::Metrics;
use super::page::Refused;
use super::send::Send;
use super::table::Routes;
use super::table::Rule;
use super::tags::Redirect;

/// How long a request waits for the first table.
const FIRST: Duration = Duration::from_secs(2);

/// The table in force.
#[derive(Debug, Default)]
pub(super) struct Current {
    routes: ArcSwapOption<Routes>,
    first: Notify,
}

impl Current {
    pub(super) fn set(&self, routes: Arc<Routes>) {
        self.routes.store(Some(routes));
        self.first.notify_waiters();
    }

    /// The table; nothing before Consul has answered.
    pub(super) fn get(&self) -> Option<Arc<Routes>> {
        self.routes.load_full()
    }

    /// What a request counts among that nobody has answered; nothing if no rule is for it.
    pub(super) fn unserved(&self, host: &str, path: &str) -> Option<Unserved> {
        let routes = self.get()?;
        let mut found = routes.table.find(host, path);
        let mut unusable = None;
        match usable(&mut found, &mut unusable) {
            Some(Rule::Proxy(group)) => group.unserved(),
            Some(Rule::Redirect(_)) => None,
            None => unusable?.unserved(),
        }
        .map(Unserved)
    }

    /// The table, once there is one; nothing if that takes too long.
    async fn wait(&self) -> Option<Arc<Routes>> {
        if let Some(routes) = self.get() {
            return Some(routes);
        }
        let first = async {
            loop {
                let set = self.first.notified();
                tokio::pin!(set);
                set.as_mut().enable();
                if let Some(routes) = self.get() {
                    return routes;
                }
                set.await;
            }
        };
        time::timeout(FIRST, first).await.ok()
    }
}

/// Says whether two names are served with the same certificate.
pub(super) trait SameCertificate: std::fmt::Debug + std::marker::Send + Sync {
    fn same(&self, one: &str, other: &str) -> bool;
}

/// Finds what a request is for.
#[derive(Clone, Debug)]
pub(super) struct Route(Arc<Shared>);

/// What all clones have in common: each request makes one.
#[derive(Debug)]
struct Shared {
    current: Arc<Current>,
    certificates: Arc<dyn SameCertificate>,
    send: Send,
    metrics: Metrics,
}

impl Route {
    pub(super) fn new(
        current: Arc<Current>,
        certificates: Arc<dyn SameCertificate>,
        send: Send,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Shared { current, certificates, send, metrics }))
    }
}

impl Shared {
    /// Begins to answer a request by a table.
    fn answer(self: &Arc<Self>, routes: Arc<Routes>, request: Request<Body>) -> Answer {
        let to = match self.first(&routes, &request) {
            Ok(to) => to,
            Err(unanswered) => return Box::pin(ready(Ok(unanswered.answer()))),
        };
        match to {
            First::Redirect(answer) => Box::pin(ready(Ok(answer))),
            First::Only(group) => {
                let answer = group.balance(self.send.clone(), ATTEMPTS).call_once(request);
                Box::pin(ByOne { answer, group })
            }
            First::OfSeveral => {
                let shared = Arc::clone(self);
                Box::pin(async move {
                    Ok(shared.by_several(&routes, request).await.unwrap_or_else(Unanswered::answer))
                })
            }
        }
    }

    /// What a request is for.
    fn first(&self, routes: &Routes, request: &Request<Body>) -> Result<First, Unanswered> {
        let host = host::of(request).unwrap_or_default();
        let shown = request.extensions().get::<Accepted>().and_then(|it| it.session().server_name.as_ref());
        // Nearly always written alike.
        if let Some(shown) = shown.filter(|shown| ***shown != *host) {
            let name = host_name(host);
            if **shown != *name && !self.certificates.same(shown, &name) {
                return Err(Refused::Misdirected.into());
            }
        }
        let target = request.uri().path_and_query();
        let path = target.map_or("/", PathAndQuery::path);
        let mut found = routes.table.find(host, path);
        let mut unusable = None;
        match usable(&mut found, &mut unusable) {
            Some(Rule::Redirect(redirect)) => {
                self.metrics.redirects.inc();
                Ok(First::Redirect(redirected(redirect, target)))
            }
            Some(Rule::Proxy(group)) if hops::are_too_many(request.headers()) => {
                Err(Unanswered::by(group, Refused::Loop))
            }
            Some(Rule::Proxy(group)) => Ok(match usable(&mut found, &mut unusable) {
                None => First::Only(Arc::clone(group)),
                Some(_) => First::OfSeveral,
            }),
            None => match unusable {
                Some(group) => Err(Unanswered::by(group, Refused::NoneUsable)),
                None => {
                    self.metrics.no_route.inc();
                    Err(Refused::NoRule.into())
                }
            },
        }
    }

    /// Sends a request to one group after the other until somebody takes it.
    async fn by_several(
        &self,
        routes: &Routes,
        request: Request<Body>,
    ) -> Result<Response<Body>, Unanswered> {
        let host = host::of(&request).unwrap_or_default();
        // A count more, so that the path lives longer than the request.
        let target = request.uri().path_and_query().cloned();
        let path = target.as_ref().map_or("/", PathAndQuery::path);
        let mut found = routes.table.find(host, path);
        let mut unusable = None;
        let mut next = usable(&mut found, &mut unusable);
        let mut request = Some(request);
        let mut failure = None;
        let mut attempts = ATTEMPTS;
        while let (Some(rule), Some(mut this)) = (next, request.take()) {
            let group = match rule {
                Rule::Redirect(redirect) => {
                    self.metrics.redirects.inc();
                    return Ok(redirected(redirect, target.as_ref()));
                }
                Rule::Proxy(group) => group,
            };
            next = usable(&mut found, &mut unusable);
            // To be sent elsewhere, should nobody here take it.
            let kept = next.and_then(|_| this.keep());
            let made = Arc::<AtomicU32>::default();
            let send = self.send.counting(Arc::clone(&made), attempts < ATTEMPTS);
            match group.balance(send, attempts).oneshot(this).await {
                Ok(answer) => return Ok(answer),
                Err(error) if is_nobodys(&error) => {
                    attempts = attempts.saturating_sub(made.load(Ordering::Relaxed));
                    if attempts == 0 {
                        // A redirect needs none.
                        next = next.filter(|rule| matches!(rule, Rule::Redirect(_)));
                    }
                    request = kept.map(Replay::replay);
                    nobody_takes(group, &error);
                    failure = Some(Unanswered::by(group, Refused::Failed(error)));
                }
                Err(error) => return Err(Unanswered::by(group, Refused::Failed(error))),
            }
        }
        Err(failure.unwrap_or_else(|| Refused::NoneUsable.into()))
    }
}

/// The answer of [`Route`].
type Answer = BoxFuture<'static, Result<Response<Body>, Error>>;

/// The first rule that can do something with a request.
enum First {
    Redirect(Response<Body>),
    /// The instances of this group may answer it, and there is nobody else.
    Only(Arc<Group>),
    OfSeveral,
}

/// A request that one group may answer, as nearly all are.
#[pin_project]
struct ByOne<F> {
    #[pin]
    answer: F,
    group: Arc<Group>,
}

impl<F: Future<Output = Result<Response<Body>, Error>>> Future for ByOne<F> {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = std::task::ready!(this.answer.poll(cx));
        Poll::Ready(Ok(answer.unwrap_or_else(|error| {
            if is_nobodys(&error) {
                nobody_takes(this.group, &error);
            }
            Unanswered::by(this.group, Refused::Failed(error)).answer()
        })))
    }
}

/// Whether nobody has taken the request that failed so.
fn is_nobodys(error: &Error) -> bool {
    error.is_retryable() || matches!(error, Error::Unavailable { .. })
}

fn nobody_takes(group: &Group, error: &Error) {
    tracing::debug!(target: "tricot", rule = %group.name, error = %error.chain(), "nobody there takes the request");
}

/// Why a request is not answered by an instance, and what it counts among.
struct Unanswered {
    refused: Refused,
    unserved: Option<Unserved>,
}

impl Unanswered {
    /// Not by an instance of this group, whose rule it fits.
    fn by(group: &Group, refused: Refused) -> Self {
        Self { refused, unserved: group.unserved().map(Unserved) }
    }

    /// What the service around this one makes a page of.
    fn answer(self) -> Response<Body> {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = self.refused.status();
        answer.extensions_mut().insert(Arc::new(self.refused));
        if let Some(unserved) = self.unserved {
            answer.extensions_mut().insert(unserved);
        }
        answer
    }
}

impl From<Refused> for Unanswered {
    fn from(refused: Refused) -> Self {
        Self { refused, unserved: None }
    }
}

/// The next rule that can do something with a request, and on the way the first that would if it had an instance.
fn usable<'t>(
    found: &mut impl Iterator<Item = &'t Rule>,
    unusable: &mut Option<&'t Group>,
) -> Option<&'t Rule> {
    found.find(|rule| match rule {
        Rule::Redirect(_) => true,
        Rule::Proxy(group) => {
            let usable = group.is_usable();
            if !usable {
                unusable.get_or_insert(group);
            }
            usable
        }
    })
}

/// The answer that sends a client elsewhere, with what came after the prefix.
fn redirected(redirect: &Redirect, target: Option<&PathAndQuery>) -> Response<Body> {
    let rest = target.map_or("/", PathAndQuery::as_str);
    let rest = rest.strip_prefix(&*redirect.from_path).unwrap_or(rest);
    let mut location = format!("https://{}", redirect.target());
    if !rest.starts_with(['/', '?']) && !rest.is_empty() && !location.ends_with('/') {
        location.push('/');
    }
    location.push_str(rest.strip_prefix('/').filter(|_| location.ends_with('/')).unwrap_or(rest));
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = redirect.status;
    if let Ok(location) = HeaderValue::from_str(&location) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

impl Service<Request<Body>> for Route {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Some(routes) = self.0.current.get() {
            return self.0.answer(routes, request);
        }
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            match shared.current.wait().await {
                Some(routes) => shared.answer(routes, request).await,
                None => Ok(Unanswered::from(Refused::NotReady).answer()),
            }
        })
    }
}
