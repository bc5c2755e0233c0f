//! Requests of accepted connections, one by one to a service.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use futures::TryFutureExt;
use futures::future::BoxFuture;
use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::time;
use tower::Service;

use super::Accepted;
use super::Body;
use super::HttpError;
use super::body::Unread;
use super::head_timer::HeadTimer;
use super::status;
use super::stream_deadline::Offered;
use super::stream_deadline::StreamDeadline;
use super::write_deadline::WriteDeadline;
use crate::drain::Draining;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Side;
use crate::io::Io;
use crate::once::Once;
use crate::relay::Seldom;
use crate::session::Conn;

#[cfg(test)]
mod tests;

/// Limits on what clients may send, and on how long they may take.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// How long a client may take for the head of a request, and how long a kept HTTP/1 connection may be silent before
    /// the next one. Default 30 s.
    pub head_within: Duration,
    /// How long a client may be silent in the middle of a body. Default 60 s.
    pub body_within: Duration,
    /// How long a client may leave bytes untaken that are there for it. Each byte that it takes begins the time anew; a
    /// connection that was upgraded is free of it. On HTTP/2 a stream has this long to take the next 32 KiB of its answer, or
    /// as much as there is, and is reset if it does not; the others go on. Default 30 s.
    pub write_within: Duration,
    /// How long an HTTP/2 connection may be without a request before it is closed. Default 90 s.
    pub idle_within: Duration,
    /// Most bytes of a head. Default 64 KiB; at least 8 KiB.
    pub max_head_bytes: usize,
    /// Most header fields of an HTTP/1 head. Default 100.
    pub max_fields: usize,
    /// Most requests at a time on an HTTP/2 connection. Default 250.
    pub max_streams: u32,
    /// Whether plaintext connections may begin with HTTP/2. Those in TLS agree on it in the handshake, if its
    /// configuration offers it. Default true.
    pub http2: bool,
    /// Whether a client may close its side of an HTTP/1 connection and still get the answer. Else it counts as gone then,
    /// and its request is dropped, which most servers do: a browser that leaves a page looks the same. Default false.
    pub half_close: bool,
    /// Whether answers carry the time. Default true, as RFC 9110 section 6.6.1 asks of servers with a clock.
    pub date: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            head_within: Duration::from_secs(30),
            body_within: Duration::from_secs(60),
            write_within: Duration::from_secs(30),
            idle_within: Duration::from_secs(90),
            max_head_bytes: 64 * 1024,
            max_fields: 100,
            max_streams: 250,
            http2: true,
            half_close: false,
            date: true,
        }
    }
}

impl ServerOptions {
    /// Sets how long a client may take for a head.
    #[must_use]
    pub fn with_head_within(mut self, limit: Duration) -> Self {
        self.head_within = limit;
        self
    }

    /// Sets how long a client may be silent in the middle of a body.
    #[must_use]
    pub fn with_body_within(mut self, limit: Duration) -> Self {
        self.body_within = limit;
        self
    }

    /// Sets how long a client may leave bytes untaken.
    #[must_use]
    pub fn with_write_within(mut self, limit: Duration) -> Self {
        self.write_within = limit;
        self
    }

    /// Sets how long an HTTP/2 connection may be without a request.
    #[must_use]
    pub fn with_idle_within(mut self, limit: Duration) -> Self {
        self.idle_within = limit;
        self
    }

    /// Sets how many bytes a head may have.
    #[must_use]
    pub fn with_max_head_bytes(mut self, n: usize) -> Self {
        self.max_head_bytes = n;
        self
    }

    /// Sets how many header fields an HTTP/1 head may have.
    #[must_use]
    pub fn with_max_fields(mut self, n: usize) -> Self {
        self.max_fields = n;
        self
    }

    /// Sets how many requests at a time an HTTP/2 connection may have.
    #[must_use]
    pub fn with_max_streams(mut self, n: u32) -> Self {
        self.max_streams = n;
        self
    }

    /// Says whether plaintext connections may begin with HTTP/2.
    #[must_use]
    pub fn with_http2(mut self, http2: bool) -> Self {
        self.http2 = http2;
        self
    }

