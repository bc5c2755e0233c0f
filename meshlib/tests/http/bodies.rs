//! Bodies on their way: as they come, with what ends them, and what breaks them.

use std::time::Duration;

use meshlib::http::ServerOptions;
use tokio::net::TcpListener;

use super::frames;
use super::frames::DATA;
use super::frames::END_HEADERS;
use super::frames::END_STREAM;
use super::frames::Fate;
use super::frames::HEADERS;
use super::frames::PING;
use super::frames::RST_STREAM;
use super::frames::SETTINGS;
use super::frames::WINDOW_UPDATE;
use super::frames::block;
use super::frames::frame;
use super::rig::Proxy;
use super::rig::Setup;
use super::wire::Wire;
use super::wire::soon;

/// More than all buffers between a client and a backend hold together.
const LARGE: usize = 64 << 20;

const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

async fn proxy() -> (TcpListener, Proxy) {
    with(ServerOptions::default()).await
}

async fn with(options: ServerOptions) -> (TcpListener, Proxy) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = options.with_date(false);
    let proxy = Setup { options, ..Setup::to(listener.local_addr().unwrap()) }.start().await;
    (listener, proxy)
}

#[tokio::test]
async fn each_chunk_arrives_before_the_next_is_sent() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let mut backend = Wire::accept(&listener).await;
    backend.expect("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;

    // Both ways at a time, as in a call of gRPC.
    backend
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    client
        .expect("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    for n in 0..3 {
        let up = format!("3\r\nup{n}\r\n");
        client.send(&up).await;
        backend.expect(&up).await;
        let event = format!("9\r\ndata: {n}\n\n\r\n");
        backend.send(&event).await;
        client.expect(&event).await;
    }
    client.send("0\r\n\r\n").await;
    backend.expect("0\r\n\r\n").await;
    backend.send("0\r\n\r\n").await;
    client.expect("0\r\n\r\n").await;
}

#[tokio::test]
async fn trailers_arrive_on_both_sides() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client
        .send(
            "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: sum\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nsum: 1\r\n\r\n",
        )
        .await;
    let mut backend = Wire::accept(&listener).await;
    let head = backend.head().await;
    assert!(head.contains("te: trailers\r\n") && head.contains("trailer: sum\r\n"), "{head}");
    backend.expect("3\r\nabc\r\n0\r\nsum: 1\r\n\r\n").await;

    backend
        .send(
            "HTTP/1.1 200 OK\r\ntrailer: grpc-status\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n",
        )
        .await;

    let head = client.head().await;
    assert!(head.contains("trailer: grpc-status\r\n"), "{head}");
    client.expect("2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n").await;
}

#[tokio::test]
async fn trailers_of_http1_arrive_in_http2() {
    let (listener, proxy) = proxy().await;
    let mut client = frames::connect(proxy.addr).await;
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&POST))).await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;

    backend
        .send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n")
        .await;

    assert_eq!(frames::fate(&mut client, 1).await, frames::OK);
    let data = frames::next(&mut client).await.unwrap();
    assert_eq!((data.0, data.1, data.3.as_slice()), (DATA, 0, &b"ok"[..]));
    let trailers = frames::next(&mut client).await.unwrap();
    assert_eq!((trailers.0, trailers.1), (HEADERS, END_HEADERS | END_STREAM));
}

#[tokio::test]
async fn a_body_waits_until_the_backend_wants_it() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n";
    client.send(head).await;
    let mut backend = Wire::accept(&listener).await;
    backend.expect(head).await;

    backend.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("abc").await;
    backend.expect("abc").await;
    backend.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;

    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_backend_that_does_not_want_a_body_is_heard_at_once() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n").await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;

    backend.send("HTTP/1.1 417 No\r\ncontent-length: 0\r\n\r\n").await;

    // Without a 100 before it.
    client.expect("HTTP/1.1 417 No\r\n").await;
    drop(client);
    assert_eq!(backend.rest().await, b"", "and the backend's connection is not used again");
}

#[tokio::test]
async fn a_backend_that_says_nothing_gets_the_body() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n").await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;

    client.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("abc").await;

    backend.expect("abc").await;
    backend.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
}

/// A proxy, and a client and a backend that have sent and got three of the six bytes of an upload.
async fn half_an_upload() -> (Proxy, Wire, Wire) {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc").await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;
    backend.expect("abc").await;
    (proxy, client, backend)
}

/// A request that is answered over the same connection to the backend.
async fn get(client: &mut Wire, backend: &mut Wire) {
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    backend.head().await;
    backend.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo").await;
    client.head().await;
    client.expect("two").await;
}

