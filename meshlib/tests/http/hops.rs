//! What of a head goes on, in both directions, and what is said about clients.

use std::net::IpAddr;

use meshlib::http::Forwarded;
use meshlib::http::HeadersLayer;
use tokio::net::TcpListener;

use super::frames;
use super::frames::END_HEADERS;
use super::frames::END_STREAM;
use super::frames::HEADERS;
use super::frames::block;
use super::frames::frame;
use super::recorder::Recorder;
use super::rig::Setup;
use super::wire::Wire;
use super::wire::field;

/// The lines of the head that a backend gets for this one, sorted, without the first.
async fn passed_on(headers: HeadersLayer, head: &str) -> Vec<String> {
    let recorder = Recorder::start().await;
    let proxy = Setup { headers, ..Setup::to(recorder.addr) }.start().await;
    let mut client = proxy.connect().await;

    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{head}\r\n")).await;
    assert_eq!(client.answer().await.status, 200, "{head}");

    proxy.end().await;
    let got = recorder.got().await.concat();
    let mut lines: Vec<String> =
        got.trim_end().split("\r\n").skip(1).filter(|line| *line != "host: a").map(Into::into).collect();
    lines.sort();
    lines
}

fn silent() -> HeadersLayer {
    HeadersLayer::new().forwarded(Forwarded::Untouched)
}

#[tokio::test]
async fn what_concerns_the_clients_connection_ends_with_it() {
    for (head, kept) in [
        ("connection: x, y\r\nx: 1\r\nY: 2\r\nz: 3\r\n", &["z: 3"][..]),
        ("connection: x\r\nConnection: ,  y ,\r\nx: 1\r\ny: 2\r\n", &[]),
        ("connection: x\r\nx: 1\r\nx: 2\r\n", &[]),
        ("keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n", &[]),
        ("proxy-authorization: Basic eDp5\r\nproxy-authenticate: Basic\r\n", &[]),
        ("authorization: Basic eDp5\r\n", &["authorization: Basic eDp5"]),
        ("te: gzip\r\nconnection: te\r\n", &[]),
        ("te: gzip, Trailers\r\nconnection: te\r\n", &["te: trailers"]),
        ("connection: host, content-length\r\n", &[]),
        ("upgrade: websocket\r\n", &[]),
        ("connection: upgrade\r\n", &[]),
        // Text that is not ASCII beside a name does not save that.
        ("connection: x, \u{e4}\r\nx: 1\r\n", &[]),
    ] {
        assert_eq!(passed_on(silent(), head).await, kept, "{head}");
    }
}

#[tokio::test]
async fn options_go_over_as_many_proxies_as_they_say() {
    let recorder = Recorder::start().await;
    let proxy = Setup { headers: silent(), ..Setup::to(recorder.addr) }.start().await;
    let mut client = proxy.connect().await;
    let ask = |method, max: &str| format!("{method} / HTTP/1.1\r\nhost: a\r\nmax-forwards: {max}\r\n\r\n");

    for (method, max, status) in [
        ("OPTIONS", "3", 200),
        ("OPTIONS", "0", 204),
        ("OPTIONS", "x", 200),
        ("TRACE", "0", 405),
        ("GET", "0", 200),
    ] {
        client.send(ask(method, max)).await;
        assert_eq!(client.answer().await.status, status, "{method} {max}");
    }

    proxy.end().await;
    let got = String::from_utf8(recorder.got().await.concat().into()).unwrap();
    let passed_on: Vec<_> = got.lines().filter_map(|line| line.strip_prefix("max-forwards: ")).collect();
    assert_eq!(passed_on, ["2", "x", "0"]);
}

#[tokio::test]
async fn an_upgrade_goes_on_but_not_to_http2() {
    let websocket = "connection: x, Upgrade\r\nupgrade: websocket\r\nx: 1\r\n";
    assert_eq!(passed_on(silent(), websocket).await, ["connection: upgrade", "upgrade: websocket"]);
    // RFC 9113 section 3.1: no longer a protocol. A backend that still knows it would get requests that nobody has seen.
    for protocol in ["h2c", "H2C", "h2", "h2c, websocket", "websocket, h2c", "TLS/1.3"] {
        let head = format!(
            "connection: upgrade, http2-settings\r\nupgrade: {protocol}\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
        );
        assert_eq!(passed_on(silent(), &head).await, [""; 0], "{protocol}");
    }
}

