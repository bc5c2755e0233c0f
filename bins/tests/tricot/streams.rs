//! Bodies, upgrades, and instances that break off.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::or_skip;
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::ask::Client;
use crate::process::SOON;
use crate::process::Tricot;
use crate::process::until;

const HOST: &str = "app.example.com";

/// An instance that reads a head and then does what it is told with the connection.
struct Scripted {
    port: u16,
    heads: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Scripted {
    async fn start<F>(then: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&heads);
        let then = Arc::new(then);
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, then) = (Arc::clone(&seen), Arc::clone(&then));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await?);
                    }
                    seen.fetch_add(1, Ordering::Relaxed);
                    then(stream).await
                });
            }
        });
        Self { port, heads, accepting }
    }

    fn asked(&self) -> usize {
        self.heads.load(Ordering::Relaxed)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serving(ports: &[u16], variables: &[(&str, &str)]) -> Option<(Consul, Tricot, Client)> {
    let consul = or_skip(Consul::start(ConsulOptions::default()).await)?;
    for port in ports {
        consul.service("n1", "web", &format!("web-{port}"), *port, &["tricot app.example.com"]).await;
    }
    let tricot = Tricot::start_with(&consul, variables).await;
    let client = Client::lenient(tricot.https);
    Some((consul, tricot, client))
}

/// Switches protocols and sends back what comes.
async fn echo() -> Scripted {
    Scripted::start(|mut stream| async move {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        stream.write_all(switch.as_bytes()).await?;
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await?;
        Ok(())
    })
    .await
}

fn upgrade() -> String {
    format!("GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
}

#[tokio::test]
async fn an_upgrade_is_a_pipe_that_outlives_its_rule_and_a_drain() {
    let echo = echo().await;
    let variables = [("TRICOT_SHUTDOWN_GRACE", "20s"), ("TRICOT_IDLE_TIMEOUT", "100ms")];
    let Some((consul, mut tricot, client)) = serving(&[echo.port], &variables).await else { return };
    let mut conn = client.connect(HOST).await.unwrap();

    let answer = conn.send(&upgrade()).await.unwrap();
    assert_eq!((answer.status, answer.field("upgrade")), (101, Some("echo")));
    conn.write("one").await.unwrap();
    assert_eq!(conn.exactly(3).await.unwrap(), b"one");
    let shown = crate::ask::page(tricot.metrics, "/metrics").await.text();
    assert!(shown.contains(r#"tricot_requests_in_flight{service="web"} 1"#), "{shown}");

    consul.deregister(&format!(r#"{{"Node": "n1", "ServiceID": "web-{}"}}"#, echo.port)).await;
    until("no rule", async || client.status(HOST, "/").await == Some(404)).await;
    conn.write("two").await.unwrap();
    assert_eq!(conn.exactly(3).await.unwrap(), b"two");

    tricot.signal(Signal::TERM);
    tricot.logs("draining").await;
    conn.write("three").await.unwrap();
    assert_eq!(conn.exactly(5).await.unwrap(), b"three");
    drop(conn);
    assert_eq!(tricot.exit(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_ended_as_if_it_were_whole() {
    let broken = Scripted::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await
    })
    .await;
    let Some((_consul, _tricot, client)) = serving(&[broken.port], &[]).await else { return };

    let answer = client.get(HOST, "/").await;

    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(broken.asked(), 1, "nothing is asked twice once an answer has begun");
}

#[tokio::test]
async fn an_instance_that_hangs_up_is_a_502_and_is_not_sent_a_body_twice() {
    let hangs_up = || {
        Scripted::start(|mut stream| async move {
            let mut body = [0; 5];
            stream.read_exact(&mut body).await?;
            Ok(())
        })
    };
    let (one, two) = (hangs_up().await, hangs_up().await);
    let Some((_consul, _tricot, client)) = serving(&[one.port, two.port], &[]).await else { return };
    let post = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello");

    assert_eq!(client.send(HOST, &post).await.unwrap().status, 502);

    assert_eq!(one.asked() + two.asked(), 1);
}

#[tokio::test]
async fn nonsense_instead_of_an_answer_is_a_502() {
    let odd =
        Scripted::start(|mut stream| async move { stream.write_all(b"SSH-2.0-odd\r\n\r\n").await }).await;
    let Some((_consul, _tricot, client)) = serving(&[odd.port], &[]).await else { return };

    let answer = client.get(HOST, "/").await.unwrap();

    assert_eq!((answer.status, answer.field("content-type")), (502, Some("text/plain; charset=utf-8")));
    assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
}

#[tokio::test]
async fn bodies_are_passed_on_as_they_come() {
    let (first, rest) = tokio::sync::oneshot::channel::<()>();
    let rest = Arc::new(tokio::sync::Mutex::new(Some(rest)));
    let slow = Scripted::start(move |mut stream| {
        let rest = Arc::clone(&rest);
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").await?;
            if let Some(rest) = rest.lock().await.take() {
                let _ = rest.await;
            }
            stream.write_all(b"after").await
        }
    })
    .await;
    let on = [("TRICOT_ENABLE_COMPRESSION", "true")];
    let Some((_consul, _tricot, client)) = serving(&[slow.port], &on).await else { return };
    let mut conn = client.connect(HOST).await.unwrap();

    conn.write(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: gzip\r\n\r\n")).await.unwrap();
    let mut text = String::new();
    while !text.ends_with("first") {
        let byte = tokio::time::timeout(SOON, conn.exactly(1)).await.expect("the first half comes").unwrap();
        text.push_str(&String::from_utf8_lossy(&byte));
    }
    first.send(()).unwrap();
    assert_eq!(conn.exactly(5).await.unwrap(), b"after");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_reaches_nobody() {
    let echo = echo().await;
    let Some((_consul, _tricot, client)) = serving(&[echo.port], &[]).await else { return };
    let many = "X-Field: value\r\n".repeat(200);
    let long = format!("X-Field: {}\r\n", "x".repeat(256 * 1024));
    for (fields, status) in [
        ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
        ("Transfer-Encoding: odd\r\n", 400),
        ("X-Folded: a\r\n b\r\n", 400),
        ("X\rY: a\r\n", 400),
        (many.as_str(), 431),
        (long.as_str(), 431),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n");
        let answer = client.send(HOST, &request).await.unwrap();
        assert_eq!(answer.status, status, "{}", &fields[..fields.len().min(60)]);
    }
    assert_eq!(echo.asked(), 0);
}
