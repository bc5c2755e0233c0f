//! Clients of HTTP/2 that send much of what costs them little: they are bounded, and others are served meanwhile.

use std::io;
use std::ops::Range;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use super::frames;
use super::frames::CONTINUATION;
use super::frames::END_HEADERS;
use super::frames::END_STREAM;
use super::frames::HEADERS;
use super::frames::PING;
use super::frames::RST_STREAM;
use super::frames::SETTINGS;
use super::frames::block;
use super::frames::frame;
use super::recorder::Recorder;
use super::rig::Proxy;
use super::rig::Setup;
use super::wire::Wire;
use super::wire::soon;

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
/// How often each flood repeats itself.
const MANY: u32 = 10_000;

async fn is_served(proxy: &Proxy) {
    let mut other = proxy.connect().await;
    other.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(other.answer().await.body, b"ok");
    let mut multiplexed = frames::connect(proxy.addr).await;
    multiplexed.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET))).await;
    assert_eq!(frames::fate(&mut multiplexed, 1).await, frames::OK);
}

/// Sends all of it, and reads what comes meanwhile as a good client does. Whether the server ended the connection first.
async fn flood(client: Wire, bytes: &[u8]) -> bool {
    let (mut input, mut output) = client.io.into_split();
    let reading = tokio::spawn(async move {
        // To the end, whatever it is.
        let _ = tokio::io::copy(&mut input, &mut tokio::io::sink()).await;
    });
    let sent = soon(output.write_all(bytes)).await;
    drop(output);
    soon(reading).await.unwrap();
    sent.is_err()
}

async fn proxy() -> (Recorder, Proxy) {
    let recorder = Recorder::start().await;
    let proxy = Setup::to(recorder.addr).start().await;
    (recorder, proxy)
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let (recorder, proxy) = proxy().await;
    let client = frames::connect(proxy.addr).await;
    let get = block(&GET);
    let mut bytes = Vec::new();
    for n in 0..MANY {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &get));
        bytes.extend(frame(RST_STREAM, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }

    flood(client, &bytes).await;

    is_served(&proxy).await;
    proxy.end().await;
    let got = recorder.got().await;
    let requests = got.iter().map(|bytes| bytes.matches("GET ").count()).sum::<usize>();
    assert!(requests < 1_000, "{requests} of {MANY} requests went on to the backend");
}

#[tokio::test]
async fn a_head_without_an_end_ends_the_connection() {
    let (_recorder, proxy) = proxy().await;
    let client = frames::connect(proxy.addr).await;
    let mut bytes = frame(HEADERS, END_STREAM, 1, &block(&GET));
    let more = block(&[("x", &"y".repeat(100))]).repeat(100);
    for _ in 0..1_000 {
        bytes.extend(frame(CONTINUATION, 0, 1, &more));
    }

    assert!(flood(client, &bytes).await, "ten megabytes of a head were taken");

    is_served(&proxy).await;
    // Frames without anything in them do no better.
    let client = frames::connect(proxy.addr).await;
    let empty = frame(CONTINUATION, 0, 1, &[]);
    let bytes = [frame(HEADERS, END_STREAM, 1, &[]), empty.repeat(100 * MANY as usize)].concat();
    assert!(flood(client, &bytes).await, "a million empty frames were taken");
    is_served(&proxy).await;
}

#[tokio::test]
async fn a_head_that_unfolds_to_much_is_refused() {
    let (recorder, proxy) = proxy().await;
    let mut client = frames::connect(proxy.addr).await;
    // One large field goes into the table, and is named by one byte from there on.
    let mut fields = block(&GET);
    fields.extend([0x40, 1, b'x', 126]);
    fields.extend([b'y'; 126]);
    fields.extend([0x80 | 62].repeat(4_000));

    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields)).await;
    let fate = frames::fate(&mut client, 1).await;

    assert_ne!(fate, frames::OK);
    drop(client);
    is_served(&proxy).await;
    proxy.end().await;
    assert!(!recorder.got().await.concat().contains("yyyy"));
}

#[tokio::test]
async fn frames_that_want_an_answer_are_not_kept_for_who_reads_none() {
    let (_recorder, proxy) = proxy().await;
    for one in
        [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])]
    {
        let client = frames::connect(proxy.addr).await;
        // Nobody reads: what the server cannot answer it must not take either.
        let taken = fill(&client.io, &one.repeat(1_000)).await;
        assert!(taken.is_none_or(|taken| taken < 32 << 20), "{taken:?}");
        is_served(&proxy).await;

        // Who reads the answers may send as many as they like.
        drop(client);
        let client = frames::connect(proxy.addr).await;
        flood(client, &one.repeat(MANY as usize)).await;
        is_served(&proxy).await;
    }
}

/// How many bytes are taken before nobody takes any more for a while; `None` if the connection is closed instead.
async fn fill(io: &TcpStream, bytes: &[u8]) -> Option<usize> {
    let mut taken = 0;
    while taken < 64 << 20 {
        let writable = tokio::time::timeout(Duration::from_millis(100), io.writable());
        let Ok(writable) = writable.await else { break };
        writable.ok()?;
        match io.try_write(bytes) {
            Ok(n) => taken += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
    Some(taken)
}

#[tokio::test]
async fn no_more_streams_are_open_than_allowed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut setup = Setup::to(listener.local_addr().unwrap());
    setup.options = setup.options.with_max_streams(50);
    let proxy = setup.start().await;
    let mut client = frames::connect(proxy.addr).await;
    let get = block(&GET);
    let opened = |streams: Range<u32>| -> Vec<u8> {
        streams.flat_map(|n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &get)).collect()
    };
    client.send(opened(0..50)).await;
    let mut backends = Vec::new();
    for _ in 0..50 {
        backends.push(Wire::accept(&listener).await);
    }

    flood(client, &opened(50..MANY)).await;

    let another = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(another.is_err(), "a stream beyond the limit was opened");
    soon(async {
        while proxy.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
