//! Sending a request to the instance that was chosen.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use futures::future::BoxFuture;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::HOST;
use meshlib::BoxConnector;
use meshlib::Error;
use meshlib::Phase;
use meshlib::To;
use meshlib::http::Accepted;
use meshlib::http::Body;
use meshlib::http::HttpClient;
use meshlib::http::route::host_name;
use meshlib::observe::prometheus::Tracked;
use tokio::time;
use tower::Service;

use super::backend::Backend;
use super::hops;
use super::metrics::Metrics;

/// The connections of a worker.
pub(super) type Client = HttpClient<BoxConnector>;

/// Sends requests to instances, and adds to answers what the tags of these say.
#[derive(Clone, Debug)]
pub(super) struct Send {
    shared: Arc<Shared>,
    attempts: Option<Attempts>,
}

/// The attempts of a request that fits several rules.
#[derive(Clone, Debug)]
struct Attempts {
    /// How many were made by this rule.
    made: Arc<AtomicU32>,
    /// Whether there was one by another rule.
    follows: bool,
}

/// What all clones have in common: each request makes one.
#[derive(Debug)]
struct Shared {
    client: Client,
    metrics: Metrics,
    response_timeout: Option<Duration>,
}

/// Who answered: an extension of answers on their way to the client.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) backend: Arc<Backend>,
    /// Until the answer has ended.
    in_flight: Arc<Tracked>,
}

impl Send {
    pub(super) fn new(client: Client, metrics: Metrics, response_timeout: Option<Duration>) -> Self {
        Self { shared: Arc::new(Shared { client, metrics, response_timeout }), attempts: None }
    }

    /// The same for one of several rules, counting what it sends; `follows` says whether another one has sent it before.
    pub(super) fn counting(&self, made: Arc<AtomicU32>, follows: bool) -> Self {
        Self { attempts: Some(Attempts { made, follows }), ..self.clone() }
    }
}

impl Service<To<Request<Body>>> for Send {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Sending;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut to: To<Request<Body>>) -> Sending {
        if let Some(Attempts { made, follows }) = &self.attempts {
            // Further ones are counted by the balancer's observer.
            if made.fetch_add(1, Ordering::Relaxed) == 0 && *follows {
                self.shared.metrics.retries.inc();
            }
        }
        let Some(backend) = Backend::of(&to.endpoint) else {
            // Every endpoint of a group is made by a backend.
            return Sending { answer: self.shared.client.clone().call(to), by: None };
        };
        if backend.speaks_tls() {
            name_server(&mut to.request);
            hops::add(to.request.headers_mut());
        }
        let in_flight = Arc::new(backend.metrics().in_flight.track());
        tracing::debug!(
            target: "tricot",
            node = %backend.instance().node,
            id = %backend.instance().id,
            addr = %to.endpoint.addr,
            "sending"
        );
        tracing::trace!(target: "tricot", headers = ?super::masked(to.request.headers()), "request as it is sent");
        let shared = Arc::clone(&self.shared);
        let answer = shared.client.clone().call(to);
        let answer = match shared.response_timeout {
            None => answer,
            Some(after) => Box::pin(within(after, answer)),
        };
        Sending { answer, by: Some(By { shared, served: Served { backend, in_flight } }) }
    }
}

/// The answer of a client.
type Answer = BoxFuture<'static, Result<Response<Body>, Error>>;

async fn within(after: Duration, answer: Answer) -> Result<Response<Body>, Error> {
    time::timeout(after, answer).await.unwrap_or(Err(Error::Timeout { phase: Phase::Request, after }))
}

/// The answer of [`Send`].
pub(super) struct Sending {
    answer: Answer,
    /// Taken with the answer.
    by: Option<By>,
}

struct By {
    shared: Arc<Shared>,
    served: Served,
}

impl Future for Sending {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.answer.as_mut().poll(cx));
        Poll::Ready(match self.by.take() {
            Some(by) => by.told(answer),
            None => answer,
        })
    }
}

impl By {
    /// Adds to an answer what is to be known about it, and counts what has failed.
    fn told(self, answer: Result<Response<Body>, Error>) -> Result<Response<Body>, Error> {
        let Self { shared, served } = self;
        match answer {
            Ok(mut answer) => {
                tracing::trace!(target: "tricot", headers = ?super::masked(answer.headers()), "answer as it came");
                served.backend.add_headers(answer.headers_mut());
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    answer = answer.map(|body| body.holding(Arc::clone(&served.in_flight)));
                }
                answer.extensions_mut().insert(served);
                Ok(answer)
            }
            Err(error) => {
                if let Some(kind) = kind(&error) {
                    let instance = served.backend.instance();
                    shared.metrics.backend_error(&instance.service, &instance.node, kind);
                }
                Err(error)
            }
        }
    }
}

/// Lets the TLS handshake with an instance name the host of the request.
fn name_server(request: &mut Request<Body>) {
    let Some(accepted) = request.extensions().get::<Accepted>() else { return };
    let Some(host) = request.headers().get(HOST).and_then(|host| host.to_str().ok()) else { return };
    let name = host_name(host);
    if accepted.session().server_name.as_deref() == Some(&*name) {
        return;
    }
    let session = accepted.session().clone().with_server_name(&*name);
    let accepted = Accepted::new(session, accepted.draining().clone());
    request.extensions_mut().insert(accepted);
}

/// The kind of a failure of an instance; nothing for those of others.
fn kind(error: &Error) -> Option<&'static str> {
    match error {
        Error::Connect { .. } => Some("connect"),
        Error::Timeout { phase: Phase::Connect, .. } => Some("connect"),
        Error::Tls { .. } => Some("tls"),
        Error::Timeout { .. } => Some("timeout"),
        Error::Http(error) if error.fault() == meshlib::Fault::Server => Some("reset"),
        _ => None,
    }
}
