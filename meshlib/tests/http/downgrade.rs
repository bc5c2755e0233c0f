//! Requests of HTTP/2 on their way to a backend that speaks HTTP/1.1: what they lie about must not reach it.

use super::frames;
use super::frames::BAD_REQUEST;
use super::frames::CONTINUATION;
use super::frames::DATA;
use super::frames::END_HEADERS;
use super::frames::END_STREAM;
use super::frames::Fate;
use super::frames::HEADERS;
use super::frames::OK;
use super::frames::block;
use super::frames::frame;
use super::recorder::Recorder;
use super::rig::Setup;

type Fields<'a> = &'a [(&'a str, &'a str)];

const GET: Fields<'_> = &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
const POST: Fields<'_> = &[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

/// What becomes of one request with these data, and what the backend gets.
async fn ask(fields: Fields<'_>, data: Option<&str>) -> (Fate, String) {
    let flags = if data.is_some() { END_HEADERS } else { END_HEADERS | END_STREAM };
    let mut bytes = frame(HEADERS, flags, 1, &block(fields));
    if let Some(data) = data {
        bytes.extend(frame(DATA, END_STREAM, 1, data.as_bytes()));
    }
    send(&bytes).await
}

async fn send(bytes: &[u8]) -> (Fate, String) {
    let recorder = Recorder::start().await;
    let proxy = Setup::to(recorder.addr).start().await;
    let mut client = frames::connect(proxy.addr).await;
    client.send(bytes).await;

    let fate = frames::fate(&mut client, 1).await;

    drop(client);
    proxy.end().await;
    (fate, recorder.got().await.concat())
}

