//! Connections that go on with another protocol.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::frames;
use super::frames::DATA;
use super::frames::END_HEADERS;
use super::frames::END_STREAM;
use super::frames::Fate;
use super::frames::HEADERS;
use super::frames::block;
use super::frames::frame;
use super::rig::Proxy;
use super::rig::Setup;
use super::wire::Wire;
use super::wire::soon;

const ASK: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
const GRANT: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
const CONNECT: [(&str, &str); 6] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":path", "/chat"),
    (":authority", "a"),
    ("sec-websocket-version", "13"),
];

async fn proxy() -> (TcpListener, Proxy) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Setup::to(listener.local_addr().unwrap()).start().await;
    (listener, proxy)
}

/// A client and a backend with a tunnel between them.
async fn upgraded(listener: &TcpListener, proxy: &Proxy) -> (Wire, Wire) {
    let mut client = proxy.connect().await;
    client.send(ASK).await;
    let mut backend = Wire::accept(listener).await;
    let head = backend.head().await;
    assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
    backend.send(GRANT).await;
    client.expect(GRANT).await;
    (client, backend)
}

async fn until_idle(proxy: &Proxy) {
    soon(async {
        while proxy.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn bytes_pass_both_ways_until_both_have_ended() {
    let (listener, proxy) = proxy().await;
    let (mut client, mut backend) = upgraded(&listener, &proxy).await;
    assert_eq!(proxy.in_flight(), 1);

    for n in 0..3 {
        client.send(format!("ping {n}")).await;
        backend.expect(format!("ping {n}")).await;
        backend.send(format!("pong {n}")).await;
        client.expect(format!("pong {n}")).await;
    }
    client.io.shutdown().await.unwrap();
    assert_eq!(backend.rest().await, b"");
    backend.send("the other half goes on").await;
    client.expect("the other half goes on").await;
    assert_eq!(proxy.in_flight(), 1);

    drop(backend);
    assert_eq!(client.rest().await, b"");
    until_idle(&proxy).await;
}

#[tokio::test]
async fn bytes_that_come_with_the_heads_are_not_lost() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send(format!("{ASK}early")).await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;

    backend.send(format!("{GRANT}first")).await;

    client.expect(format!("{GRANT}first")).await;
    backend.expect("early").await;
}

#[tokio::test]
async fn an_upgrade_that_is_refused_is_a_request_like_others() {
    for status in ["200 OK", "404 Not Found", "426 Upgrade Required"] {
        let (listener, proxy) = proxy().await;
        let mut client = proxy.connect().await;
        // What follows is the next request, not the beginning of another protocol.
        client.send(format!("{ASK}GET /next HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let mut backend = Wire::accept(&listener).await;
        backend.head().await;

        backend.send(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno")).await;
        assert_eq!(client.answer().await.body, b"no");
        backend.expect("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await;
        backend.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;

        assert_eq!(client.answer().await.body, b"ok");
        until_idle(&proxy).await;
    }
}

#[tokio::test]
async fn an_upgraded_connection_is_waited_for_in_a_drain() {
    let (listener, proxy) = proxy().await;
    let (mut client, mut backend) = upgraded(&listener, &proxy).await;

    proxy.drain.start();
    client.send("ping").await;
    backend.expect("ping").await;
    backend.send("pong").await;
    client.expect("pong").await;
    assert!(!proxy.serving.is_finished());

    drop((client, backend));
    soon(proxy.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_upgrade_that_is_granted_in_a_drain_comes_about() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send(ASK).await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;

    proxy.drain.start();
    backend.send(GRANT).await;

    client.expect(GRANT).await;
    client.send("ping").await;
    backend.expect("ping").await;
}

#[tokio::test]
async fn a_tunnel_of_http2_ends_in_an_upgrade_of_http1() {
    let (listener, proxy) = proxy().await;
    let mut client = frames::connect(proxy.addr).await;
    client.send(frame(HEADERS, END_HEADERS, 1, &block(&CONNECT))).await;
    let mut backend = Wire::accept(&listener).await;
    let head = backend.head().await;
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    for field in ["host: a", "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"] {
        assert!(head.contains(&format!("{field}\r\n")), "{head}");
    }
    assert_eq!(head.matches("sec-websocket-key: ").count(), 1, "{head}");
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");

    backend.send(GRANT).await;
    assert_eq!(frames::fate(&mut client, 1).await, frames::OK);
    client.send(frame(DATA, 0, 1, b"ping")).await;
    backend.expect("ping").await;
    backend.send("pong").await;
    assert_eq!(data(&mut client).await, (0, b"pong".to_vec()));
    assert_eq!(proxy.in_flight(), 1);
    // Half of it ends, then the other.
    client.send(frame(DATA, END_STREAM, 1, b"")).await;
    assert_eq!(backend.rest().await, b"");
    backend.send("last").await;
    assert_eq!(data(&mut client).await, (0, b"last".to_vec()));
    drop(backend);
    assert_eq!(data(&mut client).await, (END_STREAM, Vec::new()));
    until_idle(&proxy).await;
}

#[tokio::test]
async fn a_tunnel_that_is_refused_is_answered() {
    let (listener, proxy) = proxy().await;
    let mut client = frames::connect(proxy.addr).await;
    client.send(frame(HEADERS, END_HEADERS, 1, &block(&CONNECT))).await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;

    backend.send("HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno").await;

    assert_eq!(frames::fate(&mut client, 1).await, Fate::Answered(0x8d));
    assert_eq!(data(&mut client).await.1, b"no");
}

#[tokio::test]
async fn a_tunnel_to_http_itself_is_refused() {
    let (_listener, proxy) = proxy().await;
    let mut client = frames::connect(proxy.addr).await;
    let mut fields = CONNECT.to_vec();
    fields[1].1 = "h2c";

    client.send(frame(HEADERS, END_HEADERS, 1, &block(&fields))).await;

    assert_eq!(frames::fate(&mut client, 1).await, frames::BAD_REQUEST);
}

/// The next data of the only stream.
async fn data(client: &mut Wire) -> (u8, Vec<u8>) {
    loop {
        let (kind, flags, _, payload) = frames::next(client).await.expect("the connection goes on");
        match kind {
            DATA => return (flags, payload),
            frames::RST_STREAM | frames::GOAWAY => panic!("{kind} {payload:?}"),
            _ => {}
        }
    }
}
