//! Endpoints that can be connected to, and then do badly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meshlib::test_util::Echo;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::time;

use crate::process::Program;
use crate::talk::ask;
use crate::talk::exchange;
use crate::talk::fixed;
use crate::talk::metric_is;
use crate::talk::until;

/// An endpoint that echoes, each time after a third of a second; and how many clients it had.
async fn slow() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accepted = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&accepted);
    // Ends with the test's runtime.
    tokio::spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut buf = [0; 64];
                while let Ok(n @ 1..) = io.read(&mut buf).await {
                    time::sleep(Duration::from_millis(333)).await;
                    if io.write_all(&buf[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (addr, accepted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_answers_slowly_gets_few_clients() {
    const CLIENTS: usize = 40;
    let (slow, accepted) = slow().await;
    let fast = Echo::start().await;
    let program = Program::start(&fixed(&[slow, fast.addr()], "", "loadBalancer: {kind: ewma}"));

    for _ in 0..CLIENTS {
        exchange(program.addr()).await.unwrap();
    }

    // One after the other, both are idle each time, and without answer times each would get half.
    let accepted = accepted.load(Ordering::SeqCst);
    assert!(accepted < CLIENTS / 4, "{accepted} of {CLIENTS}");
    assert!(accepted + fast.accepted() >= CLIENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_endpoint_is_seen_whatever_the_balancer() {
    let (slow, accepted) = slow().await;
    let fast = Echo::start().await;
    let program = Program::start(&fixed(&[slow, fast.addr()], "", ""));
    while accepted.load(Ordering::SeqCst) == 0 || fast.accepted() == 0 {
        exchange(program.addr()).await.unwrap();
    }

    let state = ask(program.admin(), "GET", "/state.json").await.unwrap().body;
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let endpoints = state["destinations"][0]["endpoints"].as_array().unwrap();
    let answers_in = |addr: SocketAddr| {
        let endpoint = endpoints.iter().find(|it| it["addr"] == addr.to_string()).unwrap();
        endpoint["answer_time_ms"].as_f64().unwrap()
    };
    assert!(answers_in(slow) >= 333.0 && answers_in(fast.addr()) < 333.0, "{state:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_breaks_connections_is_seen() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let breaks = listener.local_addr().unwrap();
    // Ends with the test's runtime.
    tokio::spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            let _ = io.read(&mut [0; 64]).await;
            let _ = io.write_all(b"he").await;
            time::sleep(Duration::from_millis(50)).await;
            let _ = io.set_zero_linger();
        }
    });
    let program = Program::start(&fixed(&[breaks], "", ""));

    exchange(program.addr()).await.unwrap_err();

    let endpoint = || async {
        let state = ask(program.admin(), "GET", "/state.json").await.unwrap().body;
        let mut state: serde_json::Value = serde_json::from_str(&state).unwrap();
        state["destinations"][0]["endpoints"][0].take()
    };
    until("it is counted", async || endpoint().await["broken"] == 1).await;
    // It can be connected to.
    assert_eq!((&endpoint().await["failed"], &endpoint().await["state"]), (&0.into(), &"ready".into()));
    program.stderr().wait_for("a line about it", |line| {
        line.contains("endpoint broke a connection") && line.contains(&breaks.to_string())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_accepts_and_never_answers_is_seen() {
    const NAME: &str = "linkerd_tcp_connections_unanswered_total";
    // The kernel accepts for it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let program = Program::start(&fixed(&[silent.local_addr().unwrap()], "", ""));
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut io = TcpStream::connect(program.addr()).await.unwrap();
        io.write_all(b"anybody?").await.unwrap();
        clients.push(io);
    }
    // Who says nothing is owed nothing.
    clients.push(TcpStream::connect(program.addr()).await.unwrap());
    time::sleep(Duration::from_millis(1200)).await;

    // One has enough of it; the others are patient.
    clients.swap_remove(0).set_zero_linger().unwrap();

    metric_is(program.admin(), NAME, "router=\"default\"", 1.0).await;
    // Between 10 and 20 s after they have asked.
    time::sleep(Duration::from_secs(10)).await;
    metric_is(program.admin(), NAME, "router=\"default\"", 3.0).await;
    let state = ask(program.admin(), "GET", "/state.json").await.unwrap().body;
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let endpoint = &state["destinations"][0]["endpoints"][0];
    assert_eq!((&endpoint["unanswered"], &endpoint["failed"]), (&3.into(), &0.into()));
    assert_eq!(endpoint["why"], "did not answer 3 times in a row");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_first_bytes_take_is_counted() {
    let backend = Echo::start().await;
    let program = Program::start(&fixed(&[backend.addr()], "", ""));

    for _ in 0..3 {
        exchange(program.addr()).await.unwrap();
    }

    metric_is(program.admin(), "linkerd_tcp_first_byte_seconds_count", "", 3.0).await;
    metric_is(program.admin(), "linkerd_tcp_connections_unanswered_total", "", 0.0).await;
}
