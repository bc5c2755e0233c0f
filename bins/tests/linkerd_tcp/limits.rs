//! Limits on connections, and the time that they may take.

use std::process::Command;
use std::time::Duration;

use meshlib::test_util::Echo;
use meshlib::test_util::echo;
use meshlib_namerd::server::Fault;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time;
use tokio::time::Instant;

use crate::process::PROGRAM;
use crate::process::Program;
use crate::process::SOON;
use crate::talk;
use crate::talk::NAME;
use crate::talk::closed_after;
use crate::talk::dead;
use crate::talk::fixed;
use crate::talk::metric_is;
use crate::talk::metrics;
use crate::talk::proxies;
use crate::talk::sum;

/// Opens a connection through the proxy and makes sure that it works.
async fn open(program: &Program) -> TcpStream {
    let mut io = TcpStream::connect(program.addr()).await.unwrap();
    assert_eq!(time::timeout(SOON, echo(&mut io, b"x")).await.expect("in time").unwrap(), b"x");
    io
}

/// How long it takes until a connection is closed.
async fn ends_after(mut io: TcpStream) -> Duration {
    let began = Instant::now();
    let mut rest = Vec::new();
    // A close and a reset are the same here.
    let _ = time::timeout(SOON, io.read_to_end(&mut rest)).await.expect("it ends");
    assert!(rest.is_empty());
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_generation_stops_accepting_when_enough_clients_wait() {
    // With room for nobody, nobody could be served.
    for (max_waiters, waiting) in [(3, 3.0), (0, 1.0)] {
        let backend = Echo::start().await;
        let namerd = talk::namerd(&[backend.addr()]).await;
        namerd.fault("default", NAME, Fault::Hold).unwrap();
        let config = proxies(&namerd.url(), &format!("maxWaiters: {max_waiters}"));
        let program = Program::start_in(tempfile::tempdir().unwrap(), &config, &["--workers", "1"]);

        // The kernel takes them all, the program only as many as may wait.
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(TcpStream::connect(program.addr()).await.unwrap());
        }
        metric_is(program.admin(), "connects", "", waiting).await;
        time::sleep(Duration::from_millis(300)).await;
        assert_eq!(sum(&metrics(program.admin()).await, "connects", ""), waiting);

        // All of them are served, once it is known by whom.
        namerd.fault("default", NAME, None).unwrap();
        for mut client in clients {
            assert_eq!(time::timeout(SOON, echo(&mut client, b"x")).await.expect("in time").unwrap(), b"x");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_generation_closes_whom_there_is_no_room_for() {
    let (_reserved, addr) = dead();
    let program = Program::start(&fixed(&[addr], "connectTimeoutMs: 5000", "maxWaiters: 2"));
    let waiting = [
        TcpStream::connect(program.addr()).await.unwrap(),
        TcpStream::connect(program.addr()).await.unwrap(),
    ];
    metric_is(program.admin(), "l5d:balancer:waiters", "", 2.0).await;

    for _ in 0..3 {
        let after = closed_after(program.addr()).await;
        assert!(after < Duration::from_millis(500), "{after:?}");
    }

    metric_is(program.admin(), "l5d:balancer:unavailable", "", 3.0).await;
    assert_eq!(sum(&metrics(program.admin()).await, "l5d:balancer:waiters", ""), 2.0);
    drop(waiting);
    metric_is(program.admin(), "l5d:balancer:waiters", "", 0.0).await;
    metric_is(program.admin(), "l5d:srv:waiters", "", 0.0).await;
}

/// With room for nobody, nobody could be served while the first connection is being opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_second_generation_one_client_may_wait_at_least() {
    let (_reserved, addr) = dead();
    let program = Program::start(&fixed(&[addr], "connectTimeoutMs: 5000", "maxWaiters: 0"));
    let waiting = TcpStream::connect(program.addr()).await.unwrap();
    metric_is(program.admin(), "l5d:balancer:waiters", "", 1.0).await;

    let after = closed_after(program.addr()).await;

    assert!(after < Duration::from_millis(2_500), "{after:?}");
    metric_is(program.admin(), "l5d:balancer:unavailable", "", 1.0).await;
    drop(waiting);
    metric_is(program.admin(), "l5d:balancer:waiters", "", 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_lifetime() {
    let backend = Echo::start().await;
    let program = Program::start(&fixed(&[backend.addr()], "connectionLifetimeSecs: 1", ""));
    let io = open(&program).await;

    let after = ends_after(io).await;

    assert!(after > Duration::from_millis(900) && after < Duration::from_millis(1_500), "{after:?}");
    metric_is(program.admin(), "l5d:srv:stream:failure", r#"cause="timeout""#, 1.0).await;
    metric_is(program.admin(), "l5d:srv:failures", "", 1.0).await;
    metric_is(program.admin(), "l5d:srv:active", "", 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream_ends_and_one_that_speaks_does_not() {
    let backend = Echo::start().await;
    let program = Program::start(&fixed(&[backend.addr()], "idleTimeoutMs: 500", ""));
    let mut speaks = open(&program).await;
    let silent = tokio::spawn(ends_after(open(&program).await));

    for _ in 0..10 {
        assert_eq!(echo(&mut speaks, b"still here").await.unwrap(), b"still here");
        time::sleep(Duration::from_millis(100)).await;
    }

    let after = silent.await.unwrap();
    assert!(after > Duration::from_millis(450) && after < Duration::from_millis(1_100), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_stream_may_be_limited() {
    let (listener, program) = listening("halfCloseTimeoutMs: 400").await;
    let mut client = TcpStream::connect(program.addr()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();

    tokio::io::AsyncWriteExt::shutdown(&mut client).await.unwrap();
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);

    let after = ends_after(client).await;
    assert!(after > Duration::from_millis(350) && after < Duration::from_millis(1_000), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_connections_live_than_are_allowed() {
    let backend = Echo::start().await;
    let program = Program::start(&fixed(&[backend.addr()], "maxConcurrency: 2", ""));
    let (first, second) = (open(&program).await, open(&program).await);

    let mut third = TcpStream::connect(program.addr()).await.unwrap();
    assert!(time::timeout(Duration::from_millis(300), echo(&mut third, b"x")).await.is_err());
    assert_eq!(backend.accepted(), 2);
    assert_eq!(sum(&metrics(program.admin()).await, "l5d:srv:accepts", ""), 2.0);

    drop(first);
    let mut answer = [0];
    time::timeout(SOON, third.read_exact(&mut answer)).await.expect("in time").unwrap();
    assert_eq!(&answer, b"x");
    drop(second);
}

/// One attempt that hangs is given up, and another endpoint is tried within the client's time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_hangs_is_repeated_elsewhere() {
    // A TCP connection that is never accepted counts as connected; TLS makes it hang.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ca = meshlib::test_util::TestCa::new();
    let works = Echo::start_tls(ca.server_config(["backend"])).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    let client = "connectTimeoutMs: 200\ntls: {dnsName: backend, trustCerts: [ca.pem]}";
    let config = fixed(&[silent.local_addr().unwrap(), works.addr()], "connectTimeoutMs: 3000", client);
    let program = Program::start_in(dir, &config, &[]);

    for _ in 0..6 {
        drop(open(&program).await);
    }

    metric_is(program.admin(), "l5d:srv:connect:failure", "", 0.0).await;
    assert!(sum(&metrics(program.admin()).await, "l5d:balancer:connection:failure", "timeout") >= 1.0);
}

async fn listening(server: &str) -> (tokio::net::TcpListener, Program) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let program = Program::start(&fixed(&[listener.local_addr().unwrap()], server, ""));
    (listener, program)
}

/// Servers may share a destination and its balancer; the time of their clients is their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_one_destination_keep_their_own_limits() {
    for client in ["", "minConnections: 1"] {
        for [first, second] in [[300, 1200], [1200, 300]] {
            let (_reserved, addr) = dead();
            let config = fixed(&[addr], "", client).replace(
                "      - port: 0\n        dstName: /svc/web\n",
                &format!(
                    "      - {{port: 0, dstName: /svc/web, connectTimeoutMs: {first}}}\n      \
                     - {{port: 0, dstName: /svc/web, connectTimeoutMs: {second}}}\n"
                ),
            );
            let program = Program::start(&config);
            for (addr, limit) in program.servers().into_iter().zip([first, second]) {
                let after = closed_after(addr).await.as_millis();
                assert!(after >= limit - 10 && after < limit + 250, "{after} ms and not {limit}");
            }
        }
    }
}

/// Who has set no limit does not wait where there is nothing to wait for, whatever others have set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_an_absent_destination_keep_their_own_limits() {
    let namerd = talk::namerd(&[]).await;
    let config = talk::routers(&namerd.url(), "", "").replace(
        "      - port: 0\n        dstName: /svc/web\n",
        "      - {port: 0, dstName: /svc/web, connectTimeoutMs: 2000}\n      - {port: 0, dstName: /svc/web}\n",
    );
    let program = Program::start(&config);
    metric_is(program.admin(), "l5d:resolver:success_count", "", 1.0).await;

    for (addr, limit) in program.servers().into_iter().zip([2000, 1000]) {
        let after = closed_after(addr).await.as_millis();
        assert!(after >= limit - 10 && after < limit + 250, "{after} ms and not {limit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_reached_is_seen() {
    let backend = Echo::start().await;
    let program = Program::start(&fixed(&[backend.addr()], "maxConcurrency: 2", ""));
    let full = format!("no room for more than 2 connections (maxConcurrency of {})", program.addr());
    let problems = async || talk::ask(program.admin(), "GET", "/state.json").await.unwrap().body;
    let mut clients = vec![open(&program).await];
    assert!(!problems().await.contains("no room"));

    clients.push(open(&program).await);

    let shown = problems().await;
    assert!(shown.contains(&full), "{shown}");
    program.stderr().wait_for("a line about it", |line| {
        line.contains("no room for more connections") && line.contains("maxConcurrency of")
    });
    clients.pop();
    talk::until("there is room", async || !problems().await.contains("no room")).await;
}

/// With 64 descriptors there would be room for 15 of these connections, or so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_descriptors_that_are_allowed_are_used() {
    let backend = Echo::start().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.yml"), fixed(&[backend.addr()], "", "")).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -S -n 64; exec \"$0\" config.yml \"$@\"", PROGRAM]);
    let program = Program::spawn(dir, shell);

    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(open(&program).await);
    }
}

/// Who comes when there are none left waits in the kernel's queue; operators do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_answered_when_clients_have_all_descriptors() {
    let backend = Echo::start().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.yml"), fixed(&[backend.addr()], "", "")).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 256; exec \"$0\" --workers 1 config.yml \"$@\"", PROGRAM]);
    let program = Program::spawn(dir, shell);
    // A quarter is for others, and each needs two.
    let mut clients = Vec::new();
    let mut late = loop {
        let mut io = TcpStream::connect(program.addr()).await.unwrap();
        if time::timeout(Duration::from_secs(1), echo(&mut io, b"x")).await.is_err() {
            break io;
        }
        clients.push(io);
        assert!(clients.len() <= 96, "there is room for no more");
    };
    let served = clients.len();

    assert!(served > 48, "{served}");
    metric_is(program.admin(), "linkerd_tcp_connections_active", "", served as f64).await;
    let state = talk::ask(program.admin(), "GET", "/state.json").await.unwrap().body;
    assert!(state.contains(&format!("no room for more than {served} connections (descriptors)")), "{state}");
    program.stderr().wait_for("a line about it", |line| line.contains("no room for more connections"));

    clients.pop();
    let mut answer = [0; 1];
    time::timeout(SOON, late.read_exact(&mut answer)).await.expect("in time").unwrap();
}
