//! Requests to chosen endpoints.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Request;
use http::Response;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use pin_project::pin_project;
use rustls::ClientConfig;
use tower::BoxError;
use tower::Layer;
use tower::Service;

use super::Accepted;
use super::Body;
use super::HttpError;
use super::exchange;
use super::exchange::Exchange;
use super::exchange::Http1;
use super::exchange::Unanswered;
use super::exchange::streamed;
use super::form;
use super::pool::Key;
use super::pool::Pool;
use super::pool::PoolOptions;
use super::pool::Reused;
use super::pool::SameConfig;
use super::pool::Slot;
use crate::balance::Replay;
use crate::connect::Connector;
use crate::endpoint::Protocol;
use crate::error::Error;
use crate::error::Side;
use crate::session::Session;
use crate::session::To;
use crate::tls::ConnectTls;
use crate::tls::Tls;
use crate::tls::TlsLayer;
use crate::tls::TlsPolicy;

/// Sends requests to their endpoints over the connections of a connector, which are kept for the next ones.
///
/// HTTP/2 is spoken where the TLS handshake agrees on it, or where discovery says that the endpoint
/// [speaks it](Protocol::Http2); else HTTP/1.1. The [policy](TlsPolicy) is asked for each request, so that a connection is
/// used again only by requests that would be sent in the same way. The session that is connected for is that of the
/// request's [`Accepted`], or a [`Session`] among its extensions, or none.
///
/// A request to an HTTP/1.1 server goes out as a path with a `Host`, one to an HTTP/2 server as an authority with a path,
/// whatever form it came in. Of its headers nothing else is changed: those that concern one connection only are removed by
/// a [`HeadersLayer`](super::HeadersLayer) above.
///
/// An upgrade that a server grants is taken up by an [`UpgradeLayer`](super::UpgradeLayer) above, on behalf of the client
/// whose request it was. Without one the connection is closed.
///
/// # Examples
///
/// A client of one host, which may have several addresses and others tomorrow:
///
/// ```no_run
/// # #[cfg(feature = "native-roots")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use http::Request;
/// use meshlib::http::{Body, ClientLayer};
/// use meshlib::resolve::Dns;
/// use meshlib::tls::{Always, ClientTls};
/// use meshlib::{BalanceLayer, Phase, TcpConnector, TimeoutLayer};
/// use tower::{ServiceBuilder, ServiceExt};
///
/// let api = ServiceBuilder::new()
///     .layer(TimeoutLayer::new(Phase::Wait, Duration::from_secs(20)))
///     .layer(BalanceLayer::new(Dns::every(Duration::from_secs(30)), "api.example.com:443"))
///     .layer(TimeoutLayer::new(Phase::Request, Duration::from_secs(10)))
///     .layer(ClientLayer::new().tls(Always::new(ClientTls::from_native_roots("api.example.com")?)))
///     .layer(TimeoutLayer::connect(Duration::from_secs(5)))
///     .service(TcpConnector::default());
///
/// let request = Request::get("https://api.example.com/things?most=3").body(Body::empty())?;
/// let answer = api.clone().oneshot(request).await?;
/// println!("{}: {:?}", answer.status(), answer.into_body().collect(1024 * 1024).await?);
/// # Ok(())
/// # }
/// ```
///
/// The request's URI says what to ask for and not where: that is the balancer's. Addresses that do not change are a
/// [`Static`](crate::Static).
#[derive(Clone)]
#[must_use = "layers do nothing unless applied"]
pub struct ClientLayer {
    tls: TlsLayer,
    pool: PoolOptions,
    http2: bool,
}

/// Speaks plaintext to every endpoint.
struct Plaintext;

impl TlsPolicy for Plaintext {}

impl ClientLayer {
    /// Plaintext, with the default pool.
    pub fn new() -> Self {
        Self { tls: TlsLayer::new(Plaintext), pool: PoolOptions::default(), http2: true }
    }

    /// Sets how to speak to endpoints. Default: in plaintext. With [`Always`](crate::tls::Always) in TLS.
    pub fn tls(self, policy: impl TlsPolicy) -> Self {
        self.tls_layer(TlsLayer::new(policy))
    }

