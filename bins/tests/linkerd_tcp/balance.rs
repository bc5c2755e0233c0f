//! Which endpoint a client gets, and what it sees of those that fail.

use std::time::Duration;

use meshlib::test_util::Echo;
use meshlib::test_util::EchoOptions;
use meshlib::test_util::echo;
use tokio::net::TcpStream;
use tokio::time;
use tokio::time::Instant;

use crate::process::Program;
use crate::talk;
use crate::talk::NAME;
use crate::talk::ask;
use crate::talk::closed_after;
use crate::talk::dead;
use crate::talk::exchange;
use crate::talk::fixed;
use crate::talk::interpreter;
use crate::talk::metric_is;
use crate::talk::metrics;
use crate::talk::proxies;
use crate::talk::routers;
use crate::talk::routers_with;
use crate::talk::sum;
use crate::talk::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_one_after_the_other_are_spread_by_weight() {
    // Enough that three points are more than four standard deviations.
    const CONNECTIONS: usize = 6_000;
    let backends = [Echo::start().await, Echo::start().await, Echo::start().await];
    let weights = [1.0, 1.0, 0.1];
    let endpoints: Vec<_> =
        backends.iter().zip(weights).map(|(echo, weight)| (echo.addr(), weight)).collect();
    let program = Program::start(&routers_with(&interpreter(&endpoints), "", ""));
    let addr = program.addr();

    for _ in 0..CONNECTIONS {
        exchange(addr).await.unwrap();
    }

    for (echo, weight) in backends.iter().zip(weights) {
        let share = echo.accepted() as f64 / CONNECTIONS as f64 * 100.0;
        let ideal = weight / 2.1 * 100.0;
        assert!((share - ideal).abs() < 3.0, "weight {weight} got {share} % and not {ideal} %");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_connections_are_spread_by_weight() {
    const HELD: usize = 210;
    let backends = [Echo::start().await, Echo::start().await, Echo::start().await];
    let weights = [1.0, 1.0, 0.1];
    let endpoints: Vec<_> =
        backends.iter().zip(weights).map(|(echo, weight)| (echo.addr(), weight)).collect();
    let program = Program::start(&routers_with(&interpreter(&endpoints), "", ""));

    let mut held = Vec::new();
    for _ in 0..HELD {
        let mut io = TcpStream::connect(program.addr()).await.unwrap();
        assert_eq!(echo(&mut io, b"x").await.unwrap(), b"x");
        held.push(io);
    }

    let open: Vec<_> = backends.iter().map(Echo::open).collect();
    for (open, ideal) in open.iter().zip([100, 100, 10]) {
        assert!(open.abs_diff(ideal) <= ideal / 10 + 1, "{open} and not {ideal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusing_endpoint_is_never_seen_and_one_that_comes_back_is_used() {
    let (reserved, gone) = dead();
    let lives = Echo::start().await;
    let program = Program::start(&fixed(&[gone, lives.addr()], "", "failFast: {failurePenaltySecs: 1}"));

    for _ in 0..100 {
        exchange(program.addr()).await.unwrap();
    }
    assert_eq!(lives.accepted(), 100);
    let refused = sum(&metrics(program.admin()).await, "l5d:balancer:connection:failure", "refused");
    // Five in a row put it out, and each second of penalty allows one more.
    assert!((1.0..=20.0).contains(&refused), "{refused} refusals");

    drop(reserved);
    let back = EchoOptions::default().with_addr(gone).start().await.unwrap();
    until("the endpoint is used again", async || {
        exchange(program.addr()).await.unwrap();
        back.accepted() > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_alone_and_comes_back_is_used_within_its_backoff() {
    let (reserved, addr) = dead();
    let program = Program::start(&fixed(&[addr], "", ""));
    let proxy = program.addr();
    let waiting = tokio::spawn(exchange(proxy));
    // By now it has been refused often enough for the longest pause.
    metric_at_least(&program, "l5d:balancer:connection:failure", "refused", 6.0).await;

    drop(reserved);
    let _back = EchoOptions::default().with_addr(addr).start().await.unwrap();
    let began = Instant::now();

    waiting.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_millis(2_000), "after {:?}", began.elapsed());
}

async fn metric_at_least(program: &Program, name: &str, labels: &str, wanted: f64) {
    until(&format!("{name} of {wanted}"), async || {
        sum(&metrics(program.admin()).await, name, labels) >= wanted
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_endpoints_down_clients_wait_for_ten_seconds_and_the_processor_idles() {
    let endpoints = [dead(), dead()];
    let addrs: Vec<_> = endpoints.iter().map(|(_, addr)| *addr).collect();
    let program = Program::start(&fixed(&addrs, "", ""));
    let proxy = program.addr();
    let waiting: Vec<_> = (0..20).map(|_| tokio::spawn(closed_after(proxy))).collect();
    metric_is(program.admin(), "l5d:srv:waiters", "", 20.0).await;
    // The pauses have reached their full length after two seconds.
    time::sleep(Duration::from_secs(3)).await;

    let (before, began) = (program.cpu(), Instant::now());
    time::sleep(Duration::from_secs(3)).await;
    let used = program.cpu().saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64();

    // A debug build needs more than one that is shipped.
    assert!(used < 0.014, "{:.2} % of a processor", used * 100.0);
    for closed in waiting {
        let after = closed.await.unwrap();
        assert!(after > Duration::from_millis(9_900) && after < Duration::from_millis(10_500), "{after:?}");
    }
    metric_is(program.admin(), "l5d:srv:waiters", "", 0.0).await;
    metric_is(program.admin(), "l5d:balancer:waiters", "", 0.0).await;
    metric_is(program.admin(), "l5d:srv:connect:failure", "timeout", 20.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_limit_is_kept_exactly() {
    let (_reserved, addr) = dead();
    let program = Program::start(&fixed(&[addr], "connectTimeoutMs: 500", ""));

    for _ in 0..3 {
        let after = closed_after(program.addr()).await;
        assert!(after >= Duration::from_millis(495), "{after:?}");
        assert!(after < Duration::from_millis(650), "{after:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_without_endpoints_is_given_up_after_a_second_or_after_the_configured_limit() {
    let namerd = talk::namerd(&[]).await;
    let program = Program::start(&routers(&namerd.url(), "", ""));
    until("the answer is there", async || ask(program.admin(), "GET", "/ready").await.unwrap().status == 200)
        .await;
    let after = closed_after(program.addr()).await;
    assert!(after >= Duration::from_millis(990) && after < Duration::from_millis(1_500), "{after:?}");

    let program = Program::start(&routers(&namerd.url(), "connectTimeoutMs: 2000", ""));
    until("the answer is there", async || ask(program.admin(), "GET", "/ready").await.unwrap().status == 200)
        .await;
    let after = closed_after(program.addr()).await;
    assert!(after >= Duration::from_millis(1_990) && after < Duration::from_millis(2_500), "{after:?}");
    metric_is(program.admin(), "l5d:balancer:unavailable", NAME, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_outlive_their_endpoint() {
    for first_generation in [true, false] {
        let backend = Echo::start().await;
        let other = Echo::start().await;
        let namerd = talk::namerd(&[backend.addr()]).await;
        let config =
            if first_generation { proxies(&namerd.url(), "") } else { routers(&namerd.url(), "", "") };
        let program = Program::start(&config);
        let mut io = TcpStream::connect(program.addr()).await.unwrap();
        assert_eq!(echo(&mut io, b"before").await.unwrap(), b"before");

        talk::set(&namerd, &[other.addr()]);
        let retired = if first_generation { "endpoints_retired" } else { "l5d:balancer:endpoint:retired" };
        metric_is(program.admin(), retired, "", 1.0).await;
        for _ in 0..20 {
            exchange(program.addr()).await.unwrap();
        }

        assert_eq!(echo(&mut io, b"after").await.unwrap(), b"after");
        assert_eq!((backend.accepted(), other.accepted()), (1, 20));
        drop(io);
        metric_is(program.admin(), retired, "", 0.0).await;
    }
}

/// By an error even where nothing else is logged, and once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_every_endpoint_is_out_is_told_and_why_is_shown() {
    let (_reserved, addr) = dead();
    let program =
        Program::start(&fixed(&[addr], "connectTimeoutMs: 500", "failFast: {maxConsecutiveFailures: 1}"));

    let _ = exchange(program.addr()).await;

    let said =
        program.stderr().wait_for("the outage", |line| line.contains("no endpoint can be connected to"));
    assert!(said.contains("ERROR") && said.contains(r#""dst":"/svc/web""#), "{said}");
    let state = ask(program.admin(), "GET", "/state.json").await.unwrap().body;
    assert!(state.contains("Connection refused"), "{state}");
    assert_eq!(program.stderr().count("no endpoint can be connected to"), 1);
}
