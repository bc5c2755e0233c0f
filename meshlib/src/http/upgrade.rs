//! Connections that go on with another protocol than HTTP.

use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use futures::future::BoxFuture;
use futures::future::Either;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time;
use tower::BoxError;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;

use super::Accepted;
use super::Body;
use super::HttpError;
use super::exchange::streamed::Opened;
use super::headers::carries_http;
use super::write_deadline::WriteDeadline;
use crate::error::Error;
use crate::forward::ForwardOptions;
use crate::forward::forward;
use crate::io::Io;
use crate::io::Transport;

/// Grants upgrades that the endpoint grants: WebSocket and whatever else begins with `Upgrade`.
///
/// When the endpoint answers 101, the bytes of client and endpoint are [forwarded](crate::forward()) both ways until
/// both directions have ended. They are the same sockets then, so that plain connections are spliced. The exchange counts
/// as in flight for as long as it lasts, and the server waits for it when it drains. If one of both connections is not there
/// within 30 s of the answer, the other is closed.
///
/// Without this layer the client's request for an upgrade is passed on all the same, and where the endpoint grants it the
/// client gets its 101 on a connection that nobody serves: use it in every proxy, or remove `Upgrade` from requests.
///
/// A client that asks for WebSocket over HTTP/2 (RFC 8441) is served as well: the endpoint sees an upgrade of HTTP/1.1.
#[derive(Clone, Debug)]
#[must_use = "layers do nothing unless applied"]
pub struct UpgradeLayer {
    options: ForwardOptions,
}

impl UpgradeLayer {
    /// With the default options of forwarding.
    pub fn new() -> Self {
        Self { options: ForwardOptions::default() }
    }

    /// Sets how bytes are forwarded, and for how long nothing may move.
    pub fn forward(mut self, options: ForwardOptions) -> Self {
        self.options = options;
        self
    }
}

impl Default for UpgradeLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for UpgradeLayer {
    type Service = Upgrade<S>;

    fn layer(&self, inner: S) -> Upgrade<S> {
        Upgrade { inner, options: self.options.clone() }
    }
}

/// Grants upgrades; made by [`UpgradeLayer`].
#[derive(Clone, Debug)]
pub struct Upgrade<S> {
    inner: S,
    options: ForwardOptions,
}

impl<S> Service<Request<Body>> for Upgrade<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let protocol = request.extensions().get::<Protocol>().filter(|_| request.method() == Method::CONNECT);
        if protocol.is_some_and(|protocol| carries_http(protocol.as_ref())) {
            let refused = Error::Http(Box::new(HttpError::Malformed("it asks for HTTP inside HTTP")));
            return Either::Right(Box::pin(ready(Err(refused))));
        }
        let over_http2 = protocol.is_some();
        if !over_http2 && !request.headers().contains_key(header::UPGRADE) {
            return Either::Left(self.inner.call(request));
        }
        let client = hyper::upgrade::on(&mut request);
        let accepted = request.extensions().get::<Accepted>().cloned();
        if over_http2 {
            to_http1(&mut request);
        }
        let (inner, options) = (self.inner.clone(), self.options.clone());
        Either::Right(Box::pin(async move {
            let mut answer = inner.oneshot(request).await?;
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Ok(answer);
            }
            let server = answer.extensions_mut().remove::<Opened>();
            // What the answer holds, the load of its endpoint, lasts as long as the bytes flow.
            let held = std::mem::take(answer.body_mut());
            let tunnel = async move {
                join(client, server, &options).await;
                drop(held);
            };
            match accepted {
                Some(accepted) => accepted.go_on(tunnel),
                None => drop(tokio::spawn(tunnel)),
            }
            if over_http2 {
                to_http2(&mut answer);
            }
            Ok(answer)
        }))
    }
}

