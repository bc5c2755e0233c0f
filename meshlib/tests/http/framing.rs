//! Requests that two servers could read in two ways: refused, or passed on in one way only.

use http::Request;
use http::Response;
use meshlib::Drain;
use meshlib::Error;
use meshlib::Server;
use meshlib::http::Body;
use meshlib::http::HttpServer;
use meshlib::http::ServerOptions;

use super::recorder::Recorder;
use super::rig::Setup;
use super::wire::Wire;

/// What becomes of a request.
enum Then {
    /// The client gets this status, and the backend nothing.
    Refused(u16),
    /// The backend gets exactly this.
    Passed(&'static str),
}
use Then::Passed;
use Then::Refused;

/// Sends a request of its own connection to a proxy and compares what comes of it.
async fn check(request: impl AsRef<[u8]>, then: &Then) {
    let request = request.as_ref();
    let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
    let recorder = Recorder::start().await;
    let proxy = Setup::to(recorder.addr).start().await;
    let mut client: Wire = proxy.connect().await;

    // Who refuses a request need not read the rest of it.
    let _ = client.try_send(request).await;
    let answer = client.answer().await;

    proxy.end().await;
    let got = recorder.got().await;
    match then {
        Refused(status) => {
            assert_eq!(got.concat(), "", "{shown:?}");
            assert_eq!(answer.status, *status, "{shown:?}");
        }
        Passed(bytes) => {
            assert_eq!(got.concat(), *bytes, "{shown:?}");
            assert_eq!(answer.status, 200, "{shown:?}");
        }
    }
}

async fn check_all(cases: &[(&str, Then)]) {
    for (request, then) in cases {
        check(request, then).await;
    }
}

#[tokio::test]
async fn a_length_beside_chunks_is_dropped() {
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    check_all(&[
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            Passed(chunked),
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            Passed(chunked),
        ),
        // TE.CL: what stands behind the last chunk is never a request of its own, for the connection ends here.
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
             GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
            Passed(chunked),
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nTRANSFER-encoding:\tChUnKeD \r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            Passed(chunked),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_coding_other_than_chunked_alone_is_refused() {
    for coding in [
        "identity",
        "gzip, chunked",
        "chunked, chunked",
        "chunked, identity",
        "chunked\r\ntransfer-encoding: identity",
        "identity\r\ntransfer-encoding: chunked",
        "chunked\r\ntransfer-encoding: chunked",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunked,",
        ", chunked",
        "",
        "\x0bchunked",
        "chunked\x0c",
        "chunked\r\n cow",
        "\r\n chunked",
        "chunke\u{131}d",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: {coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        );
        check(request, &Refused(400)).await;
    }
    for name in [
        "transfer-encoding ",
        " transfer-encoding",
        "transfer-encoding\t",
        "transfer\0encoding",
        "\ttransfer-encoding",
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{name}: chunked\r\n\r\n0\r\n\r\n");
        check(request, &Refused(400)).await;
    }
    // A field of another name is no coding.
    check(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer_encoding: chunked\r\n\r\nabc",
        &Passed("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer_encoding: chunked\r\n\r\nabc"),
    )
    .await;
    check("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &Refused(400)).await;
}

#[tokio::test]
async fn a_length_that_is_not_one_number_is_refused() {
    for length in [
        "3\r\ncontent-length: 4",
        "3, 3",
        "3, 4",
        "+3",
        "-3",
        "0x3",
        "3 3",
        "3;",
        "3.0",
        "1e1",
        "",
        "three",
        "\u{0663}",
        "18446744073709551616",
        "99999999999999999999999999",
        "3\x0b",
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nabc");
        check(request, &Refused(400)).await;
    }
    // A number that hyper keeps for itself.
    check("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551615\r\n\r\n", &Refused(431)).await;
    let plain = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    check("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nContent-Length:3\r\n\r\nabc", &Passed(plain))
        .await;
    check("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: \t3 \r\n\r\nabc", &Passed(plain)).await;
}

#[tokio::test]
async fn a_head_that_is_not_made_of_lines_is_refused() {
    for head in [
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r2\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\rcontent-length: 3\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\x002\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n\t2\r\n\r\n",
        "GET / HTTP/1.1\r\n host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx(y): 1\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /\x00 HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nhost: a\r\n\r\n",
        "GET / HTTP/1.2\r\nhost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nhost: a\r\n\r\n",
        "GET / HTTP/0.9\r\nhost: a\r\n\r\n",
        "GET / http/1.1\r\nhost: a\r\n\r\n",
        "GET /\r\nhost: a\r\n\r\n",
        "G(T / HTTP/1.1\r\nhost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        check(head, &Refused(400)).await;
    }
    let plain = "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n\r\n";
    check("GET / HTTP/1.1\nhost: a\nx: 1\n\n", &Passed(plain)).await;
    check("\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n\r\n", &Passed(plain)).await;
}

#[tokio::test]
async fn a_host_that_is_not_one_is_refused() {
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: \r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a:80:80\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a:x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: [::1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: [::1]x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\\b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a#b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a?b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: \u{e4}\r\n\r\n",
        "GET http://u:p@b/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET http://u@b/ HTTP/1.1\r\nhost: b\r\n\r\n",
        "GET http:///x HTTP/1.1\r\nhost: b\r\n\r\n",
        // RFC 9112 section 3.2.3: an authority alone is for CONNECT.
        "GET b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET b:80 HTTP/1.1\r\nhost: a\r\n\r\n",
        // RFC 9112 section 3.2: whatever the target is.
        "GET http://b/ HTTP/1.1\r\n\r\n",
        // RFC 9112 section 3.2.4: for OPTIONS.
        "GET * HTTP/1.1\r\nhost: a\r\n\r\n",
        "CONNECT b:80 HTTP/1.1\r\nhost: b:80\r\n\r\n",
        "CONNECT b HTTP/1.1\r\nhost: b\r\n\r\n",
    ] {
        check(head, &Refused(400)).await;
    }
    check_all(&[
        ("GET http://b/x?y HTTP/1.1\r\nhost: a\r\n\r\n", Passed("GET /x?y HTTP/1.1\r\nhost: b\r\n\r\n")),
        ("GET http://b HTTP/1.1\r\nhost: a\r\n\r\n", Passed("GET / HTTP/1.1\r\nhost: b\r\n\r\n")),
        ("GET http://b?y HTTP/1.1\r\nhost: a\r\n\r\n", Passed("GET /?y HTTP/1.1\r\nhost: b\r\n\r\n")),
        ("GET HTTP://b:8/ HTTP/1.1\r\nhost: a\r\n\r\n", Passed("GET / HTTP/1.1\r\nhost: b:8\r\n\r\n")),
        ("GET //b/x HTTP/1.1\r\nhost: a\r\n\r\n", Passed("GET //b/x HTTP/1.1\r\nhost: a\r\n\r\n")),
        ("GET / HTTP/1.1\r\nHost:\ta:80 \r\n\r\n", Passed("GET / HTTP/1.1\r\nhost: a:80\r\n\r\n")),
        ("GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", Passed("GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n")),
        ("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", Passed("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n")),
        ("GET / HTTP/1.0\r\nhost: a\r\n\r\n", Passed("GET / HTTP/1.1\r\nhost: a\r\n\r\n")),
    ])
    .await;
}

#[tokio::test]
async fn chunks_are_written_anew_or_end_the_request() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in ["3;a=b\r\nabc\r\n0;c\r\n\r\n", "3 ;a\r\nabc\r\n0\r\n\r\n", "003\r\nabc\r\n000\r\n\r\n"] {
        let then = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        check(format!("{head}{body}"), &Passed(then)).await;
    }
    for body in [
        "-3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "x\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    ] {
        let recorder = Recorder::start().await;
        let proxy = Setup::to(recorder.addr).start().await;
        let mut client = proxy.connect().await;

        client.send(format!("{head}{body}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let answer = String::from_utf8_lossy(&client.rest().await).into_owned();

        proxy.end().await;
        let got = recorder.got().await.concat();
        assert!(!answer.contains(" 200 "), "{body:?}: {answer}");
        // Nothing that the backend could take for a complete request.
        assert!(!got.contains("\r\n0\r\n") && !got.contains("smuggled"), "{body:?}: {got}");
    }
}

#[tokio::test]
async fn a_request_behind_another_is_one_of_its_own() {
    check_all(&[
        (
            "GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            Passed("GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n"),
        ),
        // A body of no request is no request either.
        (
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\ngarbage",
            Passed("GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ),
        (
            "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nconnection: close, content-length\r\n\r\nabc",
            Passed("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let fields = |n: usize| (0..n).map(|n| format!("x{n}: y\r\n")).collect::<String>();
    check(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(70_000)), &Refused(431)).await;
    check(format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", fields(100)), &Refused(431)).await;
    check(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(70_000)), &Refused(431)).await;
    check(format!("GET / HTTP/1.1\r\nhost: a\r\n{}: y\r\n\r\n", "y".repeat(70_000)), &Refused(431)).await;
}

#[tokio::test]
async fn a_head_that_is_none_is_answered_without_the_service() {
    let service = tower::service_fn(async |_: Request<Body>| Ok::<_, Error>(Response::new(Body::empty())));
    let options = ServerOptions::default().with_max_head_bytes(128 * 1024);
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr();
    tokio::spawn(server.serve(HttpServer::with_options(service, options), Drain::new()));
    let target = |n: usize| format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(n - 1));
    let fields = |n: usize| format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(n - 1));

    for (head, status) in [
        ("GET / HTTP/1.1\r\nhost a\r\n\r\n".to_owned(), 400),
        (target(65_534), 200),
        (target(65_535), 414),
        (fields(100), 200),
        (fields(101), 431),
    ] {
        let mut client = Wire::connect(addr).await;
        client.send(&head).await;

        assert_eq!(client.answer().await.status, status, "{:?}", &head[..20]);
    }
}
