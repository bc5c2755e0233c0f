//! Compressed answers as clients see them on the wire.

#![cfg(feature = "compress")]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::bufread::GzipDecoder;
use bytes::Bytes;
use futures::StreamExt;
use http::HeaderValue;
use http::Request;
use http::Response;
use meshlib::Drain;
use meshlib::Error;
use meshlib::Server;
use meshlib::http::Body;
use meshlib::http::CompressLayer;
use meshlib::http::HttpServer;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time;
use tower::BoxError;
use tower::Layer;

/// What must happen at all must happen within this.
const SOON: Duration = Duration::from_secs(10);

/// What a client reads until the server closes the connection: the head, and what comes after it.
async fn asked(request: &str) -> io::Result<(String, Vec<u8>)> {
    let reading = Arc::new(Notify::new());
    let seen = Arc::clone(&reading);
    let pages = tower::service_fn(move |request: Request<Body>| {
        let seen = Arc::clone(&seen);
        // Breaks off when the beginning has arrived.
        let chunks = futures::stream::once(async { Ok::<Bytes, BoxError>(page().into()) }).chain(
            futures::stream::once(async move {
                seen.notified().await;
                Err("broken".into())
            }),
        );
        let body = match request.uri().path() {
            "/broken" => Body::from_stream(chunks),
            _ => Body::from(page()),
        };
        let mut response = Response::new(body);
        response.headers_mut().insert("content-type", HeaderValue::from_static("text/html"));
        std::future::ready(Ok::<_, Error>(response))
    });
    let server = Server::bind("127.0.0.1:0").await?;
    let addr = server.local_addr();
    let serving =
        tokio::spawn(server.serve(HttpServer::new(CompressLayer::default().layer(pages)), Drain::new()));

    let mut client = TcpStream::connect(addr).await?;
    client.write_all(format!("{request}host: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    time::timeout(SOON, client.read_buf(&mut answer)).await.expect("the server answers")?;
    reading.notify_one();
    time::timeout(SOON, client.read_to_end(&mut answer)).await.expect("the server closes")?;
    serving.abort();

    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("there is a head") + 4;
    let body = answer.split_off(end);
    Ok((String::from_utf8_lossy(&answer).to_lowercase(), body))
}

fn page() -> String {
    "<p>hello</p>".repeat(1000)
}

/// The data of chunks, RFC 9112 section 7.1; an error if the last one is missing.
fn unchunked(mut body: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut data = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").ok_or("a size is missing")?;
        let size = std::str::from_utf8(&body[..end]).map_err(|_| "a size is no text")?;
        let size = usize::from_str_radix(size, 16).map_err(|_| "a size is no number")?;
        body = &body[end + 2..];
        data.extend_from_slice(body.get(..size).ok_or("a chunk is cut off")?);
        body = body.get(size + 2..).ok_or("an end is missing")?;
        if size == 0 {
            return Ok(data);
        }
    }
}

#[tokio::test]
async fn a_client_gets_chunks_that_it_can_decode() {
    let (head, body) = asked("GET / HTTP/1.1\r\naccept-encoding: deflate, gzip\r\n").await.unwrap();

    assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{head}");
    assert!(head.contains("\r\nvary: accept-encoding\r\n"), "{head}");
    assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    let encoded = unchunked(&body).unwrap();
    let mut plain = String::new();
    GzipDecoder::new(&encoded[..]).read_to_string(&mut plain).await.unwrap();
    assert_eq!(plain, page());
}

#[tokio::test]
async fn a_client_that_asks_for_nothing_gets_the_page() {
    for request in ["GET / HTTP/1.1\r\n", "GET / HTTP/1.0\r\naccept-encoding: gzip;q=0\r\n"] {
        let (head, body) = asked(request).await.unwrap();

        assert!(head.contains("\r\ncontent-length: 12000\r\n"), "{head}");
        assert!(head.contains("\r\nvary: accept-encoding\r\n"), "{head}");
        assert!(!head.contains("content-encoding"), "{head}");
        assert_eq!(body, page().as_bytes());
    }
}

#[tokio::test]
async fn a_head_is_answered_without_a_body() {
    let (head, body) = asked("HEAD / HTTP/1.1\r\naccept-encoding: gzip\r\n").await.unwrap();

    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(!head.contains("content-encoding"), "{head}");
    assert!(body.is_empty());
}

#[tokio::test]
async fn a_page_that_breaks_off_is_cut_off() {
    let (head, body) = asked("GET /broken HTTP/1.1\r\naccept-encoding: gzip\r\n").await.unwrap();

    assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{head}");
    assert!(unchunked(&body).is_err(), "the end is there");
}
