//! Each way to misbehave, as a client sees it.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use meshlib_namerd::server::Fault;
use meshlib_namerd::server::NamerdServer;
use meshlib_namerd::server::Step;
use tokio::time::Instant;

use super::WATCH;
use super::WEB;
use super::one;
use super::one_line;
use super::raw::Raw;
use super::raw::ask;
use super::server;

async fn bound() -> NamerdServer {
    let namerd = server().await;
    namerd.set("default", "/svc/web", one(4321)).unwrap();
    namerd
}

/// Asks with a fault for one request, and returns the connection.
async fn faulty(namerd: &NamerdServer, target: &str, fault: Fault) -> Raw {
    namerd.fault_next(1, fault);
    let mut raw = Raw::connect(namerd).await;
    raw.get(target).await;
    raw
}

#[tokio::test]
async fn statuses_are_for_so_many_requests_or_for_a_path() {
    let namerd = bound().await;
    let mut raw = Raw::connect(&namerd).await;
    namerd.fault_next(2, Fault::Status(503));
    namerd.fault_next(1, Fault::Status(404));
    namerd.fault("default", "/svc/web", Fault::Status(500)).unwrap();

    for status in
        ["503 Service Unavailable", "503 Service Unavailable", "404 Not Found", "500 Internal Server Error"]
    {
        raw.get(WEB).await;
        assert_eq!(raw.answer().await.0, format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"));
    }
    assert_eq!(ask(&namerd, "/api/1/resolve/default?path=/svc/none").await.1, super::NEG);
    namerd.fault("default", "/svc/web", None).unwrap();
    raw.get(WEB).await;
    assert_eq!(raw.answer().await.1, one_line(4321));
}

#[tokio::test]
async fn a_held_path_is_answered_when_it_is_let_go() {
    let namerd = bound().await;
    namerd.fault("default", "/svc/web", Fault::Hold).unwrap();
    let (mut once, mut watch) = (Raw::connect(&namerd).await, Raw::connect(&namerd).await);
    once.get(WEB).await;
    watch.get(WATCH).await;
    namerd.requested(2).await;
    once.is_silent().await;

    namerd.fault("default", "/svc/web", None).unwrap();

    assert_eq!(once.answer().await.1, one_line(4321));
    watch.until("\r\n\r\n").await;
    assert_eq!(watch.chunk().await, one_line(4321));
}

#[tokio::test]
async fn a_held_request_ends_with_its_client() {
    let namerd = bound().await;
    let raw = faulty(&namerd, WEB, Fault::Hold).await;
    namerd.requested(1).await;

    drop(raw);

    while namerd.connections() > 0 {
        super::raw::soon(tokio::task::yield_now()).await;
    }
}

#[tokio::test]
async fn a_late_answer_is_a_proper_one() {
    let namerd = bound().await;
    let began = Instant::now();

    let mut raw = faulty(&namerd, WEB, Fault::Late(Duration::from_millis(40))).await;

    assert_eq!(raw.answer().await.1, one_line(4321));
    assert!(began.elapsed() >= Duration::from_millis(40));
}

#[tokio::test]
async fn lengths_lie() {
    let namerd = bound().await;
    let line = one_line(4321);
    let head = |length: usize| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
    };

    let (sent, end) = faulty(&namerd, WEB, Fault::Truncated).await.rest().await;
    assert_eq!(sent, head(line.len()) + &line[..line.len() / 2]);
    end.unwrap();

    let mut raw = faulty(&namerd, WEB, Fault::LengthTooLong).await;
    assert_eq!(raw.until("}\n").await, head(line.len() + 10) + &line);
    raw.is_silent().await;
}

#[tokio::test]
async fn a_length_too_short_leaves_its_rest_before_the_next_answer() {
    let namerd = bound().await;
    let line = one_line(4321);
    let mut raw = faulty(&namerd, WEB, Fault::LengthTooShort).await;

    let (_, body) = raw.answer().await;

    assert_eq!(body, line[..line.len() - 5]);
    raw.get(WEB).await;
    assert_eq!(raw.until("\n").await, line[line.len() - 5..]);
    assert_eq!(raw.answer().await.1, line);
}