#[tokio::test]
async fn a_request_becomes_one_of_http1() {
    assert_eq!(ask(GET, None).await, (OK, "GET / HTTP/1.1\r\nhost: a\r\n\r\n".into()));
    assert_eq!(
        ask(&[POST, &[("content-length", "3")]].concat(), Some("abc")).await,
        (OK, "POST / HTTP/1.1\r\ncontent-length: 3\r\nhost: a\r\n\r\nabc".into())
    );
    assert_eq!(
        ask(POST, Some("abc")).await,
        (OK, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".into())
    );
    // No body where there is no data, whatever the method.
    assert_eq!(ask(POST, None).await, (OK, "POST / HTTP/1.1\r\nhost: a\r\n\r\n".into()));
    assert_eq!(
        ask(&[GET, &[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")]].concat(), None).await,
        (OK, "GET / HTTP/1.1\r\ncookie: a=1; b=2\r\nhost: a\r\nte: trailers\r\n\r\n".into())
    );
    assert_eq!(
        ask(&[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "a")], None).await,
        (OK, "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n".into())
    );
    // RFC 9113 section 8.3.1: a host may be told in the old way.
    assert_eq!(
        ask(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a")], None).await,
        (OK, "GET / HTTP/1.1\r\nhost: a\r\n\r\n".into())
    );
}

#[tokio::test]
async fn a_length_that_is_not_the_bodys_never_arrives() {
    for length in ["0", "2", "4", "-3", "+3", "3,3", "", "18446744073709551616"] {
        let (fate, got) = ask(&[POST, &[("content-length", length)]].concat(), Some("abc")).await;

        assert!(matches!(fate, Fate::Reset | Fate::Closed | BAD_REQUEST), "{length:?}: {fate:?}");
        // What had begun before the lie was known never becomes complete.
        let complete = got.ends_with("0\r\n\r\n") || got.ends_with("abc") || got.contains("length: 0");
        assert!(!complete, "{length:?}: {got}");
    }
    for length in ["3", "3\u{0}", "x"] {
        let (fate, got) = ask(&[GET, &[("content-length", length)]].concat(), None).await;

        assert!(matches!(fate, Fate::Reset | Fate::Closed | BAD_REQUEST), "{length:?}: {fate:?}");
        assert_eq!(got, "", "{length:?}");
    }
    let twice = [POST, &[("content-length", "3"), ("content-length", "4")]].concat();
    let (fate, got) = ask(&twice, Some("abc")).await;
    assert!(matches!(fate, Fate::Reset | Fate::Closed | BAD_REQUEST), "{fate:?}");
    assert_eq!(got, "");
}

#[tokio::test]
async fn a_length_that_is_told_twice_arrives_once() {
    let twice = [POST, &[("content-length", "3"), ("content-length", "3")]].concat();

    let (fate, got) = ask(&twice, Some("abc")).await;

    assert_eq!(fate, OK);
    assert_eq!(got, "POST / HTTP/1.1\r\ncontent-length: 3\r\nhost: a\r\n\r\nabc");
}

#[tokio::test]
async fn a_field_that_http2_does_not_have_is_refused() {
    for extra in [
        ("transfer-encoding", "chunked"),
        ("connection", "keep-alive"),
        ("connection", "x"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
        ("x", "1\r\ncontent-length: 9"),
        ("x", "1\nb"),
        ("x", "1\rb"),
        ("x", "1\0b"),
        ("X", "1"),
        ("x y", "1"),
        ("x:", "1"),
        ("x\r\ny", "1"),
        ("", "1"),
        (":x", "1"),
        (":status", "200"),
        (":path", "/again"),
        ("host", "b"),
        ("host", ""),
    ] {
        let (fate, got) = ask(&[GET, &[extra]].concat(), None).await;

        assert!(matches!(fate, Fate::Reset | Fate::Closed | BAD_REQUEST), "{extra:?}: {fate:?}, {got}");
        assert_eq!(got, "", "{extra:?}");
    }
}

#[tokio::test]
async fn a_target_that_is_none_is_refused() {
    for (method, scheme, path, authority) in [
        ("GET", "http", "x", "a"),
        ("GET", "http", "", "a"),
        ("GET", "http", "http://b/", "a"),
        ("GET", "http", "/ HTTP/1.1\r\nx: y", "a"),
        ("GET", "http", "/a b", "a"),
        ("GET", "http", "/", ""),
        ("GET", "http", "/", "a/b"),
        ("GET", "http", "/", "u@a"),
        ("GET", "http", "/", "u:p@a"),
        ("GET", "http", "/", "a b"),
        ("GET", "http", "/", "a\r\nx: y"),
        ("GET", "http", "/", "a?b"),
        ("GET", "http", "/", "a#b"),
        ("G T", "http", "/", "a"),
        ("GET / HTTP/1.1\r\nx:", "http", "/", "a"),
        ("", "http", "/", "a"),
        ("GET", "ht tp", "/", "a"),
        ("GET", "http://b/?", "/", "a"),
    ] {
        let fields = [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)];
        let (fate, got) = ask(&fields, None).await;

        assert!(matches!(fate, Fate::Reset | Fate::Closed | BAD_REQUEST), "{fields:?}: {fate:?}, {got}");
        assert_eq!(got, "", "{fields:?}");
    }
    for missing in 0..GET.len() - 1 {
        let mut fields = GET.to_vec();
        fields.remove(missing);
        let (fate, got) = ask(&fields, None).await;

        assert!(matches!(fate, Fate::Reset | Fate::Closed | BAD_REQUEST), "{fields:?}: {fate:?}, {got}");
        assert_eq!(got, "", "{fields:?}");
    }
    // Neither an authority nor a host.
    assert_eq!(ask(&GET[..3], None).await, (BAD_REQUEST, String::new()));
}

#[tokio::test]
async fn frames_out_of_order_end_the_connection() {
    let get = block(GET);
    for bytes in [
        // A head that begins within another.
        [frame(HEADERS, END_STREAM, 1, &get[..9]), frame(HEADERS, END_HEADERS, 3, &get)].concat(),
        [frame(HEADERS, END_STREAM, 1, &get[..9]), frame(DATA, END_STREAM, 1, b"abc")].concat(),
        frame(CONTINUATION, END_HEADERS, 1, &get),
        frame(DATA, END_STREAM, 1, b"abc"),
        frame(HEADERS, END_HEADERS | END_STREAM, 2, &get),
        frame(HEADERS, END_HEADERS | END_STREAM, 0, &get),
        // An index that no table has.
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0xff, 0x7f]),
        // Padding that is longer than its frame.
        frame(HEADERS, END_HEADERS | END_STREAM | 8, 1, &[&[255], &get[..]].concat()),
    ] {
        let (fate, got) = send(&bytes).await;

        assert_eq!(fate, Fate::Closed);
        assert_eq!(got, "");
    }
}

#[tokio::test]
async fn trailers_that_say_what_only_a_head_may_say_do_not_arrive() {
    let bytes = [
        frame(HEADERS, END_HEADERS, 1, &block(&[POST, &[("trailer", "x, content-length, host")]].concat())),
        frame(DATA, 0, 1, b"abc"),
        frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &block(&[("x", "1"), ("content-length", "9"), ("host", "b")]),
        ),
    ]
    .concat();

    let (fate, got) = send(&bytes).await;

    assert_eq!(fate, OK);
    let (_, body) = got.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "3\r\nabc\r\n0\r\nx: 1\r\n\r\n");
}
