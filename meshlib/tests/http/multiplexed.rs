//! HTTP/2 from end to end, agreed on in TLS handshakes: what gRPC needs.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use meshlib::http::ALPN;
use meshlib::http::ClientLayer;
use meshlib::test_util::TestCa;
use meshlib::tls::Always;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;
use tokio_rustls::client;

use super::rig::Proxy;
use super::rig::Setup;
use super::wire::soon;

/// A stream as the backend sees it.
type Stream = (Request<h2::RecvStream>, h2::server::SendResponse<Bytes>);

struct Rig {
    proxy: Proxy,
    streams: mpsc::Receiver<Stream>,
    requests: h2::client::SendRequest<Bytes>,
}

impl Rig {
    /// A client, the proxy and a backend, with TLS between each two.
    async fn new() -> Self {
        let ca = TestCa::new();
        let config = |name| {
            let mut config = ca.server_config([name]);
            Arc::make_mut(&mut config).alpn_protocols = ALPN.map(Vec::from).into();
            config
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let setup = Setup::to(listener.local_addr().unwrap());
        let streams = streams(listener, TlsAcceptor::from(config("backend")));
        let client = ClientLayer::new().tls(Always::new(ca.client_tls("backend")));
        let proxy = Setup { client, tls: Some(config("proxy")), ..setup }.start().await;

        let mut config = ca.client_config();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let socket = TcpStream::connect(proxy.addr).await.unwrap();
        let name = "proxy".try_into().unwrap();
        let tls = soon(TlsConnector::from(Arc::new(config)).connect(name, socket)).await.unwrap();
        let (requests, connection): (_, h2::client::Connection<client::TlsStream<TcpStream>>) =
            soon(h2::client::handshake(tls)).await.unwrap();
        tokio::spawn(connection);
        Self { proxy, streams, requests }
    }

    /// Begins a call.
    async fn call(&mut self) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        soon(poll_fn(|cx| self.requests.poll_ready(cx))).await.unwrap();
        let request = Request::post("https://proxy/a.B/C").header("te", "trailers").body(()).unwrap();
        self.requests.send_request(request, false).unwrap()
    }

    /// The call as it arrives.
    async fn stream(&mut self) -> Stream {
        soon(self.streams.recv()).await.unwrap()
    }
}

/// What comes over all connections.
fn streams(listener: TcpListener, acceptor: TlsAcceptor) -> mpsc::Receiver<Stream> {
    let (tx, rx) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, tx) = (acceptor.clone(), tx.clone());
            tokio::spawn(async move {
                let tls = acceptor.accept(socket).await.unwrap();
                assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                let mut connection = h2::server::handshake(tls).await.unwrap();
                while let Some(Ok(stream)) = connection.accept().await {
                    let last = stream.0.uri().path() == "/last";
                    tx.send(stream).await.unwrap();
                    if last {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    rx
}

async fn data(stream: &mut h2::RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = soon(stream.data()).await;
    if let Some(Ok(data)) = &data {
        stream.flow_control().release_capacity(data.len()).unwrap();
    }
    data
}

fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
    [(name.parse().unwrap(), value.parse().unwrap())].into_iter().collect()
}

#[tokio::test]
async fn a_call_streams_both_ways_and_ends_with_trailers() {
    let mut rig = Rig::new().await;
    let (answer, mut up) = rig.call().await;
    let (request, mut respond) = rig.stream().await;
    assert_eq!(request.uri(), "https://proxy/a.B/C");
    assert_eq!(request.headers()["te"], "trailers");
    assert!(!request.headers().contains_key("host"));
    let mut down = respond.send_response(Response::new(()), false).unwrap();
    let mut answer = soon(answer).await.unwrap().into_body();
    let mut asked = request.into_body();

    for n in 0..3 {
        up.send_data(format!("up {n}").into(), false).unwrap();
        assert_eq!(data(&mut asked).await.unwrap().unwrap(), format!("up {n}"));
        down.send_data(format!("down {n}").into(), false).unwrap();
        assert_eq!(data(&mut answer).await.unwrap().unwrap(), format!("down {n}"));
    }
    up.send_trailers(trailers("sum", "1")).unwrap();
    assert!(data(&mut asked).await.is_none());
    assert_eq!(soon(asked.trailers()).await.unwrap(), Some(trailers("sum", "1")));
    down.send_trailers(trailers("grpc-status", "0")).unwrap();

    assert!(data(&mut answer).await.is_none());
    assert_eq!(soon(answer.trailers()).await.unwrap(), Some(trailers("grpc-status", "0")));
    soon(async {
        while rig.proxy.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(rig.proxy.failed(), 0);
}

#[tokio::test]
async fn an_answer_that_is_a_head_alone_stays_one() {
    let mut rig = Rig::new().await;
    let (answer, _up) = rig.call().await;
    let (_request, mut respond) = rig.stream().await;

    let only = Response::builder().header("grpc-status", "12").body(()).unwrap();
    respond.send_response(only, true).unwrap();

    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12");
    assert!(data(&mut answer.into_body()).await.is_none());
}

#[tokio::test]
async fn an_answer_that_is_reset_does_not_end() {
    let mut rig = Rig::new().await;
    let (answer, _up) = rig.call().await;
    let (_request, mut respond) = rig.stream().await;
    let mut down = respond.send_response(Response::new(()), false).unwrap();
    down.send_data("half".into(), false).unwrap();
    let mut answer = soon(answer).await.unwrap().into_body();
    assert_eq!(data(&mut answer).await.unwrap().unwrap(), "half");

    down.send_reset(h2::Reason::INTERNAL_ERROR);

    let error = data(&mut answer).await.expect("an error is no end").unwrap_err();
    assert!(error.is_reset() && error.is_remote(), "{error}");
}

#[tokio::test]
async fn a_call_that_is_taken_back_is_taken_back_from_the_backend() {
    let mut rig = Rig::new().await;
    let (answer, mut up) = rig.call().await;
    let (request, mut respond) = rig.stream().await;
    let mut down = respond.send_response(Response::new(()), false).unwrap();
    soon(answer).await.unwrap();

    up.send_reset(h2::Reason::CANCEL);

    let reason = soon(poll_fn(|cx| down.poll_reset(cx))).await.unwrap();
    assert_eq!(reason, h2::Reason::CANCEL);
    drop(request);
    assert_eq!(rig.proxy.failed(), 0);
}

#[tokio::test]
async fn a_backend_that_closes_its_connection_gets_another_one() {
    let mut rig = Rig::new().await;
    for path in ["/first", "/last", "/next"] {
        soon(poll_fn(|cx| rig.requests.poll_ready(cx))).await.unwrap();
        let request = Request::get(format!("https://proxy{path}")).body(()).unwrap();
        let (answer, _) = rig.requests.send_request(request, true).unwrap();
        let (request, mut respond) = rig.stream().await;
        assert_eq!(request.uri().path(), path);

        respond.send_response(Response::new(()), true).unwrap();

        assert_eq!(soon(answer).await.unwrap().status(), 200);
    }
}