#[tokio::test]
async fn a_watch_breaks_off_inside_a_chunk() {
    let namerd = bound().await;
    let line = one_line(4321);

    let (sent, end) = faulty(&namerd, WATCH, Fault::Truncated).await.rest().await;

    let half = &line[..line.len() - line.len() / 2];
    assert!(sent.ends_with(&format!("chunked\r\n\r\n{:x}\r\n{half}", line.len())), "{sent}");
    end.unwrap();
}

#[tokio::test]
async fn html_is_sent_and_a_watch_ends_after_it() {
    let namerd = bound().await;
    for target in [WEB, WATCH] {
        let (head, body) = faulty(&namerd, target, Fault::NotJson).await.answer().await;

        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(body.starts_with("<html>"), "{body}");
    }
}

#[tokio::test]
async fn numbers_are_split_between_chunks() {
    let namerd = bound().await;
    let line = one_line(4321);
    let (first, second) = line.split_at(line.find("321").unwrap());
    for target in [WEB, WATCH] {
        let mut raw = faulty(&namerd, target, Fault::SplitNumber).await;

        assert!(raw.until("\r\n\r\n").await.contains("chunked"));
        assert_eq!(raw.chunk().await, first);
        assert_eq!(raw.chunk().await, second);
        if target == WEB {
            assert_eq!(raw.chunk().await, "");
            raw.get(WEB).await;
            assert_eq!(raw.answer().await.1, line, "the connection is kept");
        }
    }
}

#[tokio::test]
async fn two_lines_come_in_one_chunk() {
    let namerd = bound().await;
    let mut raw = faulty(&namerd, WATCH, Fault::TwoLines).await;
    raw.until("\r\n\r\n").await;
    raw.is_silent().await;

    namerd.set("default", "/svc/web", one(2)).unwrap();

    assert_eq!(raw.chunk().await, one_line(4321) + &one_line(2));
}

#[tokio::test]
async fn watch_is_ignored() {
    let namerd = bound().await;

    let mut raw = faulty(&namerd, WATCH, Fault::IgnoreWatch).await;

    let (head, body) = raw.answer().await;
    assert!(head.contains("content-length") && !head.contains("chunked"), "{head}");
    assert_eq!(body, one_line(4321));
}

#[tokio::test]
async fn a_kept_connection_ends_before_or_during_an_answer() {
    let namerd = bound().await;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        one_line(4321).len()
    );
    for (fault, sent, reset) in [
        (Fault::CloseBefore, "", false),
        (Fault::ResetBefore, "", true),
        (Fault::CloseDuring, &*head, false),
        (Fault::ResetDuring, &*head, true),
    ] {
        let mut raw = Raw::connect(&namerd).await;
        raw.get(WEB).await;
        raw.answer().await;
        namerd.fault_next(1, fault);
        raw.get(WEB).await;

        let (got, end) = raw.rest().await;

        assert!(got.starts_with(sent) && got.is_empty() == sent.is_empty(), "{got}");
        assert_eq!(end.err().map(|error| error.kind()), reset.then_some(ErrorKind::ConnectionReset));
    }
}

#[tokio::test]
async fn idle_connections_and_watches_are_closed_or_reset() {
    let namerd = bound().await;
    for reset in [false, true] {
        let (mut idle, mut watch) = (Raw::connect(&namerd).await, Raw::connect(&namerd).await);
        idle.get(WEB).await;
        idle.answer().await;
        watch.get(WATCH).await;
        watch.until("\r\n\r\n").await;
        watch.chunk().await;

        if reset {
            namerd.reset_connections();
        } else {
            namerd.close_connections();
        }

        for raw in [&mut idle, &mut watch] {
            let (_, end) = raw.rest().await;
            assert_eq!(end.err().map(|error| error.kind()), reset.then_some(ErrorKind::ConnectionReset));
        }
        assert_eq!(ask(&namerd, WEB).await.1, one_line(4321), "it goes on listening");
    }
}

#[tokio::test]
async fn any_bytes_can_be_sent() {
    let namerd = bound().await;
    let steps = vec![
        Step::Send(Bytes::from_static(b"HTTP/1.1 200 OK\r\n")),
        Step::Wait(Duration::from_millis(10)),
        Step::Send(Bytes::from_static(b"content-length: 2\r\n\r\n{}")),
    ];

    let mut raw = faulty(&namerd, WEB, Fault::Raw(steps)).await;

    assert_eq!(raw.answer().await.1, "{}");
    raw.get(WEB).await;
    assert_eq!(raw.answer().await.1, one_line(4321));
}
