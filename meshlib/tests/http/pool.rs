//! Connections to backends: which are used again, by whom, and what happens if one is gone.

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Metadata;
use meshlib::Protocol;
use meshlib::Session;
use meshlib::TcpConnector;
use meshlib::To;
use meshlib::http::Body;
use meshlib::http::ClientLayer;
use meshlib::http::HttpClient;
use meshlib::http::PoolOptions;
use meshlib::test_util::TestCa;
use meshlib::tls::ConnectTls;
use meshlib::tls::Fallback;
use meshlib::tls::TlsPolicy;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower::Layer;
use tower::ServiceExt;

use super::rig::Setup;
use super::wire::Wire;
use super::wire::soon;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A client above a connector, and a backend.
struct Rig {
    listener: TcpListener,
    client: HttpClient<TcpConnector>,
    endpoint: Endpoint,
}

type Answered = JoinHandle<Result<Bytes, Error>>;

impl Rig {
    async fn new(layer: ClientLayer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new(listener.local_addr().unwrap());
        Self { listener, client: layer.layer(TcpConnector::default()), endpoint }
    }

    async fn pooled(options: PoolOptions) -> Self {
        Self::new(ClientLayer::new().pool(options)).await
    }

    /// Sends a request and reads its answer.
    fn ask(&self, request: Request<Body>) -> Answered {
        let client = self.client.clone();
        let to = To::new(self.endpoint.clone(), request);
        tokio::spawn(async move { read(client.oneshot(to).await?).await })
    }

    fn get(&self) -> Answered {
        self.ask(request("GET"))
    }

    async fn accept(&self) -> Wire {
        Wire::accept(&self.listener).await
    }

    /// One exchange on a new connection, which stays open.
    async fn warm(&self) -> Wire {
        let asked = self.get();
        let mut backend = self.accept().await;
        serve(&mut backend).await;
        assert_eq!(soon(asked).await.unwrap().unwrap(), "ok");
        backend
    }
}

async fn read(answer: http::Response<Body>) -> Result<Bytes, Error> {
    Ok(answer.into_body().collect(1 << 20).await.unwrap())
}

fn request(method: &str) -> Request<Body> {
    Request::builder().method(method).uri("/").header("host", "a").body(Body::empty()).unwrap()
}

async fn serve(backend: &mut Wire) {
    backend.head().await;
    backend.send(OK).await;
}

#[tokio::test]
async fn a_connection_is_used_again_and_the_latest_first() {
    let rig = Rig::pooled(PoolOptions::default()).await;
    // Two at a time, so that there are two connections.
    let (a, b) = (rig.get(), rig.get());
    let (mut first, mut second) = (rig.accept().await, rig.accept().await);
    serve(&mut first).await;
    let (ended, other) = soon(futures::future::select(a, b)).await.factor_first();
    assert_eq!(ended.unwrap().unwrap(), "ok");
    serve(&mut second).await;
    assert_eq!(soon(other).await.unwrap().unwrap(), "ok");

    for _ in 0..3 {
        let again = rig.get();
        serve(&mut second).await;
        assert_eq!(soon(again).await.unwrap().unwrap(), "ok");
    }

    drop(rig);
    assert_eq!(first.rest().await, b"", "nothing was asked of the other");
}

#[tokio::test]
async fn an_answer_that_came_as_a_whole_gives_its_connection_back_before_it_is_read() {
    let rig = Rig::pooled(PoolOptions::default()).await;
    let mut backend = rig.warm().await;

    let mut answers = Vec::new();
    for _ in 0..3 {
        let answered =
            tokio::spawn(rig.client.clone().oneshot(To::new(rig.endpoint.clone(), request("GET"))));
        serve(&mut backend).await;
        answers.push(soon(answered).await.unwrap().unwrap());
    }

    for answer in answers {
        assert!(answer.body().is_whole());
        assert_eq!(read(answer).await.unwrap(), "ok");
    }
}