    /// Sets how to speak to endpoints, with a limit for handshakes and an observer of one's own.
    pub fn tls_layer(mut self, layer: TlsLayer) -> Self {
        self.tls = layer;
        self
    }

    /// Sets how connections are kept.
    pub fn pool(mut self, options: PoolOptions) -> Self {
        self.pool = options;
        self
    }

    /// Says whether TLS handshakes offer HTTP/2. Default true. A configuration that offers protocols of its own is left
    /// as it is.
    pub fn http2(mut self, http2: bool) -> Self {
        self.http2 = http2;
        self
    }
}

impl Default for ClientLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ClientLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientLayer")
            .field("pool", &self.pool)
            .field("http2", &self.http2)
            .finish_non_exhaustive()
    }
}

impl<C> Layer<C> for ClientLayer {
    type Service = HttpClient<C>;

    fn layer(&self, connector: C) -> HttpClient<C> {
        HttpClient(Arc::new(Client {
            connector: self.tls.layer(connector),
            pool: Pool::new(self.pool.clone()),
            offers: self.http2.then(Offers::default),
        }))
    }
}

/// An HTTP client; made by [`ClientLayer`]. A clone uses the same connections.
pub struct HttpClient<C>(Arc<Client<C>>);

struct Client<C> {
    connector: Tls<C>,
    pool: Arc<Pool>,
    offers: Option<Offers>,
}

impl<C> HttpClient<C> {
    /// Closes the idle connections to an endpoint that is gone. Those in use are closed after their answers.
    pub fn forget(&self, addr: SocketAddr) {
        self.0.pool.forget(addr);
    }
}

impl<C> Clone for HttpClient<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> fmt::Debug for HttpClient<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("pool", &self.0.pool).finish_non_exhaustive()
    }
}

impl<C: Connector> Service<To<Request<Body>>> for HttpClient<C> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: To<Request<Body>>) -> Self::Future {
        let To { endpoint, mut request } = to;
        let to = To::new(endpoint, session(&mut request));
        let client = Arc::clone(&self.0);
        let decision = client.connector.policy().connect(&to);
        let slot = client.pool.slot(Key::new(&to, &decision, &client.pool.options));
        let call = Call { client, to, decision, slot };
        match call.slot.take() {
            Some(Reused::Http1(http1)) => match at_once(&mut request) {
                Some(body) => {
                    let replayable = is_replayable(&request);
                    let sent = http1.send(request, body, Arc::clone(&call.slot));
                    Box::pin(OnKept { sent, replayable, call: Some(call), another: None })
                }
                None => Box::pin(call.send(request, Some(Reused::Http1(http1)))),
            },
            kept => Box::pin(call.send(request, kept)),
        }
    }
}

/// What a request is sent with.
struct Call<C> {
    client: Arc<Client<C>>,
    to: To<Session>,
    decision: ConnectTls,
    slot: Arc<Slot>,
}

impl<C: Connector> Call<C> {
    /// Sends a request on a connection that was kept or, where there is none that is not closing, on a new one.
    async fn send(
        self,
        mut request: Request<Body>,
        mut kept: Option<Reused>,
    ) -> Result<Response<Body>, Error> {
        while let Some(reused) = kept.take().or_else(|| self.slot.take()) {
            match reused.send(request, &self.slot, &self.decision).await {
                Ok(response) => return Ok(response),
                Err(Failed { unsent: Some(unsent), .. }) => request = *unsent,
                Err(failed) => return Err(self.failed(failed)),
            }
        }
        let Self { client, to, decision, slot } = self;
        let opened = if slot.is_shared() || to.endpoint.metadata.protocol == Some(Protocol::Http2) {
            // The first opens one, the others share it.
            let permit = slot.opening.acquire().await;
            match slot.take() {
                Some(reused) => reused,
                None => {
                    let opened = Box::pin(client.open(to, decision.clone(), &slot)).await?;
                    drop(permit);
                    opened
                }
            }
        } else {
            Box::pin(client.open(to, decision.clone(), &slot)).await?
        };
        opened.send(request, &slot, &decision).await.map_err(Into::into)
    }

