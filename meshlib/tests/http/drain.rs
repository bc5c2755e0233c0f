//! A proxy that closes down: what was sent is answered, what is idle is closed.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

use super::frames;
use super::frames::DATA;
use super::frames::END_HEADERS;
use super::frames::END_STREAM;
use super::frames::GOAWAY;
use super::frames::HEADERS;
use super::frames::block;
use super::frames::frame;
use super::recorder::Recorder;
use super::rig::Setup;
use super::wire::Wire;
use super::wire::soon;

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

#[tokio::test]
async fn requests_that_have_arrived_are_answered() {
    let recorder = Recorder::start().await;
    let proxy = Setup::to(recorder.addr).start().await;
    let mut clients = Vec::new();
    for n in 0..200 {
        let mut client = proxy.connect().await;
        if n % 2 == 0 {
            // Half of them have been served before.
            client.send("GET /first HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert_eq!(client.answer().await.status, 200);
        }
        clients.push(client);
    }

    // The server's task runs on this thread: nothing of this is read before the drain has started.
    for client in &mut clients {
        assert!(client.io.try_write(b"GET /last HTTP/1.1\r\nhost: a\r\n\r\n").unwrap() > 0);
    }
    proxy.drain.start();

    for (n, mut client) in clients.into_iter().enumerate() {
        let answer = client.rest().await;
        assert!(answer.ends_with(b"\r\n\r\nok"), "{n}: {:?}", String::from_utf8_lossy(&answer));
    }
    soon(proxy.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_of_the_last_moment_is_served() {
    let recorder = Recorder::start().await;
    let proxy = Setup::to(recorder.addr).start().await;
    let mut client = proxy.connect().await;
    proxy.drain.start();

    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;

    assert_eq!(client.answer().await.body, b"ok");
    assert_eq!(client.rest().await, b"");
    soon(proxy.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_has_begun_is_finished_and_says_that_it_is_the_last() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Setup::to(listener.local_addr().unwrap()).start().await;
    let (mut begun, mut waits) = (proxy.connect().await, proxy.connect().await);
    begun.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut first = Wire::accept(&listener).await;
    first.head().await;
    first.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab").await;
    begun.head().await;
    begun.expect("ab").await;
    waits.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut second = Wire::accept(&listener).await;
    second.head().await;

    proxy.drain.start();
    // Longer than a draining connection is looked after for another request.
    let until = Instant::now() + Duration::from_millis(100);
    tokio::time::sleep_until(until).await;
    first.send("cd").await;
    second.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;

    begun.expect("cd").await;
    assert_eq!(begun.rest().await, b"");
    let answer = waits.answer().await;
    assert!(answer.head.contains("connection: close\r\n"), "{}", answer.head);
    assert_eq!(answer.body, b"ok");
    assert_eq!(waits.rest().await, b"");
    soon(proxy.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_connections_are_closed_at_once() {
    let recorder = Recorder::start().await;
    let proxy = Setup::to(recorder.addr).start().await;
    let mut kept = proxy.connect().await;
    kept.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    kept.answer().await;
    let mut multiplexed = frames::connect(proxy.addr).await;
    multiplexed.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET))).await;
    assert_eq!(frames::fate(&mut multiplexed, 1).await, frames::OK);
    let began = Instant::now();

    proxy.drain.start();

    assert_eq!(kept.rest().await, b"");
    assert!(closes(&mut multiplexed).await);
    soon(proxy.serving).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// Reads to the end, answering pings as a client must. Whether there was a GOAWAY.
async fn closes(client: &mut Wire) -> bool {
    let mut goaway = false;
    while let Some((kind, flags, _, payload)) = frames::next(client).await {
        goaway |= kind == GOAWAY;
        if kind == frames::PING && flags == 0 {
            // The server may close before it reads this.
            let _ = client.try_send(frame(frames::PING, 1, 0, &payload)).await;
        }
    }
    goaway
}

#[tokio::test]
async fn streams_end_before_their_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Setup::to(listener.local_addr().unwrap()).start().await;
    let mut client = frames::connect(proxy.addr).await;
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET))).await;
    let mut first = Wire::accept(&listener).await;
    first.head().await;

    proxy.drain.start();
    // The server tells first that it will close, and takes what comes until a ping has been answered.
    loop {
        let (kind, flags, _, payload) = frames::next(&mut client).await.unwrap();
        match kind {
            GOAWAY => assert_eq!(payload[..4], [0x7f, 0xff, 0xff, 0xff], "every stream is still taken"),
            frames::PING if flags == 0 => {
                client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&GET))).await;
                client.send(frame(frames::PING, 1, 0, &payload)).await;
                break;
            }
            _ => {}
        }
    }
    let mut second = Wire::accept(&listener).await;
    second.head().await;
    for backend in [&mut second, &mut first] {
        backend.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    }

    let mut ended = Vec::new();
    while let Some((kind, flags, stream, payload)) = frames::next(&mut client).await {
        match kind {
            DATA if flags & END_STREAM != 0 => {
                assert_eq!(payload, b"ok");
                ended.push(stream);
            }
            GOAWAY => {
                assert_eq!(payload, [0, 0, 0, 3, 0, 0, 0, 0], "up to the second stream, without an error")
            }
            _ => {}
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 3]);
    soon(proxy.serving).await.unwrap().unwrap();
}