/// Forwards between both sides once each is there.
async fn join(client: OnUpgrade, server: Option<Opened>, options: &ForwardOptions) {
    let client = async { client.await.map_err(BoxError::from) };
    let server = async {
        let server = server.ok_or("it was granted by a service that has no connection for it")?;
        server.take().await.ok_or_else(|| BoxError::from("the endpoint's connection broke"))
    };
    let both = time::timeout(TOLD_WITHIN, futures::future::try_join(client, server)).await;
    let (client, mut server) = match both {
        Ok(Ok(both)) => both,
        Ok(Err(error)) => {
            tracing::debug!(%error, "an upgrade did not come about");
            return;
        }
        Err(_) => {
            tracing::debug!(after = ?TOLD_WITHIN, "an upgrade did not come about");
            return;
        }
    };
    let mut client = accepted_io(client);
    if let Err(error) = forward(&mut client, &mut server, options).await {
        tracing::debug!(error = %error.chain(), "an upgraded connection ended");
    }
}

/// How long it may take from an endpoint's consent until both streams are there. Of both messages nothing is missing by then
/// but what a connection has not written yet, and a write may take as long as this ([`ServerOptions::write_within`]).
///
/// [`ServerOptions::write_within`]: super::ServerOptions::write_within
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// The stream of a client.
fn accepted_io(upgraded: Upgraded) -> Io {
    match upgraded.downcast::<TokioIo<WriteDeadline<Io>>>() {
        Ok(parts) => parts.io.into_inner().into_inner().replaying(BytesMut::from(parts.read_buf)),
        Err(upgraded) => Io::new(Tunnel(TokioIo::new(upgraded))),
    }
}

/// RFC 8441 section 5: what an HTTP/1.1 server must be asked for the same thing.
fn to_http1(request: &mut Request<Body>) {
    let Some(protocol) = request.extensions_mut().remove::<Protocol>() else { return };
    *request.method_mut() = Method::GET;
    *request.body_mut() = Body::empty();
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(protocol) = HeaderValue::from_str(protocol.as_str()) {
        headers.insert(header::UPGRADE, protocol);
    }
    headers.remove(header::CONTENT_LENGTH);
    // RFC 6455 section 4.1: 16 random bytes. Nobody checks the answer, for the client has no use for it.
    let mut key = [b'A'; 24];
    for digit in &mut key[..21] {
        *digit = fastrand::alphanumeric() as u8;
    }
    key[22..].copy_from_slice(b"==");
    if let Ok(key) = HeaderValue::from_bytes(&key) {
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
}

/// The answer in HTTP/2: 200, without what belongs to the handshake of HTTP/1.1.
fn to_http2(answer: &mut Response<Body>) {
    *answer.status_mut() = StatusCode::OK;
    let headers: &mut HeaderMap = answer.headers_mut();
    for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT] {
        headers.remove(name);
    }
}

/// A stream inside an HTTP/2 connection.
struct Tunnel(TokioIo<Upgraded>);

impl Transport for Tunnel {}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future;

    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use tokio::io::AsyncWriteExt;
    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;

    /// An upgrade that a client has asked for, of a connection that neither ends nor goes on.
    async fn asked() -> (OnUpgrade, DuplexStream) {
        let (near, mut far) = tokio::io::duplex(1024);
        let (asked_tx, mut asked) = mpsc::channel(1);
        let service = service_fn(move |mut request| {
            asked_tx.try_send(hyper::upgrade::on(&mut request)).unwrap();
            future::pending::<Result<Response<Body>, Infallible>>()
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(near), service).with_upgrades());
        far.write_all(b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: own\r\n\r\n").await.unwrap();
        (asked.recv().await.unwrap(), far)
    }

    #[tokio::test(start_paused = true)]
    async fn an_upgrade_that_does_not_come_about_is_not_waited_for() {
        let (client, _client) = asked().await;
        let (_server, opened) = oneshot::channel();
        let server = Opened::new(opened);
        let (held, mut freed) = mpsc::channel::<()>(1);
        let service = tower::service_fn(move |_: Request<Body>| {
            let mut answer = Response::new(Body::empty().holding(held.clone()));
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            answer.extensions_mut().insert(server.clone());
            ready(Ok(answer))
        });
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("own"));
        request.extensions_mut().insert(client);
        let answer = UpgradeLayer::new().layer(service).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        let began = Instant::now();

        let freed = time::timeout(2 * TOLD_WITHIN, freed.recv()).await;

        assert_eq!(freed, Ok(None), "what the answer holds is dropped");
        assert_eq!(began.elapsed().as_secs(), TOLD_WITHIN.as_secs());
    }
}