    /// The error of a request on a connection that was kept.
    fn failed(&self, failed: Failed) -> Error {
        let error = failed.of_kept();
        if error.is_of_connection() {
            // What was kept beside it was most likely closed with it.
            self.slot.drop_idle();
        }
        error
    }
}

/// A request on a kept HTTP/1 connection, as nearly all are.
///
/// Such a connection may be closing this very moment. What was not sent goes to another one.
#[pin_project]
struct OnKept<C> {
    #[pin]
    sent: Exchange,
    replayable: bool,
    /// Taken when that has failed.
    call: Option<Call<C>>,
    another: Option<BoxFuture<'static, Result<Response<Body>, Error>>>,
}

impl<C: Connector> Future for OnKept<C> {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(another) = this.another {
            return another.as_mut().poll(cx);
        }
        let error = match ready!(this.sent.poll(cx)) {
            Ok(response) => return Poll::Ready(Ok(response)),
            Err(error) => error,
        };
        // Nobody polls it again after its end.
        let Some(call) = this.call.take() else { return Poll::Pending };
        match Failed::new(error, *this.replayable) {
            Failed { unsent: Some(unsent), .. } => {
                this.another.insert(Box::pin(call.send(*unsent, None))).as_mut().poll(cx)
            }
            failed => Poll::Ready(Err(call.failed(failed))),
        }
    }
}

impl<C: Connector> Client<C> {
    async fn open(&self, to: To<Session>, decision: ConnectTls, slot: &Slot) -> Result<Reused, Error> {
        let prior_knowledge = to.endpoint.metadata.protocol == Some(Protocol::Http2);
        let decision = match &self.offers {
            Some(offers) => offers.in_handshake(decision),
            None => decision,
        };
        let io = self.connector.connect_as(decision, to).await?;
        match io.alpn() {
            Some(b"h2") => {}
            None if prior_knowledge => {}
            _ => {
                slot.speaks_http1();
                return Ok(Reused::Http1(Http1::new(io)));
            }
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(self.pool.options.ping_every)
            .keep_alive_timeout(self.pool.options.pong_within)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| broke_down(error.into()))?;
        // Ends when the peer closes it, or nobody has a use for it.
        tokio::spawn(connection);
        let streams = slot.share(&sender);
        Ok(Reused::Http2(sender, streams))
    }
}

/// Credit for one answer, and for all answers of a connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

impl Reused {
    async fn send(
        self,
        mut request: Request<Body>,
        slot: &Arc<Slot>,
        decision: &ConnectTls,
    ) -> Result<Response<Body>, Failed> {
        let replayable = is_replayable(&request);
        match self {
            Self::Http1(http1) => match at_once(&mut request) {
                Some(body) => http1.send(request, body, Arc::clone(slot)).await,
                None => streamed::send(http1, request, slot).await,
            },
            Self::Http2(mut sender, stream) => {
                let tls = !matches!(decision, ConnectTls::Plaintext);
                form::for_http2(&mut request, tls);
                let answer = sender.try_send_request(request).await.map_err(Unanswered::from);
                let body = |body| Body::shared_answer(body, slot.body_within()).holding(stream);
                answer.map(|response| response.map(body))
            }
        }
        .map_err(|error| Failed::new(error, replayable))
    }
}

/// All of a request's body, if it can be sent at once.
fn at_once(request: &mut Request<Body>) -> Option<Bytes> {
    if exchange::is_plain(request) { request.body_mut().whole() } else { None }
}

/// Whether a request can be made again as long as no answer to it has come.
fn is_replayable(request: &Request<Body>) -> bool {
    http_body::Body::is_end_stream(request.body()) && request.method().is_idempotent()
}

/// A request that got no answer, and the request itself if nothing of it was sent.
struct Failed {
    unsent: Option<Box<Request<Body>>>,
    replayable: bool,
    error: BoxError,
}