    /// Says whether a client may close its side and still get the answer.
    #[must_use]
    pub fn with_half_close(mut self, half_close: bool) -> Self {
        self.half_close = half_close;
        self
    }

    /// Says whether answers carry the time.
    #[must_use]
    pub fn with_date(mut self, date: bool) -> Self {
        self.date = date;
        self
    }

    fn head_bytes(&self) -> usize {
        self.max_head_bytes.max(8 * 1024)
    }
}

/// Speaks HTTP/1.1 and HTTP/2 with a client and hands its requests to a service.
///
/// HTTP/2 is spoken if the TLS handshake agreed on it ([`http::ALPN`](super::ALPN) is what its configuration offers), or
/// if a plaintext connection begins with its preface.
///
/// The request carries what it came over ([`Accepted`]) among its extensions. An error of the service is answered by
/// whose fault it is, as [`status::of`] says. When the server drains, a connection is closed after the answers that are
/// being given: those to all requests whose bytes had arrived.
///
/// An answer may come before the request's body has been read. Over HTTP/2 what the client goes on to send is then taken and
/// thrown away, up to 16 MiB and for 10 s, since several clients lose the answer if their stream is reset.
///
/// Some answers do not come from the service, which does not hear of them, so that they are in no access log of its. Over
/// HTTP/1.1 a head that is none is answered with 400, one that is larger or has more fields than the
/// [options](ServerOptions) allow with 431, where they allow larger ones a target above 65,534 bytes with 414, and the
/// connection is closed. Over HTTP/2 a malformed head resets its stream, one that is too large is answered with 431.
///
/// # Examples
///
/// HTTPS with HTTP/2 and HTTP/1.1:
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use http::{Request, Response};
/// use meshlib::http::{Body, HttpServer};
/// use meshlib::tls::{self, CertResolver, Terminate, pem};
/// use meshlib::{Drain, Error, Server, TlsLayer};
/// use tower::Layer;
///
/// let hello = tower::service_fn(|_: Request<Body>| async {
///     Ok::<_, Error>(Response::new(Body::from("hello\n")))
/// });
///
/// let provider = tls::provider();
/// let www = pem::certified_key(&provider, ["chain.pem"], "key.pem")?;
/// let certs = CertResolver::builder().with_name("www.example.com", www).build();
/// let config = tls::http_server_config(provider, certs)?;
///
/// let service = TlsLayer::new(Terminate::new(config)).layer(HttpServer::new(hello));
/// Server::bind("[::]:443").await?.serve(service, Drain::on_signals()).await?;
/// # Ok(())
/// # }
/// ```
///
/// [`tls::Reloading`](crate::tls::Reloading) follows the files, `tls::acme` gets certificates by itself (feature `acme`).
///
/// A service from elsewhere, an `axum::Router` or what is below layers of `tower-http`, has bodies and errors of its own.
/// Two lines translate them:
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use meshlib::Error;
/// use meshlib::http::{Body, HttpServer};
/// use tower::ServiceBuilder;
///
/// let elsewhere = tower::service_fn(|_: Request<Body>| async {
///     Ok::<_, std::io::Error>(Response::new(Full::new(Bytes::from("hello\n"))))
/// });
/// let service = ServiceBuilder::new()
///     .map_response(|answer: Response<_>| answer.map(Body::new))
///     .map_err(Error::other)
///     .service(elsewhere);
/// let server = HttpServer::new(service);
/// # fn is_server<S: tower::Service<meshlib::Conn>>(_: &S) {}
/// # is_server(&server);
/// ```
#[derive(Clone, Debug)]
pub struct HttpServer<S> {
    service: S,
    options: Arc<ServerOptions>,
}

impl<S> HttpServer<S> {
    /// Serves with the default limits.
    pub fn new(service: S) -> Self {
        Self::with_options(service, ServerOptions::default())
    }

    /// Serves with limits of one's own.
    pub fn with_options(service: S, options: ServerOptions) -> Self {
        Self { service, options: Arc::new(options) }
    }
}

