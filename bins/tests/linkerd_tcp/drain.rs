//! Coming to an end.

use std::io;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::time::Duration;

use meshlib::test_util::Echo;
use meshlib::test_util::echo;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::PidfdGetfdFlags;
use rustix::process::Signal;
use rustix::process::pidfd_getfd;
use rustix::process::pidfd_open;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;
use tokio::time::Instant;

use crate::process::Program;
use crate::process::SOON;
use crate::talk;
use crate::talk::ask;
use crate::talk::fixed;
use crate::talk::metric_is;
use crate::talk::proxies;
use crate::talk::until;

/// The grace of the configurations here.
const GRACE: Duration = Duration::from_secs(2);

/// How an exchange of requests and answers ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The client said goodbye after an answer, and so did the server.
    Clean,
    /// The connection was closed while the client went on.
    Cut(Duration),
}

/// Exchanges requests and answers until told to stop, or cut off.
async fn talk_until(
    mut io: TcpStream,
    polite: bool,
    mut draining: tokio::sync::watch::Receiver<Option<Instant>>,
) -> io::Result<End> {
    let mut rounds = time::interval(Duration::from_millis(20));
    loop {
        rounds.tick().await;
        let began = *draining.borrow_and_update();
        match echo(&mut io, b"request").await {
            Ok(answer) => assert_eq!(answer, b"request"),
            Err(error) => return began.map_or(Err(error), |began| Ok(End::Cut(began.elapsed()))),
        }
        if polite && began.is_some() {
            io.shutdown().await?;
            let rest = io.read(&mut [0]).await?;
            assert_eq!(rest, 0);
            return Ok(End::Clean);
        }
    }
}

/// What ends a program.
enum Cause {
    Signal(Signal),
    Page,
}

