//! Requests of accepted connections, one by one to a service.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use http::Request;
use http::Response;
use http::StatusCode;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tower::Service;
use tower::ServiceExt;

use super::Body;
use super::HttpError;
use super::write_deadline::WriteDeadline;
use crate::error::Error;
use crate::error::Fault;
use crate::error::Phase;
use crate::error::Side;
use crate::session::Conn;

/// Limits on what clients may send, and on how long they may take.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// How long a client may take for the head of a request, and how long a kept connection may be silent before the
    /// next one. Default 30 s.
    pub head_within: Duration,
    /// How long a client may leave bytes untaken that are there for it. Each byte that it takes begins the time anew; a
    /// connection that was upgraded is free of it. Default 30 s.
    pub write_within: Duration,
    /// Most bytes of a head. Default 64 KiB; at least 8 KiB.
    pub max_head_bytes: usize,
    /// Most header fields of a head. Default 100.
    pub max_fields: usize,
    /// Whether answers carry the time. Default true, as RFC 9110 section 6.6.1 asks of servers with a clock.
    pub date: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            head_within: Duration::from_secs(30),
            write_within: Duration::from_secs(30),
            max_head_bytes: 64 * 1024,
            max_fields: 100,
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

    /// Sets how long a client may leave bytes untaken.
    #[must_use]
    pub fn with_write_within(mut self, limit: Duration) -> Self {
        self.write_within = limit;
        self
    }

    /// Says whether answers carry the time.
    #[must_use]
    pub fn with_date(mut self, date: bool) -> Self {
        self.date = date;
        self
    }
}

/// Speaks HTTP/1.1 with a client and hands its requests to a service.
///
/// The request carries the [`Session`](crate::Session) among its extensions. An error of the service is answered by
/// whose fault it is: 400 the client's, 502 the endpoint's (504 a timeout), 503 discovery's, 500 ours. When the server
/// drains, connections are closed after the answer that is being given.
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
        Box::pin(async move {
            let Conn { io, session, draining } = conn;
            let (io, deadline) = WriteDeadline::new(io, options.write_within);
            let handle = service_fn(move |request: Request<Incoming>| {
                let mut request = request.map(Body::from);
                request.extensions_mut().insert(session.clone());
                let answer = service.clone().oneshot(request);
                async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|error| failed(&error))) }
            });
            // A timer must be set, or hyper leaves out its deadlines.
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .auto_date_header(options.date)
                .header_read_timeout(options.head_within)
                .max_buf_size(options.max_head_bytes.max(8 * 1024))
                .max_headers(options.max_fields)
                .serve_connection(TokioIo::new(io), handle)
                .with_upgrades();
            let mut connection = std::pin::pin!(connection);
            let result = tokio::select! {
                result = connection.as_mut() => result,
                () = draining.started() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            // Whoever asked for an upgrade has the stream by now, and writes in their own time.
            deadline.lift();
            result.map_err(|source| Error::Http(Box::new(HttpError::Exchange { side: Side::Client, source })))
        })
    }
}

/// The answer to a request whose service failed. The reason is logged, not told.
fn failed(error: &Error) -> Response<Body> {
    let status = match error.fault() {
        Fault::Client => StatusCode::BAD_REQUEST,
        Fault::Server if matches!(error, Error::Timeout { .. }) => StatusCode::GATEWAY_TIMEOUT,
        Fault::Server => StatusCode::BAD_GATEWAY,
        Fault::Discovery => StatusCode::SERVICE_UNAVAILABLE,
        Fault::Local if matches!(error, Error::Timeout { phase: Phase::Request, .. }) => {
            StatusCode::GATEWAY_TIMEOUT
        }
        Fault::Local => StatusCode::INTERNAL_SERVER_ERROR,
    };
    tracing::debug!(error = %error.chain(), %status, "request failed");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::io::DuplexStream;
    use tokio::task::JoinHandle;
    use tokio::time;
    use tokio::time::Instant;

    use super::*;
    use crate::drain::Drain;
    use crate::io::Io;
    use crate::session::Session;

    const WITHIN: Duration = Duration::from_secs(10);
    const LARGE: usize = 1 << 20;

    /// A connection to a server with this service.
    fn client<S>(service: S) -> (DuplexStream, JoinHandle<Result<(), Error>>)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Error, Future: Send>
            + Clone
            + Send
            + 'static,
    {
        let (near, far) = tokio::io::duplex(1024);
        let conn = Conn::new(Io::new(near), Session::default(), Drain::new().draining());
        let options = ServerOptions::default().with_write_within(WITHIN);
        (far, tokio::spawn(HttpServer::with_options(service, options).oneshot(conn)))
    }

    fn large() -> impl Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Error,
        Future = impl Future<Output = Result<Response<Body>, Error>> + Send,
    > + Clone
    + Send {
        tower::service_fn(async |_| Ok(Response::new(Body::from(vec![b'x'; LARGE]))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_cut_off() {
        let (mut client, serving) = client(large());
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let began = Instant::now();

        let error = serving.await.unwrap().unwrap_err();

        assert_eq!(began.elapsed().as_secs(), WITHIN.as_secs());
        assert_eq!(error.fault(), Fault::Client);
        assert!(error.chain().to_string().contains("no byte was taken"), "{}", error.chain());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_gets_it_all() {
        let (mut client, serving) = client(large());
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();

        let mut taken = 0;
        loop {
            time::sleep(WITHIN / 2).await;
            match client.read(&mut [0; 16 * 1024]).await.unwrap() {
                0 => break,
                n => taken += n,
            }
        }

        assert!(taken > LARGE, "{taken}");
        serving.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_upgraded_connection_has_no_deadline() {
        let (written_tx, mut written) = tokio::sync::mpsc::channel(1);
        let service = tower::service_fn(move |mut request: Request<Body>| {
            let written = written_tx.clone();
            tokio::spawn(async move {
                let mut io = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
                written.send(io.write_all(&[b'x'; 8192]).await).await.unwrap();
            });
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "own".parse().unwrap());
            std::future::ready(Ok(response))
        });
        let (mut client, serving) = client(service);
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: own\r\n\r\n";
        client.write_all(request).await.unwrap();
        serving.await.unwrap().unwrap();

        time::sleep(10 * WITHIN).await;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();

        assert!(rest.ends_with(&[b'x'; 8192]));
        let written: io::Result<()> = written.recv().await.unwrap();
        written.unwrap();
    }
}