impl<S> Service<Conn> for HttpServer<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type Response = ();
    type Error = Error;
    type Future = BoxFuture<'static, Result<(), Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, conn: Conn) -> Self::Future {
        let (service, options) = (self.service.clone(), Arc::clone(&self.options));
        match conn.session.alpn.as_deref() {
            Some(b"h2") => Box::pin(http2(conn, service, options)),
            None if options.http2 && conn.session.tls.is_none() => Box::pin(async move {
                let (conn, prior_knowledge) = look(conn, &options).await?;
                // Boxed each, so that the connection holds the state of one protocol only.
                if prior_knowledge {
                    Box::pin(http2(conn, service, options)).await
                } else {
                    Box::pin(http1(conn, service, options)).await
                }
            }),
            _ => Box::pin(http1(conn, service, options)),
        }
    }
}

async fn http1<S>(conn: Conn, service: S, options: Arc<ServerOptions>) -> Result<(), Error>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let (io, deadline) = WriteDeadline::new(conn.io, options.write_within);
    let accepted = Accepted::upgradable(conn.session, conn.draining);
    let requests = Arc::new(Requests::default());
    let body = (options.body_within, Unread::Left);
    let begin = {
        let requests = Arc::clone(&requests);
        move || {
            requests.begin();
            None
        }
    };
    let handle = service_fn(handler(service, accepted.clone(), begin, body));
    // A timer must be set, or hyper leaves out its deadlines.
    let connection = http1::Builder::new()
        .timer(HeadTimer::default())
        .half_close(options.half_close)
        .auto_date_header(options.date)
        .header_read_timeout(options.head_within)
        .max_buf_size(options.head_bytes())
        .max_headers(options.max_fields)
        .serve_connection(TokioIo::new(io), handle)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let started = Seldom::new(accepted.draining().started());
    // Biased: a connection is closed only after it has looked for another request, however late that is.
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = started => {
            let last = requests.last_call();
            tokio::select! {
                biased;
                result = connection.as_mut() => result,
                () = last => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    // Whoever asked for an upgrade has the stream by now, and writes in their own time.
    deadline.lift();
    result.map_err(client_failed)?;
    if let Some(tunnel) = accepted.take_next() {
        tunnel.await;
    }
    Ok(())
}

async fn http2<S>(conn: Conn, service: S, options: Arc<ServerOptions>) -> Result<(), Error>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let (io, _) = WriteDeadline::new(conn.io, options.write_within);
    let accepted = Accepted::new(conn.session, conn.draining);
    let requests = Arc::new(Requests::default());
    let body = (options.body_within, Unread::Discarded);
    let begin = {
        let requests = Arc::clone(&requests);
        move || Some(requests.begin_counted())
    };
    let answer = handler(service, accepted.clone(), begin, body);
    let handle = service_fn(move |request| answer(request).map_ok(|answer| answer.map(Offered::new)));
    let connection = http2::Builder::new(StreamDeadline::new(options.write_within))
        .timer(TokioTimer::new())
        .auto_date_header(options.date)
        .max_concurrent_streams(options.max_streams)
        .max_header_list_size(u32::try_from(options.head_bytes()).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(io), handle);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result.map_err(client_failed),
        () = Seldom::new(accepted.draining().started()) => {}
        () = Seldom::new(requests.idle(options.idle_within)) => {}
    }
    // GOAWAY, and what the client had sent before it saw that is still answered.
    connection.as_mut().graceful_shutdown();
    connection.await.map_err(client_failed)
}

/// Credit for one body: what a gigabit link needs at 2 ms.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Credit for all bodies of a connection. It bounds what a client can make us hold while nobody reads.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Most bytes of an answer that wait for a client's credit.
const SEND_BUFFER: usize = 128 * 1024;
/// A client that went away without a word is noticed within both together.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// How long a draining connection is looked after for a request that has arrived and was not read yet: until the
/// runtime has asked the kernel once more.
const LAST_CALL: Duration = Duration::from_millis(50);
/// The same for a connection that has had no request yet: it was taken from the queue of a server that closes, and its
/// client may be about to speak.
const FIRST_CALL: Duration = Duration::from_secs(1);

/// The requests of a connection, as far as its end depends on them.
#[derive(Debug, Default)]
struct Requests {
    begun: AtomicUsize,
    /// Counted for HTTP/2, which does not say itself when it is idle.
    in_flight: AtomicUsize,
    another: Notify,
}