async fn drains(mut program: Program, cause: Cause, grace: Duration) {
    const POLITE: usize = 25;
    const OTHERS: usize = 25;
    let (addr, admin) = (program.addr(), program.admin());
    let (began, draining) = tokio::sync::watch::channel(None);
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..POLITE + OTHERS {
        let mut io = TcpStream::connect(addr).await.unwrap();
        assert_eq!(echo(&mut io, b"hello").await.unwrap(), b"hello");
        clients.spawn(talk_until(io, n < POLITE, draining.clone()));
    }

    let start = Instant::now();
    match cause {
        Cause::Signal(signal) => program.signal(signal),
        Cause::Page => {
            let answer = ask(admin, "POST", "/shutdown").await.unwrap();
            assert_eq!((answer.status, answer.body.as_str()), (200, ""));
        }
    }
    until("new connections are refused", async || {
        matches!(TcpStream::connect(addr).await, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    began.send_replace(Some(start));
    let ready = ask(admin, "GET", "/ready").await.unwrap();
    assert_eq!((ready.status, ready.body.as_str()), (503, "draining\n"));
    assert_eq!(ask(admin, "GET", "/metrics").await.unwrap().status, 200);
    // Asking once more changes nothing.
    assert_eq!(ask(admin, "POST", "/shutdown").await.unwrap().status, 200);

    let status = program.exit(grace + SOON).await;
    let took = start.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took >= grace && took < grace + Duration::from_secs(1), "{took:?}");
    let ends: Vec<End> = clients.join_all().await.into_iter().map(Result::unwrap).collect();
    let clean = ends.iter().filter(|end| **end == End::Clean).count();
    assert_eq!(clean, POLITE, "{ends:?}");
    for end in ends {
        if let End::Cut(after) = end {
            assert!(after > grace - Duration::from_millis(100), "cut off after {after:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn term_lets_exchanges_finish_within_the_grace() {
    let backend = Echo::start().await;
    drains(Program::start(&fixed(&[backend.addr()], "", "")), Cause::Signal(Signal::TERM), GRACE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn int_lets_exchanges_finish_within_the_grace() {
    let backend = Echo::start().await;
    drains(Program::start(&fixed(&[backend.addr()], "", "")), Cause::Signal(Signal::INT), GRACE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shutdown_page_lets_exchanges_finish_within_the_grace() {
    let backend = Echo::start().await;
    drains(Program::start(&fixed(&[backend.addr()], "", "")), Cause::Page, GRACE).await;
}

/// The first generation knows no other grace than ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_generation_drains_for_ten_seconds() {
    let backend = Echo::start().await;
    let namerd = talk::namerd(&[backend.addr()]).await;
    let program = Program::start(&proxies(&namerd.url(), ""));
    drains(program, Cause::Page, Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_at_once_when_nothing_is_open() {
    let backend = Echo::start().await;
    for page in [true, false] {
        let mut program = Program::start(&fixed(&[backend.addr()], "", "minConnections: 2"));
        talk::exchange(program.addr()).await.unwrap();
        if page {
            assert_eq!(ask(program.admin(), "POST", "/shutdown").await.unwrap().status, 200);
        } else {
            program.signal(Signal::TERM);
        }

        let began = Instant::now();
        assert_eq!(program.exit(SOON).await.code(), Some(0));
        assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once_with_1() {
    let backend = Echo::start().await;
    for (first, second) in
        [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM), (Signal::TERM, Signal::INT)]
    {
        let mut program =
            Program::start(&fixed(&[backend.addr()], "", "").replace("graceSecs: 2", "graceSecs: 60"));
        let mut io = TcpStream::connect(program.addr()).await.unwrap();
        echo(&mut io, b"x").await.unwrap();
        program.signal(first);
        program.stderr().wait_for("the drain", |line| line.contains("draining"));
        assert!(program.is_alive());

        program.signal(second);

        let began = Instant::now();
        assert_eq!(program.exit(SOON).await.code(), Some(1));
        assert!(began.elapsed() < Duration::from_millis(1_000), "{:?}", began.elapsed());
    }
}

/// Clients that wait for an endpoint when the drain begins still get one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_already_is_served_while_it_drains() {
    let (reserved, addr) = talk::dead();
    let mut program = Program::start(&fixed(&[addr], "", "").replace("graceSecs: 2", "graceSecs: 9"));
    let waiting = tokio::spawn(talk::exchange(program.addr()));
    metric_is(program.admin(), "l5d:srv:waiters", "", 1.0).await;

    program.signal(Signal::TERM);
    program.stderr().wait_for("the drain", |line| line.contains("draining"));
    drop(reserved);
    let _backend = meshlib::test_util::EchoOptions::default().with_addr(addr).start().await.unwrap();

    waiting.await.unwrap().unwrap();
    assert_eq!(program.exit(SOON).await.code(), Some(0));
}

/// A signal that others die of means nothing here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hup_and_pipe_change_nothing() {
    let backend = Echo::start().await;
    let mut program = Program::start(&fixed(&[backend.addr()], "", ""));
    let mut io = TcpStream::connect(program.addr()).await.unwrap();
    echo(&mut io, b"x").await.unwrap();

    program.signal(Signal::PIPE);
    program.signal(Signal::HUP);
    program.stderr().wait_for("the signal", |line| line.contains("the configuration was loaded again"));

    assert_eq!(echo(&mut io, b"x").await.unwrap(), b"x");
    talk::exchange(program.addr()).await.unwrap();
    assert!(program.is_alive());
}

/// Breaks a listening socket of the program, as nobody can without being allowed to trace it.
fn break_listener(program: &Program, addr: SocketAddr) -> rustix::io::Result<()> {
    let pid = Pid::from_raw(i32::try_from(program.pid()).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    for entry in std::fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap() {
        let number = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        let socket = match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
            Ok(socket) => std::net::TcpStream::from(socket),
            // It was closed in between.
            Err(rustix::io::Errno::BADF) => continue,
            Err(error) => return Err(error),
        };
        if socket.local_addr().is_ok_and(|local| local == addr) && socket.peer_addr().is_err() {
            socket.shutdown(Shutdown::Both).unwrap();
            return Ok(());
        }
    }
    panic!("it does not listen at {addr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_breaks_starts_the_drain_and_is_the_reason_to_fail() {
    let backend = Echo::start().await;
    let config = fixed(&[backend.addr()], "", "").replace("graceSecs: 2", "graceSecs: 60").replace(
        "      - port: 0\n        dstName: /svc/web\n",
        "      - {port: 0, dstName: /svc/web}\n      - {port: 0, dstName: /svc/web}\n",
    );
    for workers in ["1", "2"] {
        let args = ["--workers", workers];
        let mut program = Program::start_in(tempfile::tempdir().unwrap(), &config, &args);
        let [broken, other] = program.servers()[..] else { panic!("two servers") };
        let mut streams = Vec::new();
        for addr in [broken, broken, other, other] {
            let mut io = TcpStream::connect(addr).await.unwrap();
            echo(&mut io, b"before").await.unwrap();
            streams.push(io);
        }

        if let Err(error) = break_listener(&program, broken) {
            eprintln!("skipped: cannot take a descriptor of another process: {error}");
            return;
        }

        let failed = format!("server {broken} of default failed: Invalid argument");
        let logged = program.stderr().wait_for("the failure", |line| line.contains(&failed));
        assert!(logged.contains("ERROR") && logged.contains(r#""target":"process""#), "{logged}");
        until("the other server refuses", async || TcpStream::connect(other).await.is_err()).await;
        for io in &mut streams {
            assert_eq!(echo(io, b"after").await.unwrap(), b"after");
        }

        // Those of the broken server need none of the others.
        streams.truncate(2);
        metric_is(program.admin(), "l5d:srv:active", "", 2.0).await;
        for _ in 0..20 {
            for io in &mut streams {
                assert_eq!(echo(io, b"still here").await.unwrap(), b"still here");
            }
            time::sleep(Duration::from_millis(10)).await;
        }

        drop(streams);
        assert_eq!(program.exit(SOON).await.code(), Some(1));
        program.stderr().wait_for("the reason", |line| line.starts_with(&format!("linkerd-tcp: {failed}")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_after_a_request_to_shut_down_is_the_first() {
    let backend = Echo::start().await;
    let config = fixed(&[backend.addr()], "", "").replace("graceSecs: 2", "graceSecs: 60");
    let mut program = Program::start(&config);
    let mut io = TcpStream::connect(program.addr()).await.unwrap();
    echo(&mut io, b"before").await.unwrap();

    // As a preStop hook does, and the orchestrator after it.
    assert_eq!(ask(program.admin(), "POST", "/shutdown").await.unwrap().status, 200);
    program.signal(Signal::TERM);
    program.stderr().wait_for("the signal", |line| line.contains(r#""signal":"TERM""#));

    assert_eq!(echo(&mut io, b"after").await.unwrap(), b"after");
    assert!(program.is_alive());
    drop(io);
    assert_eq!(program.exit(SOON).await.code(), Some(0));
}