#[tokio::test]
async fn what_concerns_the_backends_connection_ends_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let headers = silent().via("edge").unwrap();
    let proxy = Setup { headers, ..Setup::to(listener.local_addr().unwrap()) }.start().await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut backend = Wire::accept(&listener).await;
    assert_eq!(backend.head().await, "GET / HTTP/1.1\r\nhost: a\r\nvia: 1.1 edge\r\n\r\n");

    backend
        .send(
            "HTTP/1.1 200 OK\r\nserver: b\r\ndate: then\r\nconnection: x, keep-alive, close\r\nx: 1\r\nkeep-alive: timeout=5\r\n\
             proxy-connection: close\r\nproxy-authenticate: Basic\r\nupgrade: websocket\r\nset-cookie: a\r\nset-cookie: b\r\n\
             via: 1.0 b\r\ntransfer-encoding: chunked\r\ncontent-length: 7\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        )
        .await;
    let answer = client.answer().await;

    assert_eq!(
        answer.head,
        "http/1.1 200 ok\r\nserver: b\r\ndate: then\r\nvia: 1.0 b\r\nvia: 1.1 edge\r\nset-cookie: a\r\nset-cookie: b\r\n\
         content-length: 2\r\n\r\n"
    );
    assert_eq!(answer.body, b"ok");
}

#[tokio::test]
async fn strangers_are_not_believed() {
    let lies = "x-forwarded-for: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil\r\n\
                x-forwarded-port: 443\r\nx-real-ip: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\n";
    assert_eq!(
        passed_on(HeadersLayer::new(), lies).await,
        [
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: a",
            "x-forwarded-proto: http",
            "x-real-ip: 127.0.0.1"
        ]
    );
    let told = passed_on(HeadersLayer::new().forwarded(Forwarded::Rfc7239), lies).await;
    assert_eq!(told[0], "forwarded: for=127.0.0.1;host=\"a\";proto=http");
    assert_eq!(told[1..3], ["x-forwarded-for: 127.0.0.1", "x-forwarded-host: a"]);
    assert!(told[3].starts_with("x-forwarded-port: ") && told[3] != "x-forwarded-port: 443", "{told:?}");
    assert_eq!(told[4..], ["x-forwarded-proto: http", "x-real-ip: 127.0.0.1"]);
}

#[tokio::test]
async fn trusted_proxies_are_believed() {
    let trusting = || HeadersLayer::new().trusting(|peer: IpAddr| peer.is_loopback());
    let said = "x-forwarded-for: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: b\r\n\
                x-real-ip: 6.6.6.6\r\n";
    assert_eq!(
        passed_on(trusting(), said).await,
        [
            "x-forwarded-for: 6.6.6.6, 7.7.7.7, 127.0.0.1",
            "x-forwarded-host: b",
            "x-forwarded-proto: https",
            "x-real-ip: 6.6.6.6"
        ]
    );
    let said = "forwarded: for=6.6.6.6\r\nforwarded: for=7.7.7.7\r\n";
    let told = passed_on(trusting().forwarded(Forwarded::Rfc7239), said).await;
    assert_eq!(told[0], "forwarded: for=6.6.6.6, for=7.7.7.7, for=127.0.0.1;host=\"a\";proto=http");
    // What a proxy takes away by Connection is told anew.
    let said = "x-forwarded-for: 6.6.6.6\r\nconnection: x-forwarded-for, x-real-ip\r\n";
    assert_eq!(passed_on(trusting(), said).await[0], "x-forwarded-for: 127.0.0.1");
}

#[tokio::test]
async fn via_names_the_version_that_a_request_came_in() {
    let recorder = Recorder::start().await;
    let headers = silent().via("edge").unwrap();
    let proxy = Setup { headers, ..Setup::to(recorder.addr) }.start().await;
    let mut client = frames::connect(proxy.addr).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields))).await;
    assert_eq!(frames::fate(&mut client, 1).await, frames::OK);
    let mut old = proxy.connect().await;
    old.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    assert_eq!(old.answer().await.status, 200);

    drop((client, old));
    proxy.end().await;
    let got = recorder.got().await.concat().to_lowercase();
    let heads: Vec<_> = got.split_inclusive("\r\n\r\n").filter_map(|head| field(head, "via")).collect();
    assert_eq!(heads, ["2.0 edge", "1.0 edge"]);
}