#[tokio::test]
async fn an_early_answer_arrives_and_the_upload_goes_on() {
    let (_proxy, mut client, mut backend) = half_an_upload().await;

    backend.send("HTTP/1.1 202 OK\r\ncontent-length: 2\r\n\r\n").await;
    client.head().await;
    client.send("def").await;
    backend.expect("def").await;
    backend.send("ok").await;

    client.expect("ok").await;

    // The backend's connection is as good as any.
    get(&mut client, &mut backend).await;
}

#[tokio::test]
async fn an_upload_goes_on_after_the_whole_answer_and_the_connection_is_used_again() {
    let (proxy, mut client, mut backend) = half_an_upload().await;
    backend.send("HTTP/1.1 202 OK\r\ncontent-length: 2\r\n\r\nok").await;
    client.head().await;
    client.expect("ok").await;
    client.send("def").await;
    backend.expect("def").await;

    let mut other = proxy.connect().await;
    get(&mut other, &mut backend).await;
}

#[tokio::test]
async fn an_upload_goes_on_while_the_client_takes_nothing_of_the_answer() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n")).await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;
    backend.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
    client.head().await;
    // More than the way back holds.
    fill(&backend.io).await;

    let uploaded = tokio::spawn(async move {
        for _ in 0..LARGE >> 20 {
            client.send(vec![b'x'; 1 << 20]).await;
        }
        client
    });
    assert!(backend.take(LARGE).await.is_some(), "all of it arrives");
    uploaded.await.unwrap();
}

#[tokio::test]
async fn an_answer_to_an_upload_that_nobody_reads_arrives() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\nabc")).await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;
    backend.expect("abc").await;

    backend.send("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    drop(backend);

    assert_eq!(client.answer().await.status, 413);
}

#[tokio::test]
async fn the_rest_of_an_upload_that_was_answered_is_taken() {
    let (listener, proxy) = proxy().await;
    drop(listener);
    let mut client = frames::connect(proxy.addr).await;
    client.send(frame(HEADERS, END_HEADERS, 1, &block(&POST))).await;
    client.send(frame(DATA, 0, 1, b"abc")).await;

    // Nobody listens at the backend.
    assert_eq!(end_of(&mut client).await, frames::OK);
    // As much as there is credit for from the beginning.
    for _ in 0..6 {
        client.send(frame(DATA, 0, 1, &[0; 10_000])).await;
    }
    client.send(frame(DATA, END_STREAM, 1, b"")).await;

    client.send(frame(PING, 0, 0, &[0; 8])).await;
    let mut credit = 0;
    loop {
        match frames::next(&mut client).await.expect("the connection lives") {
            (PING, ..) => break,
            (RST_STREAM, _, stream, code) => panic!("stream {stream} is reset: {code:?}"),
            (WINDOW_UPDATE, _, 1, _) => credit += 1,
            _ => {}
        }
    }
    assert!(credit > 0, "what was sent is taken");
}

#[tokio::test]
async fn a_large_upload_waits_for_the_backend() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n")).await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;

    let (stuck, rest) = fill(&client.io).await;
    assert!(rest > 0, "{stuck} bytes were taken that nobody reads");
    let ((), taken) = tokio::join!(client.send(vec![b'x'; rest]), backend.take(LARGE));

    assert_eq!(taken.unwrap().len(), LARGE);
    backend.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_large_answer_waits_for_the_client() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;
    backend.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;

    let (stuck, rest) = fill(&backend.io).await;
    assert!(rest > 0, "{stuck} bytes were taken that nobody reads");
    let ((), answer) = tokio::join!(backend.send(vec![b'x'; rest]), client.answer());

    assert_eq!(answer.body.len(), LARGE);
}

#[tokio::test]
async fn an_answer_that_a_stream_has_no_credit_for_leaves_the_backend() {
    let limit = Duration::from_millis(200);
    let (listener, proxy) = with(ServerOptions::default().with_write_within(limit)).await;
    let mut client = frames::connect(proxy.addr).await;
    client.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&POST))).await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;
    backend.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
    backend.send(vec![b'x'; 64 * 1024]).await;

    assert_eq!(frames::fate(&mut client, 1).await, frames::OK);
    assert_eq!(end_of(&mut client).await, Fate::Reset);
    assert_eq!(backend.rest().await, b"", "the backend's connection is closed");
    assert_eq!(proxy.failed(), 0, "the backend did nothing wrong");

    client.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])).await;
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&POST))).await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;
    backend.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(frames::fate(&mut client, 3).await, frames::OK);
    let (_, _, stream, payload) = frames::next(&mut client).await.unwrap();
    assert_eq!((stream, payload), (3, b"ok".to_vec()));
}

