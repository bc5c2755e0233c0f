//! Sending a request to the instance that was chosen.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
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
    client: Client,
    shared: Arc<Shared>,
    /// Counts requests that are sent, if somebody wants to know.
    sent: Option<Arc<AtomicU32>>,
}

/// What all clones have in common: each request makes some.
#[derive(Debug)]
struct Shared {
    metrics: Metrics,
    response_timeout: Option<Duration>,
}

/// Who answered: an extension of answers on their way to the client.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) backend: Arc<Backend>,
    /// Until the answer has ended.
    _in_flight: Arc<Tracked>,
}

impl Send {
    pub(super) fn new(client: Client, metrics: Metrics, response_timeout: Option<Duration>) -> Self {
        Self { client, shared: Arc::new(Shared { metrics, response_timeout }), sent: None }
    }

    /// The same, counting what it sends.
    pub(super) fn counting(&self, sent: Option<Arc<AtomicU32>>) -> Self {
        Self { sent, ..self.clone() }
    }
}

impl Service<To<Request<Body>>> for Send {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut to: To<Request<Body>>) -> Self::Future {
        if let Some(sent) = &self.sent {
            sent.fetch_add(1, Ordering::Relaxed);
        }
        let Some(backend) = Backend::of(&to.endpoint) else {
            // Every endpoint of a group is made by a backend.
            return self.client.call(to);
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
        let call = self.client.call(to);
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let answer = match shared.response_timeout {
                None => call.await,
                Some(after) => time::timeout(after, call)
                    .await
                    .unwrap_or(Err(Error::Timeout { phase: Phase::Request, after })),
            };
            match answer {
                Ok(mut answer) => {
                    tracing::trace!(target: "tricot", headers = ?super::masked(answer.headers()), "answer as it came");
                    backend.add_headers(answer.headers_mut());
                    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                        answer = answer.map(|body| body.holding(Arc::clone(&in_flight)));
                    }
                    answer.extensions_mut().insert(Served { backend, _in_flight: in_flight });
                    Ok(answer)
                }
                Err(error) => {
                    if let Some(kind) = kind(&error) {
                        let instance = backend.instance();
                        shared.metrics.backend_error(&instance.service, &instance.node, kind);
                    }
                    Err(error)
                }
            }
        })
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