#[tokio::test]
async fn an_answer_of_which_a_part_came_with_its_head_is_read_to_its_end() {
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n";
    for (text, length) in [(whole, Some(4)), (chunked, None)] {
        let head = text.find("\r\n\r\n").unwrap() + 4;
        for cut in head..text.len() {
            let rig = Rig::pooled(PoolOptions::default()).await;
            let answered =
                tokio::spawn(rig.client.clone().oneshot(To::new(rig.endpoint.clone(), request("GET"))));
            let mut backend = rig.accept().await;
            backend.head().await;
            backend.send(&text[..cut]).await;
            let answer = soon(answered).await.unwrap().unwrap();
            assert!(!answer.body().is_whole(), "{text:?} up to {cut}");
            assert_eq!(http_body::Body::size_hint(answer.body()).exact(), length, "{text:?} up to {cut}");

            backend.send(&text[cut..]).await;
            assert_eq!(soon(read(answer)).await.unwrap(), "abcd", "{text:?} up to {cut}");
            let again = rig.get();
            serve(&mut backend).await;
            assert_eq!(soon(again).await.unwrap().unwrap(), "ok", "the connection is used again");
        }
    }
}

#[tokio::test]
async fn a_request_is_sent_at_once_and_of_many_after_those_that_came_with_it_were_read() {
    for (others, at_once) in [(0, true), (7, true), (8, false)] {
        let rig = Rig::pooled(PoolOptions::default()).await;
        let mut asked: Vec<_> = (0..=others).map(|_| rig.get()).collect();
        let mut backends = Vec::new();
        for _ in &asked {
            let (mut backend, _) = rig.listener.accept().await.unwrap();
            assert!(backend.read(&mut [0; 1024]).await.unwrap() > 0);
            backends.push(backend);
        }
        // One is answered, and the others are not.
        let mut backend = backends.pop().unwrap();
        backend.write_all(OK.as_bytes()).await.unwrap();
        let (answered, _, asked) = soon(futures::future::select_all(asked.drain(..))).await;
        answered.unwrap().unwrap();
        assert_eq!(asked.len(), others);

        let to = To::new(rig.endpoint.clone(), request("GET"));
        let mut answer = std::pin::pin!(rig.client.clone().oneshot(to));
        assert!(futures::poll!(&mut answer).is_pending());
        // Asks the kernel, which tokio's stream may know better than to do.
        let mut backend = backend.into_std().unwrap();
        let sent = backend.read(&mut [0; 1024]);
        assert_eq!(sent.is_ok(), at_once, "beside {others}: {sent:?}");
        if sent.is_err() {
            assert!(futures::poll!(&mut answer).is_pending());
            assert!(backend.read(&mut [0; 1024]).unwrap() > 0);
        }

        let mut backend = TcpStream::from_std(backend).unwrap();
        backend.write_all(OK.as_bytes()).await.unwrap();
        assert_eq!(soon(answer).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn as_many_connections_are_kept_as_were_used_at_a_time() {
    let rig = Rig::pooled(PoolOptions::default()).await;
    let mut backends = Vec::new();
    for _ in 0..3 {
        let asked: Vec<_> = (0..100).map(|_| rig.get()).collect();
        while backends.len() < asked.len() {
            backends.push(rig.accept().await);
        }
        for backend in &mut backends {
            serve(backend).await;
        }
        for asked in asked {
            assert_eq!(soon(asked).await.unwrap().unwrap(), "ok");
        }
    }
}

#[tokio::test]
async fn idle_connections_beyond_the_limit_are_closed() {
    let rig = Rig::pooled(PoolOptions::default().with_max_idle(1)).await;
    let asked = [rig.get(), rig.get(), rig.get()];
    let mut backends = [rig.accept().await, rig.accept().await, rig.accept().await];
    for backend in &mut backends {
        serve(backend).await;
    }
    for asked in asked {
        soon(asked).await.unwrap().unwrap();
    }

    let mut ends: Vec<_> =
        backends.into_iter().map(|mut backend| tokio::spawn(async move { backend.rest().await })).collect();
    for _ in 0..2 {
        let (ended, _, rest) = soon(futures::future::select_all(ends)).await;
        assert_eq!(ended.unwrap(), b"");
        ends = rest;
    }
    assert!(!ends[0].is_finished(), "one is kept");
    drop(rig);
    soon(ends.remove(0)).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_idle_for_long_is_closed() {
    let rig = Rig::pooled(PoolOptions::default().with_idle_timeout(Duration::from_millis(50))).await;

    let mut backend = rig.warm().await;

    assert_eq!(backend.rest().await, b"");
    rig.warm().await;
}

#[tokio::test]
async fn forgetting_an_endpoint_closes_its_connections() {
    let rig = Rig::pooled(PoolOptions::default()).await;
    let mut idle = rig.warm().await;
    let busy = rig.get();
    idle.head().await;
    let other = rig.get();
    let mut used = rig.accept().await;
    used.head().await;
    idle.send(OK).await;
    soon(busy).await.unwrap().unwrap();

    rig.client.forget(rig.endpoint.addr);

    assert_eq!(idle.rest().await, b"");
    used.send(OK).await;
    assert_eq!(soon(other).await.unwrap().unwrap(), "ok", "what is in use ends first");
    assert_eq!(used.rest().await, b"");
    rig.warm().await;
}

#[tokio::test]
async fn what_a_backend_says_unasked_is_no_answer() {
    let rig = Rig::pooled(PoolOptions::default()).await;
    let mut backend = rig.warm().await;

    backend.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;

    assert_eq!(backend.rest().await, b"", "it is hung up on");
    rig.warm().await;
}

#[tokio::test]
async fn a_kept_connection_that_closes_is_not_held_against_a_get() {
    let rig = Rig::pooled(PoolOptions::default()).await;
    for method in ["GET", "DELETE", "OPTIONS"] {
        let mut backend = rig.warm().await;
        let asked = rig.ask(request(method));
        backend.head().await;
        drop(backend);

        let error = soon(asked).await.unwrap().unwrap_err();

        assert!(error.is_retryable(), "{method}: {}", error.chain());
    }
    let mut backend = rig.warm().await;
    let asked = rig.ask(request("POST"));
    backend.head().await;
    drop(backend);
    let error = soon(asked).await.unwrap().unwrap_err();
    assert!(!error.is_retryable(), "POST: {}", error.chain());
    let asked = rig.get();
    let mut backend = rig.accept().await;
    backend.head().await;
    drop(backend);
    let error = soon(asked).await.unwrap().unwrap_err();
    assert!(!error.is_retryable(), "a new connection that breaks is no stale one: {}", error.chain());
}

#[tokio::test]
async fn a_stale_connection_costs_a_get_nothing_and_is_no_reason_to_send_a_post_twice() {
    for method in ["GET", "POST"] {
        // One backend answers every second request of a connection by closing it.
        let (fickle, steady) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut endpoints = Vec::new();
        for (seen, patience) in [(&fickle, 1), (&steady, usize::MAX)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            endpoints.push(Endpoint::new(listener.local_addr().unwrap()));
            tokio::spawn(backend(listener, Arc::clone(seen), patience));
        }
        let proxy = Setup::to_each(endpoints).start().await;
        let mut client = proxy.connect().await;

        let (mut answered, mut failed) = (0, 0);
        for _ in 0..40 {
            client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")).await;
            match client.answer().await.status {
                200 => answered += 1,
                502 => failed += 1,
                other => panic!("{other}"),
            }
        }

        let seen = fickle.load(Ordering::Relaxed) + steady.load(Ordering::Relaxed);
        if method == "GET" {
            assert_eq!((answered, failed), (40, 0));
            assert!(seen > 40, "none was sent twice");
        } else {
            assert!(failed > 0 && answered > 0, "{answered} answered, {failed} failed");
            assert_eq!(seen, 40, "each was sent once");
        }
    }
}

#[tokio::test]
async fn a_stale_connection_to_the_only_backend_costs_a_get_nothing() {
    let seen = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    tokio::spawn(backend(listener, Arc::clone(&seen), 1));
    let proxy = Setup::to_each(vec![endpoint]).start().await;
    let mut client = proxy.connect().await;

    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
    }

    assert!(seen.load(Ordering::Relaxed) > 20, "none was sent twice");
}

/// Serves one connection after another, counts requests, and closes instead of answering more than `patience` of one.
async fn backend(listener: TcpListener, seen: Arc<AtomicUsize>, patience: usize) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut wire = Wire::new(stream);
        let mut answered = 0;
        while wire.until(b"\r\n\r\n").await.is_some() {
            seen.fetch_add(1, Ordering::Relaxed);
            if answered == patience {
                break;
            }
            answered += 1;
            wire.send(OK).await;
        }
    }
}

#[tokio::test]
async fn a_body_goes_to_another_endpoint_if_the_first_cannot_be_connected_to() {
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Setup::to_each([gone, listener.local_addr().unwrap()].map(Endpoint::new)).start().await;
    let mut client = proxy.connect().await;

    let mut backend: Option<Wire> = None;
    for _ in 0..8 {
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
        if backend.is_none() {
            backend = Some(Wire::accept(&listener).await);
        }
        let backend = backend.as_mut().unwrap();
        backend.expect("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
        backend.send(OK).await;
        assert_eq!(client.answer().await.status, 200);
    }
}

#[tokio::test]
async fn clients_share_no_connection_if_told_so() {
    for per_client in [false, true] {
        let rig = Rig::pooled(PoolOptions::default().with_per_client(per_client)).await;
        let from = |client: &str| {
            let mut request = request("GET");
            let mut session = Session::default();
            session.peer = Some((client.parse::<IpAddr>().unwrap(), 1).into());
            request.extensions_mut().insert(session);
            rig.ask(request)
        };
        let asked = from("192.0.2.1");
        let mut first = rig.accept().await;
        serve(&mut first).await;
        soon(asked).await.unwrap().unwrap();

        let asked = from("192.0.2.2");
        if per_client {
            let mut second = rig.accept().await;
            serve(&mut second).await;
        } else {
            serve(&mut first).await;
        }
        soon(asked).await.unwrap().unwrap();
        let asked = from("192.0.2.1");
        serve(&mut first).await;
        soon(asked).await.unwrap().unwrap();
    }
}

/// A policy that a test changes its mind about.
#[derive(Clone)]
struct Says(Arc<Mutex<ConnectTls>>);

impl Says {
    fn say(&self, decision: ConnectTls) {
        *self.0.lock().unwrap() = decision;
    }
}

impl TlsPolicy for Says {
    fn connect(&self, _: &To<Session>) -> ConnectTls {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_connection_serves_no_request_that_must_be_sent_in_another_way() {
    let tls = TestCa::new().client_tls("backend");
    let says = Says(Arc::new(Mutex::new(ConnectTls::Plaintext)));
    let rig = Rig::new(ClientLayer::new().tls(says.clone())).await;
    let mut plaintext = rig.warm().await;

    says.say(ConnectTls::Refuse);
    let refused = soon(rig.get()).await.unwrap().unwrap_err();
    assert!(matches!(refused, Error::Refused(_)), "{}", refused.chain());

    // One that fell back to plaintext under the old policy is no TLS connection under the new one.
    says.say(ConnectTls::Opportunistic {
        tls: tls.clone(),
        fallback: Fallback::Any,
        within: Duration::from_secs(5),
    });
    let asked = rig.get();
    drop(rig.accept().await);
    let mut fallen_back = rig.accept().await;
    serve(&mut fallen_back).await;
    soon(asked).await.unwrap().unwrap();
    says.say(ConnectTls::Required(tls));
    let asked = rig.get();
    drop(rig.accept().await);
    let failed = soon(asked).await.unwrap().unwrap_err();
    assert!(matches!(failed, Error::Tls { .. }), "{}", failed.chain());

    says.say(ConnectTls::Plaintext);
    let asked = rig.get();
    serve(&mut plaintext).await;
    soon(asked).await.unwrap().unwrap();
}

/// The streams of all connections of HTTP/2 that come, with the number of their connection.
fn streams(listener: TcpListener) -> mpsc::Receiver<(usize, h2::server::SendResponse<Bytes>)> {
    let (tx, rx) = mpsc::channel(16);
    tokio::spawn(async move {
        for n in 0.. {
            let mut connection = h2::server::handshake(Wire::accept(&listener).await.io).await.unwrap();
            let tx = tx.clone();
            tokio::spawn(async move {
                while let Some(Ok((_, stream))) = connection.accept().await {
                    tx.send((n, stream)).await.unwrap();
                }
            });
        }
    });
    rx
}

#[tokio::test]
async fn requests_share_a_connection_of_http2_up_to_its_limit() {
    let Rig { listener, client, endpoint } = Rig::pooled(PoolOptions::default().with_max_streams(2)).await;
    let endpoint = endpoint.with_metadata(Metadata::new().with_protocol(Protocol::Http2));
    let mut streams = streams(listener);
    let ask = || {
        let (client, to) = (client.clone(), To::new(endpoint.clone(), request("POST")));
        tokio::spawn(async move { client.oneshot(to).await.unwrap().status() })
    };

    // Twice: then both connections have room again, and no third is opened.
    for _ in 0..2 {
        let asked: Vec<_> = (0..4).map(|_| ask()).collect();
        let mut of_connection = [0; 2];
        let mut held = Vec::new();
        for _ in 0..4 {
            let (n, stream) = soon(streams.recv()).await.unwrap();
            of_connection[n] += 1;
            held.push(stream);
        }
        assert_eq!(of_connection, [2, 2]);
        for mut stream in held {
            stream.send_response(http::Response::new(()), true).unwrap();
        }
        for asked in asked {
            assert_eq!(soon(asked).await.unwrap(), 200);
        }
    }
}
