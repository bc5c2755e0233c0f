//! Bodies, upgrades, and instances that break off.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::or_skip;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::ask::Client;
use crate::ask::page;
use crate::certificates::metric;
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
    let shown = page(tricot.metrics, "/metrics").await.text();
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
async fn an_instance_that_takes_requests_and_never_answers_is_seen() {
    let silent = Scripted::start(|stream| async move {
        let _held = stream;
        std::future::pending().await
    })
    .await;
    let Some((_consul, tricot, client)) = serving(&[silent.port], &[]).await else { return };

    // Who leaves at once does not mean it.
    let mut conn = client.connect(HOST).await.unwrap();
    conn.write(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    until("a request", async || silent.asked() == 1).await;
    drop(conn);
    tricot.logs(r#""status":499"#).await;

    for _ in 0..2 {
        let answer = tokio::time::timeout(Duration::from_secs(3), client.get(HOST, "/")).await;
        assert!(answer.is_err(), "{answer:?}");
    }

    let endpoint = async || {
        let state = page(tricot.metrics, "/state.json").await.text();
        let state: Value = serde_json::from_str(&state).unwrap();
        state["destinations"][0]["endpoints"][0].clone()
    };
    until("it is counted", async || endpoint().await["unanswered"] == 2).await;
    assert_eq!(endpoint().await["why"], "did not answer 2 times in a row");
    tricot.logs(&format!(r#""instance":"web-{}""#, silent.port)).await;
    let lines: Vec<String> =
        tricot.log().all().into_iter().filter(|line| line.contains("an instance did not answer")).collect();
    assert_eq!(lines.len(), 1, "one for a while: {lines:?}");
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    assert!(!line["took"].as_str().unwrap().ends_with("ms"), "{line}");
}

#[tokio::test]
async fn an_instance_that_resets_in_the_middle_of_a_body_is_named_and_counted() {
    for (how, head) in [
        ("stdout", "Content-Length: 10\r\n\r\nhello"),
        ("json", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("text", "Transfer-Encoding: chunked\r\n\r\na\r\nhello"),
    ] {
        let (reset, told) = tokio::sync::watch::channel(false);
        let broken = Scripted::start(move |mut stream| {
            let mut told = told.clone();
            async move {
                stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes()).await?;
                let _ = told.wait_for(|reset| *reset).await;
                stream.set_zero_linger()
            }
        })
        .await;
        let variables = [("TRICOT_ACCESS_LOG", how)];
        let Some((consul, tricot, client)) = serving(&[broken.port], &variables).await else { return };
        for path in ["/one", "/two"] {
            reset.send_replace(false);
            let mut conn = client.connect(HOST).await.unwrap();
            conn.write(&format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
            let mut text = String::new();
            while !text.contains("hello") {
                text.push_str(&String::from_utf8_lossy(&conn.exactly(1).await.unwrap()));
            }

            reset.send_replace(true);

            assert!(conn.exactly(100).await.is_err());
            tricot.logs(path).await;
        }
        let log = tricot.log().all();
        let line = log.iter().find(|line| line.contains("/one")).unwrap();
        let id = format!("web-{}", broken.port);
        if how == "text" {
            assert!(line.contains(&format!(" web cut=instance n1 {id} \"")), "{line}");
        } else {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["complete"], &line["cut_by"]), (&false.into(), &"instance".into()), "{line}");
            assert_eq!((&line["node"], &line["instance"]), (&"n1".into(), &id.as_str().into()), "{line}");
            assert!(line["reason"].is_string(), "{line}");
        }
        let labels = r#"kind="body", node="n1", service="web""#;
        assert_eq!(metric(&tricot, "tricot_backend_errors_total", labels).await, 2.0);
        assert_eq!(endpoint(&tricot).await["broken"], 2);
        consul
            .service("n1", "web", &id, broken.port, &["tricot app.example.com", "tricot more.example.com"])
            .await;
        until("tags that are others", async || {
            page(tricot.metrics, "/rules").await.text().contains("more.example.com")
        })
        .await;
        assert_eq!(endpoint(&tricot).await["broken"], 2);
        let warned: Vec<_> = log.iter().filter(|line| line.contains("an instance broke off")).collect();
        assert!(warned.len() == 1 && warned[0].contains(r#""level":"WARN""#), "{warned:?}");
        assert!(warned[0].contains(&id), "{warned:?}");
    }
}

#[tokio::test]
async fn a_request_that_waits_for_its_answer_is_no_connection_that_is_opened() {
    let silent = Scripted::start(|mut stream| async move { stream.read_u8().await.map(drop) }).await;
    let Some((_consul, tricot, client)) = serving(&[silent.port], &[]).await else { return };
    let mut conn = client.connect(HOST).await.unwrap();
    conn.write(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    until("the request", async || silent.asked() == 1).await;

    let row = endpoint(&tricot).await;

    assert_eq!((&row["in_flight"], &row["connecting"]), (&1.into(), &0.into()), "{row}");
}

/// The first endpoint, as it is shown.
async fn endpoint(tricot: &Tricot) -> Value {
    let state: Value = serde_json::from_str(&page(tricot.metrics, "/state.json").await.text()).unwrap();
    state["destinations"][0]["endpoints"][0].clone()
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_body_is_no_fault_of_the_instance() {
    let slow = Scripted::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await?;
        // Until the proxy gives it up.
        stream.read_u8().await.map(drop)
    })
    .await;
    let Some((_consul, tricot, client)) = serving(&[slow.port], &[]).await else { return };
    let mut conn = client.connect(HOST).await.unwrap();
    conn.write(&format!("GET /left HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    let mut text = String::new();
    while !text.contains("hello") {
        text.push_str(&String::from_utf8_lossy(&conn.exactly(1).await.unwrap()));
    }

    drop(conn);

    tricot.logs("/left").await;
    let line = tricot.log().all().into_iter().find(|line| line.contains("/left")).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["complete"], &line["cut_by"]), (&false.into(), &"client".into()), "{line}");
    assert_eq!((line.get("reason"), line.get("instance")), (None, None), "{line}");
    assert_eq!(metric(&tricot, "tricot_backend_errors_total", "").await, 0.0);
    assert_eq!(tricot.log().count("an instance broke off"), 0);
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
