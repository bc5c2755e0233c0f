//! Coming to an end: connections that end in time, connections that do not, and a second signal.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use benches::wire::MESSAGE;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::Instant;

use crate::args::Args;
use crate::backend;
use crate::backend::Backend;
use crate::backend::Manner;
use crate::config;
use crate::program::Program;
use crate::setup::Setup;

/// How many connections, and how long they have.
#[derive(Debug)]
pub(crate) struct Options {
    connections: usize,
    grace: Duration,
}

impl Options {
    /// Reads the options of this run.
    pub(crate) fn read(args: &mut Args) -> io::Result<Self> {
        let connections = args.number("connections", 500)?;
        Ok(Self { connections, grace: Duration::from_secs(args.number("grace", 5)? as u64) })
    }
}

/// When the drain began; `None` before.
type Began = watch::Receiver<Option<Instant>>;

/// Drains once with the grace, and once with a second signal.
pub(crate) async fn run(setup: &Setup, options: &Options) -> io::Result<()> {
    drain(setup, options).await?;
    second_signal(setup, options).await
}

async fn drain(setup: &Setup, options: &Options) -> io::Result<()> {
    let backend = Backend::start(Ipv4Addr::LOCALHOST.into())?;
    let mut program = start(setup, &backend, options.grace.as_secs())?;
    let addr = program.addr();
    let (draining, began) = watch::channel(None);
    let (mut polite, mut others) = (JoinSet::new(), JoinSet::new());
    for n in 0..options.connections {
        let mut io = TcpStream::connect(addr).await?;
        exchange(&mut io).await?;
        if n % 2 == 0 {
            polite.spawn(stop_when_asked(io, began.clone()));
        } else {
            others.spawn(go_on(io, began.clone()));
        }
    }

    let start = Instant::now();
    program.signal(Signal::TERM)?;
    draining.send_replace(Some(start));
    let refused = until_refused(addr).await?;
    let mut clean = 0;
    while let Some(ended) = polite.join_next().await {
        ended.map_err(io::Error::other)?.map_err(|error| {
            io::Error::other(format!("a connection that stopped did not end well: {error}"))
        })?;
        clean += 1;
    }
    let clean_after = start.elapsed();
    let mut cuts = Vec::new();
    while let Some(cut) = others.join_next().await {
        cuts.push(cut.map_err(io::Error::other)??);
    }
    let status = program.exit(Duration::from_secs(10)).await?;
    let took = start.elapsed();

    let (first, last) = (cuts.iter().min().copied(), cuts.iter().max().copied());
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    println!(
        "refused after {:.0} ms; {clean} ended well within {:.2} s; {} closed after {:.2} to {:.2} s; \
         {status} after {:.2} s of {} s grace",
        refused.as_secs_f64() * 1e3,
        clean_after.as_secs_f64(),
        cuts.len(),
        first.as_secs_f64(),
        last.as_secs_f64(),
        took.as_secs_f64(),
        options.grace.as_secs()
    );
    require(refused < Duration::from_secs(1), "new connections were not refused within a second")?;
    let early = Duration::from_millis(300);
    require(
        cuts.is_empty() || first + early >= options.grace,
        "a connection was closed before the grace ended",
    )?;
    require(status.code() == Some(0), "the program did not exit with 0")?;
    require(took < options.grace + Duration::from_secs(1), "the program ended late")
}

async fn second_signal(setup: &Setup, options: &Options) -> io::Result<()> {
    let backend = Backend::start(Ipv4Addr::LOCALHOST.into())?;
    let mut program = start(setup, &backend, 600)?;
    let mut open = Vec::new();
    for _ in 0..options.connections {
        let mut io = TcpStream::connect(program.addr()).await?;
        exchange(&mut io).await?;
        open.push(io);
    }
    program.signal(Signal::TERM)?;
    until_refused(program.addr()).await?;
    for io in &mut open {
        exchange(io).await.map_err(|error| io::Error::other(format!("an exchange in the drain: {error}")))?;
    }

    let start = Instant::now();
    program.signal(Signal::TERM)?;
    let status = program.exit(Duration::from_secs(10)).await?;
    let took = start.elapsed();
    println!("second signal: {status} after {:.0} ms", took.as_secs_f64() * 1e3);
    require(took < Duration::from_secs(1), "the second signal did not end the program at once")
}

fn start(setup: &Setup, backend: &Backend, grace_secs: u64) -> io::Result<Program> {
    let mut config = config::empty(grace_secs);
    config::add_router(&mut config, json!({}), config::fixed(&[backend.addr]), json!({}));
    Program::start(setup, &config)
}

/// How long it takes until new connections are refused.
async fn until_refused(addr: SocketAddr) -> io::Result<Duration> {
    let start = Instant::now();
    loop {
        match TcpStream::connect(addr).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(start.elapsed()),
            // Accepted by the kernel and not by the program, then closed with its listener.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        require(start.elapsed() < Duration::from_secs(10), "new connections are not refused")?;
        time::sleep(Duration::from_millis(1)).await;
    }
}

/// Exchanges until the drain begins, then ends properly.
async fn stop_when_asked(mut io: TcpStream, began: Began) -> io::Result<()> {
    while began.borrow().is_none() {
        exchange(&mut io).await?;
        pause().await;
    }
    exchange(&mut io).await?;
    io.shutdown().await?;
    backend::expect_end(&mut io).await
}

/// Exchanges until it is cut off; how long after the drain began that was.
async fn go_on(mut io: TcpStream, began: Began) -> io::Result<Duration> {
    loop {
        if let Err(error) = exchange(&mut io).await {
            let cut = began.borrow().map(|began| began.elapsed());
            return cut.ok_or(error);
        }
        pause().await;
    }
}

async fn exchange(io: &mut TcpStream) -> io::Result<()> {
    let message = Manner::Echo.message();
    io.write_all(&message).await?;
    let mut answer = [0; MESSAGE];
    io.read_exact(&mut answer).await?;
    require(answer == message, "the answer is not the request")
}

async fn pause() {
    time::sleep(Duration::from_millis(fastrand::u64(50..150))).await;
}

fn require(holds: bool, otherwise: &str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(otherwise)) }
}