impl Requests {
    fn begin(&self) {
        // Relaxed: counters, read by the same connection's task or much later.
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.another.notify_one();
    }

    fn begin_counted(self: &Arc<Self>) -> InFlight {
        self.begin();
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Waits until a draining connection may be closed: the next request has begun, or none is there.
    fn last_call(&self) -> impl Future<Output = ()> + '_ {
        let begun = self.begun.load(Ordering::Relaxed);
        let within = if begun == 0 { FIRST_CALL } else { LAST_CALL };
        async move {
            let another = async {
                while self.begun.load(Ordering::Relaxed) == begun {
                    self.another.notified().await;
                }
            };
            // Either way it is time.
            let _ = time::timeout(within, another).await;
        }
    }

    /// Waits until there was no request for so long.
    async fn idle(&self, within: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            time::sleep(within).await;
            if self.in_flight.load(Ordering::Relaxed) == 0 && self.begun.load(Ordering::Relaxed) == begun {
                return;
            }
        }
    }
}

/// A request whose answer is not complete.
struct InFlight(Arc<Requests>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What hyper calls for each request, which says that it has begun. Bodies may be silent for so long, and are left unread in
/// this way.
fn handler<S>(
    service: S,
    accepted: Accepted,
    begin: impl Fn() -> Option<InFlight> + Send,
    (body_within, unread): (Duration, Unread),
) -> impl Fn(Request<Incoming>) -> Answer<S> + Send
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error> + Clone + Send + 'static,
{
    // Called by one connection, for one request after the other.
    let service = RefCell::new(service);
    move |request| {
        let in_flight = begin();
        let mut request = request.map(|body| Body::timed(body, body_within, unread));
        request.extensions_mut().insert(accepted.clone());
        Answer { answer: Once::new(&mut *service.borrow_mut(), request), in_flight }
    }
}

/// The answer to a request, whatever became of it.
#[pin_project::pin_project]
struct Answer<S: Service<Request<Body>>> {
    #[pin]
    answer: Once<S, Request<Body>>,
    in_flight: Option<InFlight>,
}

impl<S> Future for Answer<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = std::task::ready!(this.answer.poll(cx)).unwrap_or_else(|error| status::answer(&error));
        Poll::Ready(Ok(match this.in_flight.take() {
            // A body that is there as a whole needs no guard.
            Some(in_flight) if !http_body::Body::is_end_stream(answer.body()) => {
                answer.map(|body| body.holding(in_flight))
            }
            _ => answer,
        }))
    }
}

/// Reads as much as tells whether a plaintext connection begins with HTTP/2.
async fn look(conn: Conn, options: &ServerOptions) -> Result<(Conn, bool), Error> {
    let Conn { mut io, session, draining } = conn;
    let within = options.head_within;
    let mut read = BytesMut::new();
    // Biased, for the same reason as in `http1`.
    let looked = tokio::select! {
        biased;
        looked = time::timeout(within, preface(&mut io, &mut read)) => looked,
        () = nobody(&draining) => return Err(Error::Refused(crate::error::Refusal::Draining)),
    };
    let prior_knowledge = looked
        .map_err(|_| Error::Timeout { phase: Phase::ClientHandshake, after: within })?
        .map_err(|source| Error::Http(Box::new(HttpError::Lost { side: Side::Client, source })))?;
    Ok((Conn::new(io.replaying(read), session, draining), prior_knowledge))
}

/// Waits until a draining server need not wait for a client's first byte any longer.
async fn nobody(draining: &Draining) {
    draining.started().await;
    time::sleep(FIRST_CALL).await;
}

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn preface(io: &mut Io, read: &mut BytesMut) -> std::io::Result<bool> {
    read.reserve(2048);
    loop {
        if io.read_buf(read).await? == 0 {
            return Ok(false);
        }
        let n = read.len().min(PREFACE.len());
        if read[..n] != PREFACE[..n] {
            return Ok(false);
        }
        if n == PREFACE.len() {
            return Ok(true);
        }
    }
}

fn client_failed(source: hyper::Error) -> Error {
    Error::Http(Box::new(HttpError::Exchange { side: Side::Client, source: source.into() }))
}