impl Failed {
    fn new(Unanswered { request, error }: Unanswered, replayable: bool) -> Self {
        Self { unsent: request, replayable, error }
    }

    /// The error of a request on a connection that had been kept. The server may have closed it before it saw the
    /// request, so what can be repeated may be.
    fn of_kept(self) -> Error {
        if self.replayable && exchange::is_closed(&*self.error) {
            return Error::Http(Box::new(HttpError::Stale(self.error)));
        }
        self.into()
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed.unsent {
            Some(_) => Self::Http(Box::new(HttpError::Unsent(failed.error))),
            None => broke_down(failed.error),
        }
    }
}

fn broke_down(source: BoxError) -> Error {
    // A body that broke off on its way to the endpoint is not the endpoint's doing.
    let body = match source.downcast_ref::<hyper::Error>() {
        Some(error) if error.is_user() => std::error::Error::source(error),
        _ => None,
    };
    if let Some(HttpError::Silent { after, .. }) = body.and_then(|error| error.downcast_ref()) {
        return Error::Http(Box::new(HttpError::Silent { side: Side::Client, after: *after }));
    }
    let side = if body.is_some() { Side::Client } else { Side::Server };
    Error::Http(Box::new(HttpError::Exchange { side, source }))
}

/// The session that a request is sent for.
fn session(request: &mut Request<Body>) -> Session {
    if let Some(accepted) = request.extensions().get::<Accepted>() {
        return accepted.session().clone();
    }
    request.extensions_mut().remove::<Session>().unwrap_or_default()
}

/// Configurations with the protocols of HTTP added to what their handshakes offer.
#[derive(Default)]
struct Offers {
    made: Mutex<Vec<(SameConfig, Arc<ClientConfig>)>>,
}

/// Policies have a handful of configurations, and replace them when certificates change.
const MAX_OFFERS: usize = 16;

impl Offers {
    fn in_handshake(&self, mut decision: ConnectTls) -> ConnectTls {
        if let ConnectTls::Required(tls) | ConnectTls::Opportunistic { tls, .. } = &mut decision {
            tls.config = self.offering(&tls.config);
        }
        decision
    }

    fn offering(&self, config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
        if !config.alpn_protocols.is_empty() {
            return Arc::clone(config);
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, offering)) = made.iter().find(|(from, _)| Arc::ptr_eq(&from.0, config)) {
            return Arc::clone(offering);
        }
        let mut offering = (**config).clone();
        offering.alpn_protocols = super::ALPN.map(Vec::from).into();
        let offering = Arc::new(offering);
        if made.len() == MAX_OFFERS {
            made.remove(0);
        }
        made.push((SameConfig(Arc::clone(config)), Arc::clone(&offering)));
        offering
    }
}

/// A request is made again with the body of the first, as long as nobody has begun to read that.
impl Replay for Request<Body> {
    type Kept = KeptRequest;

    fn keep(&mut self) -> Option<KeptRequest> {
        let mut request = Self::new(self.body_mut().share());
        *request.method_mut() = self.method().clone();
        *request.uri_mut() = self.uri().clone();
        *request.version_mut() = self.version();
        *request.headers_mut() = self.headers().clone();
        // A map that has only what a server puts into it is not worth being cloned.
        let accepted = self.extensions().get::<Accepted>().filter(|_| self.extensions().len() == 1).cloned();
        if accepted.is_none() {
            *request.extensions_mut() = self.extensions().clone();
        }
        Some(KeptRequest { request, accepted })
    }

    fn replay(kept: KeptRequest) -> Self {
        let KeptRequest { mut request, accepted } = kept;
        if let Some(accepted) = accepted {
            request.extensions_mut().insert(accepted);
        }
        request
    }
}

/// What is kept of a request while it is tried: all of it.
pub struct KeptRequest {
    request: Request<Body>,
    accepted: Option<Accepted>,
}

/// Without its fields, which may be secret.
impl fmt::Debug for KeptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptRequest").field("method", self.request.method()).finish_non_exhaustive()
    }
}
