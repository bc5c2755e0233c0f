//! What backends say, what clients get of it, and whether the connection is used for another request.

use tokio::net::TcpListener;

use super::rig::Proxy;
use super::rig::Setup;
use super::wire::Wire;

async fn proxy() -> (TcpListener, Proxy) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Setup::to(listener.local_addr().unwrap()).start().await;
    (listener, proxy)
}

/// What a client gets if its backend answers with this and ends: status and body, and whether all of it came.
async fn got(method: &str, answer: &str) -> (u16, String, bool) {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;
    backend.send(answer).await;
    drop(backend);
    let (answer, complete) = match client.answer_to(method).await {
        Ok(answer) => (answer, true),
        Err(answer) => (answer, false),
    };
    (answer.status, String::from_utf8(answer.body).unwrap(), complete)
}

#[tokio::test]
async fn an_answer_that_means_two_things_is_none() {
    for head in [
        "200 OK\r\ncontent-length: 2\r\ncontent-length: 3",
        "200 OK\r\ncontent-length: 2, 3",
        "200 OK\r\ncontent-length: +2",
        "200 OK\r\ncontent-length: ",
        "200 OK\r\ncontent-length : 2",
        "200 OK\r\na: b\r\n content-length: 2",
        "200 OK\r\na: b\rcontent-length: 2",
        "200 OK\r\na b: c",
        "99 Low",
        "1000 High",
        "101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: own",
    ] {
        let (status, _, _) = got("GET", &format!("HTTP/1.1 {head}\r\n\r\nok")).await;
        assert_eq!(status, 502, "{head:?}");
    }
    for answer in [
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "hello\r\n",
        "",
        "HTTP/1.1 200 OK\r\n",
    ] {
        assert_eq!(got("GET", answer).await.0, 502, "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_ends_where_its_head_says() {
    for (answer, body) in [
        ("200 OK\r\ncontent-length: 2, 2\r\n\r\nok", "ok"),
        ("200 OK\r\n\r\nok", "ok"),
        ("200 OK\r\ntransfer-encoding: gzip\r\n\r\nok", "ok"),
        ("200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;a=b\r\no\r\n01\r\nk\r\n00\r\n\r\n", "ok"),
        ("200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
        (
            "100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "ok",
        ),
        ("204 No Content\r\ncontent-length: 2\r\n\r\nno", ""),
        ("304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", ""),
    ] {
        let (_, got, complete) = got("GET", &format!("HTTP/1.1 {answer}")).await;
        assert_eq!((&*got, complete), (body, true), "{answer:?}");
    }
    let (status, _, _) = got("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_body_that_is_garbled_does_not_end() {
    for garbled in ["", "\r\n\r\n", "1\r\nno\r\n0\r\n\r\n", "0x0\r\n\r\n", "0\r\nno trailer\r\n\r\n"] {
        let (listener, proxy) = proxy().await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut backend = Wire::accept(&listener).await;
        backend.head().await;
        backend.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await;
        client.head().await;
        assert_eq!(client.chunk().await.unwrap(), b"ok");

        backend.send(garbled).await;
        drop(backend);

        let rest = client.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{garbled:?}: {rest:?}");
    }
}

/// Whether the connection on which a backend has given this answer gets the next request too.
async fn is_kept(request: &str, answer: &str) -> bool {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send(request).await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;
    backend.send(answer).await;
    assert_eq!(client.answer_to(request.split(' ').next().unwrap()).await.unwrap().status, 200);
    client.send("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let other = tokio::select! {
        Some(_) = backend.until(b"GET /next HTTP/1.1\r\n") => None,
        other = Wire::accept(&listener) => Some(other),
    };
    let kept = other.is_none();
    let mut asked = other.unwrap_or(backend);
    asked.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext").await;
    assert_eq!(client.answer().await.body, b"next");
    kept
}

#[tokio::test]
async fn a_connection_is_used_again_if_both_know_where_the_answer_ended() {
    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let large = "x".repeat(100_000);
    let large = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n186a0\r\n{large}\r\n0\r\n\r\n");
    for (kept, request, answer) in [
        (true, GET, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        (true, GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n"),
        (true, GET, "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok"),
        (true, "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"),
        (
            true,
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            true,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ),
        (true, GET, &large),
        (false, GET, &format!("{large}{evil}")),
        (false, GET, &format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{evil}")),
        (false, GET, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"),
        (false, GET, "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        (
            false,
            GET,
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (
            false,
            "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n",
            &format!("HTTP/1.1 200 OK\r\ncontent-length: 45\r\n\r\n{evil}"),
        ),
    ] {
        assert_eq!(is_kept(request, answer).await, kept, "{answer:?}");
    }
}

#[tokio::test]
async fn a_backend_that_has_seen_enough_of_a_request_is_heard() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    let body = "x".repeat(16 * 1024);
    client.send(format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    let mut backend = Wire::accept(&listener).await;
    backend.take(1).await.unwrap();
    backend.send("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;

    assert_eq!(client.answer().await.status, 413);
}

#[tokio::test]
async fn a_head_without_an_end_is_given_up() {
    let (listener, proxy) = proxy().await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut backend = Wire::accept(&listener).await;
    backend.head().await;
    backend.send("HTTP/1.1 200 OK\r\na: ").await;

    // The proxy closes the connection while more is on its way; the backend never does.
    let more = vec![b'a'; 8 * 1024];
    let endless = async { while backend.try_send(&more).await.is_ok() {} };
    let (answer, ()) = tokio::join!(client.answer(), endless);

    assert_eq!(answer.status, 502);
}