/// Writes until nobody takes any more for a while, or `LARGE` bytes. How many were taken, how many are left.
async fn fill(io: &tokio::net::TcpStream) -> (usize, usize) {
    let chunk = vec![b'x'; 1 << 20];
    let mut taken = 0;
    while taken < LARGE {
        let room = LARGE - taken;
        let writable = tokio::time::timeout(Duration::from_millis(200), io.writable());
        let Ok(writable) = writable.await else { break };
        writable.unwrap();
        taken += io.try_write(&chunk[..chunk.len().min(room)]).unwrap_or(0);
    }
    (taken, LARGE - taken)
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    let mut backend = None;
    for (method, status, field) in [
        ("HEAD", "200 OK", "content-length: 7\r\n"),
        ("HEAD", "200 OK", ""),
        ("GET", "204 No Content", ""),
        ("GET", "304 Not Modified", ""),
    ] {
        client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        if backend.is_none() {
            backend = Some(Wire::accept(&listener).await);
        }
        let backend = backend.as_mut().unwrap();
        backend.expect(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n")).await;

        backend.send(format!("HTTP/1.1 {status}\r\n{field}\r\n")).await;

        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
        assert_eq!(head.contains("content-length: 7"), !field.is_empty(), "{head}");
        assert!(!head.contains("content-length: 0"), "{method} {status}: {head}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_end() {
    for (head, begun) in [("content-length: 6", "abc"), ("transfer-encoding: chunked", "3\r\nabc\r\n")] {
        for reset in [false, true] {
            let (listener, proxy) = proxy().await;
            let mut client = proxy.connect().await;
            let mut multiplexed = frames::connect(proxy.addr).await;
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let mut backend = Wire::accept(&listener).await;
            multiplexed.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&POST))).await;
            let mut other = Wire::accept(&listener).await;
            for backend in [&mut backend, &mut other] {
                backend.head().await;
                backend.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{begun}")).await;
            }
            client.head().await;
            assert_eq!(frames::fate(&mut multiplexed, 1).await, frames::OK);

            for backend in [backend, other] {
                if reset { backend.reset() } else { drop(backend) }
            }

            let rest = client.rest().await;
            assert!(begun.as_bytes().starts_with(&rest), "{head}: {rest:?}");
            assert_eq!(end_of(&mut multiplexed).await, Fate::Reset, "{head}");
        }
    }
}

/// How a stream ends whose answer has begun.
async fn end_of(client: &mut Wire) -> Fate {
    while let Some((kind, flags, stream, _)) = frames::next(client).await {
        match kind {
            RST_STREAM if stream == 1 => return Fate::Reset,
            DATA | HEADERS if stream == 1 && flags & END_STREAM != 0 => return frames::OK,
            _ => {}
        }
    }
    Fate::Closed
}

#[tokio::test]
async fn a_client_that_is_silent_in_a_body_is_to_blame() {
    let limit = Duration::from_millis(100);
    let (listener, proxy) = with(ServerOptions::default().with_body_within(limit)).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc").await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;
    backend.expect("abc").await;

    let answer = client.answer().await;

    assert_eq!(answer.status, 408);
    assert_eq!(backend.rest().await, b"", "the backend's connection is closed");
    assert_eq!(proxy.failed(), 0, "the backend did nothing wrong");
}

#[tokio::test]
async fn a_client_that_takes_its_upload_back_is_to_blame() {
    let (listener, proxy) = proxy().await;
    let mut client = frames::connect(proxy.addr).await;
    client.send(frame(HEADERS, END_HEADERS, 1, &block(&POST))).await;
    client.send(frame(DATA, 0, 1, b"abc")).await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;
    backend.expect("3\r\nabc\r\n").await;

    client.send(frame(RST_STREAM, 0, 1, &8u32.to_be_bytes())).await;

    assert_eq!(backend.rest().await, b"", "the body has no end");
    soon(async {
        while proxy.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(proxy.failed(), 0, "the backend did nothing wrong");
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_is_cut_off() {
    let limit = Duration::from_millis(100);
    for begun in ["", "GET / HTTP/1.1\r\nhost"] {
        let (_listener, proxy) = with(ServerOptions::default().with_head_within(limit)).await;
        let mut client = proxy.connect().await;
        client.send(begun).await;

        let rest = client.rest().await;

        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");
    }
}

#[tokio::test]
async fn a_client_that_closes_its_side_may_still_be_answered() {
    for half_close in [false, true] {
        let (listener, proxy) = with(ServerOptions::default().with_half_close(half_close)).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut backend = Wire::accept(&listener).await;
        backend.head().await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.io).await.unwrap();

        if half_close {
            backend.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            assert_eq!(client.answer().await.body, b"ok");
        } else {
            assert_eq!(backend.rest().await, b"", "the request is dropped");
            assert_eq!(client.rest().await, b"");
        }
    }
}
