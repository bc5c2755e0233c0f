//! Requests to chosen endpoints.

use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use futures::future::BoxFuture;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::Uri;
use http::header::HOST;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;

use super::Body;
use super::HttpError;
use super::pool::Pool;
use super::pool::PoolOptions;
use crate::balance::Replay;
use crate::connect::Connector;
use crate::error::Error;
use crate::error::Side;
use crate::session::Session;
use crate::session::To;
use crate::tls::ConnectTls;
use crate::tls::Tls;
use crate::tls::TlsLayer;
use crate::tls::TlsPolicy;

/// Sends HTTP/1.1 requests to their endpoints over the connections of a connector.
///
/// The [policy](TlsPolicy) is asked for each request, so that a connection is used again only by requests that would be
/// sent in the same way. A [`Session`] among the request's extensions is the session that is connected for.
#[derive(Clone)]
#[must_use = "layers do nothing unless applied"]
pub struct ClientLayer {
    policy: Arc<dyn TlsPolicy>,
    pool: PoolOptions,
}

/// Speaks plaintext to every endpoint.
struct Plaintext;

impl TlsPolicy for Plaintext {}

impl ClientLayer {
    /// Plaintext, with the default pool.
    pub fn new() -> Self {
        Self { policy: Arc::new(Plaintext), pool: PoolOptions::default() }
    }

    /// Sets how to speak to endpoints.
    pub fn tls(mut self, policy: impl TlsPolicy) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// Sets how connections are kept.
    pub fn pool(mut self, options: PoolOptions) -> Self {
        self.pool = options;
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
        f.debug_struct("ClientLayer").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl<C> Layer<C> for ClientLayer {
    type Service = HttpClient<C>;

    fn layer(&self, connector: C) -> HttpClient<C> {
        HttpClient {
            connector: TlsLayer::new(Arc::clone(&self.policy)).layer(connector),
            policy: Arc::clone(&self.policy),
            pool: Pool::new(self.pool.clone()),
        }
    }
}

/// An HTTP client; made by [`ClientLayer`]. A clone uses the same connections.
#[derive(Clone)]
pub struct HttpClient<C> {
    connector: Tls<C>,
    policy: Arc<dyn TlsPolicy>,
    pool: Arc<Pool<Key, http1::SendRequest<Body>>>,
}

impl<C> fmt::Debug for HttpClient<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// Requests of the same key may share a connection.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    addr: SocketAddr,
    tls: Option<(SameConfig, ServerName<'static>)>,
}

/// A configuration, compared by its place in memory. Holding it keeps the place from being used again.
#[derive(Clone)]
struct SameConfig(Arc<ClientConfig>);

impl PartialEq for SameConfig {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SameConfig {}

impl Hash for SameConfig {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl Key {
    fn new(addr: SocketAddr, decision: &ConnectTls) -> Self {
        let tls = match decision {
            ConnectTls::Required(tls) | ConnectTls::Opportunistic { tls, .. } => Some(tls),
            _ => None,
        };
        Self { addr, tls: tls.map(|tls| (SameConfig(Arc::clone(&tls.config)), tls.server_name.clone())) }
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
        let client = self.clone();
        Box::pin(async move {
            let To { endpoint, request } = to;
            let session = request.extensions().get::<Session>().cloned().unwrap_or_default();
            let mut request = origin_form(request);
            let to = To::new(endpoint, session);
            let key = Key::new(to.endpoint.addr, &client.policy.connect(&to));
            // A kept connection may be closing this very moment. What was not sent goes to another one.
            while let Some(sender) = client.pool.take(&key, http1::SendRequest::is_ready) {
                match client.send(sender, key.clone(), request).await {
                    Ok(response) => return Ok(response),
                    Err(Failed { unsent: Some(unsent), .. }) => request = unsent,
                    Err(failed) => return Err(failed.into()),
                }
            }
            let io = client.connector.clone().oneshot(to).await?;
            let handshake = http1::Builder::new().max_buf_size(64 * 1024).handshake(TokioIo::new(io)).await;
            let (sender, connection) = handshake.map_err(exchange)?;
            // Ends with the connection: when the peer closes it or nobody has a use for it.
            tokio::spawn(connection.with_upgrades());
            client.send(sender, key, request).await.map_err(Into::into)
        })
    }
}

impl<C> HttpClient<C> {
    async fn send(
        &self,
        mut sender: http1::SendRequest<Body>,
        key: Key,
        request: Request<Body>,
    ) -> Result<Response<Body>, Failed> {
        match sender.try_send_request(request).await {
            Ok(response) => {
                let pool = Arc::clone(&self.pool);
                // Ends when the answer has been read, or with the connection.
                tokio::spawn(async move {
                    if sender.ready().await.is_ok() {
                        pool.put(key, sender);
                    }
                });
                Ok(response.map(Body::from))
            }
            Err(mut error) => {
                let unsent = error.take_message();
                Err(Failed { unsent, error: error.into_error() })
            }
        }
    }
}

/// A request that got no answer, and the request itself if nothing of it was sent.
struct Failed {
    unsent: Option<Request<Body>>,
    error: hyper::Error,
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed.unsent {
            Some(_) => Self::Http(Box::new(HttpError::Unsent(failed.error))),
            None => exchange(failed.error),
        }
    }
}

fn exchange(source: hyper::Error) -> Error {
    Error::Http(Box::new(HttpError::Exchange { side: Side::Server, source }))
}

/// The form in which a server is asked: the path alone, the authority in `Host`.
fn origin_form(mut request: Request<Body>) -> Request<Body> {
    if let Some(authority) = request.uri().authority()
        && !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    if request.uri().authority().is_some() {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    }
    request
}

/// A request is made again only if it has no body.
impl Replay for Request<Body> {
    fn replay(&self) -> Option<Self> {
        if !http_body::Body::is_end_stream(self.body()) {
            return None;
        }
        let mut request = Self::new(Body::empty());
        *request.method_mut() = self.method().clone();
        *request.uri_mut() = self.uri().clone();
        *request.version_mut() = self.version();
        *request.headers_mut() = self.headers().clone();
        *request.extensions_mut() = self.extensions().clone();
        Some(request)
    }
}
