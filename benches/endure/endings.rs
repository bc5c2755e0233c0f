//! Many connections for each way a connection can end. Afterwards the program holds nothing of them.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use benches::counters;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::Instant;

use crate::args::Args;
use crate::backend::Backend;
use crate::config;
use crate::memory;
use crate::memory::megabytes;
use crate::program::Program;
use crate::setup::Setup;

use client::Client;
use kind::Kind;
use kind::Seen;

mod client;
mod kind;

/// How many, how, which.
#[derive(Debug)]
pub(crate) struct Options {
    connections: usize,
    concurrency: usize,
    kinds: Vec<Kind>,
}

impl Options {
    /// Reads the options of this run.
    pub(crate) fn read(args: &mut Args) -> io::Result<Self> {
        let names: String = args.take("kinds", String::new())?;
        let mut kinds = Vec::new();
        for name in names.split(',').filter(|name| !name.is_empty()) {
            kinds.push(Kind::named(name)?);
        }
        if kinds.is_empty() {
            kinds.extend(Kind::ALL);
        }
        Ok(Self {
            connections: args.number("connections", 100_000)?,
            concurrency: args.number("concurrency", 64)?,
            kinds,
        })
    }
}

/// Goes through all kinds. One that fails does not keep the others from being tried.
pub(crate) async fn run(setup: &Setup, options: &Options) -> io::Result<()> {
    let mut failed = Vec::new();
    for kind in &options.kinds {
        if let Err(error) = end(setup, options, *kind).await {
            println!("{:20} FAILED: {error}", kind.name());
            failed.push(kind.name());
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!("failed: {}", failed.join(", "))))
}

/// The connections of one kind against a program of their own.
async fn end(setup: &Setup, options: &Options, kind: Kind) -> io::Result<()> {
    // One backend with many addresses: the program's connections to it get a range of ports for each.
    let backend = Backend::start(Ipv4Addr::UNSPECIFIED.into())?;
    let port = backend.addr.port();
    let endpoints: Vec<_> = (2..=9).map(|last| SocketAddr::from(([127, 0, 0, last], port))).collect();
    let (_reserved, nobody) = nobody()?;
    let (_full, unanswering) = unanswering().await?;
    let mut config = config::empty(1);
    let mut router = |server, endpoints: &[SocketAddr]| {
        let client: Value = json!({"connectTimeoutMs": 600_000});
        config::add_router(&mut config, server, config::fixed(endpoints), client);
    };
    // In the order of `kind::Port`.
    router(json!({}), &endpoints);
    router(config::server_tls(&setup.identity), &endpoints);
    router(json!({"connectTimeoutMs": 20}), &[nobody]);
    // Longer than all connections together: only who notices that the client is gone has its descriptors back.
    router(json!({"connectTimeoutMs": 600_000}), &[unanswering]);
    router(json!({"connectTimeoutMs": 50}), &[unanswering]);
    let program = Program::start(setup, &config)?;
    let client = Arc::new(Client::new(program.servers[kind.port() as usize].port(), &setup.identity)?);
    let idle = program.idle_descriptors().await?;

    // The first connections fill pools and caches, which stay.
    let warm_up = (options.connections / 10).clamp(1000, 5000);
    all(kind, &client, warm_up, options.concurrency).await?;
    settle(&program, idle).await?;
    let before = program.memory()?;
    let began = Instant::now();
    all(kind, &client, options.connections, options.concurrency).await?;
    let took = began.elapsed();
    let settled = settle(&program, idle).await?;
    let after = program.memory()?;

    println!(
        "{:20} {} in {:.1} s, {:.0}/s; {idle} descriptors again after {:.0} ms; memory {} before, {} after",
        kind.name(),
        options.connections,
        took.as_secs_f64(),
        options.connections as f64 / took.as_secs_f64(),
        settled.as_secs_f64() * 1e3,
        megabytes(before),
        megabytes(after)
    );
    check_backend(kind, &backend, (warm_up + options.connections) as u64)?;
    memory::is_flat(before, after)
}

/// So many connections, some at a time. The first that does not end as it must ends them all.
async fn all(kind: Kind, client: &Arc<Client>, connections: usize, concurrency: usize) -> io::Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers: JoinSet<io::Result<()>> = JoinSet::new();
    for _ in 0..concurrency {
        let (client, next) = (Arc::clone(client), Arc::clone(&next));
        workers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= connections {
                    return Ok(());
                }
                time::timeout(PATIENCE, kind.connection(&client, n))
                    .await
                    .unwrap_or_else(|error| Err(error.into()))
                    .map_err(|error| io::Error::other(format!("connection {n}: {error}")))?;
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.map_err(io::Error::other)??;
    }
    Ok(())
}

/// Waits until the program has only the descriptors of a time without connections; how long that took.
async fn settle(program: &Program, idle: usize) -> io::Result<Duration> {
    let began = Instant::now();
    loop {
        let now = program.descriptors()?;
        if now <= idle {
            return Ok(began.elapsed());
        }
        if began.elapsed() > SETTLE_WITHIN {
            return Err(io::Error::other(format!(
                "{now} descriptors {} s after the last connection, {idle} before the first",
                SETTLE_WITHIN.as_secs()
            )));
        }
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the backend saw must be what the clients did.
fn check_backend(kind: Kind, backend: &Backend, connections: u64) -> io::Result<()> {
    let ends = &backend.ends;
    let [accepted, clean, reset] = [&ends.accepted, &ends.clean, &ends.reset].map(counters::read);
    let holds = match kind.seen() {
        Seen::Clean => clean == connections && reset == 0,
        Seen::Reset => reset == connections && clean == 0,
        Seen::Nothing => accepted == 0,
    };
    if holds {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "of {connections} connections the backend saw {accepted}: {clean} ended well, {reset} were reset"
    )))
}

/// An address where nobody listens. The socket keeps the port from being given to others.
fn nobody() -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let addr = socket.local_addr()?;
    Ok((socket, addr))
}

/// An address that does not answer: a full backlog makes Linux drop what else comes.
async fn unanswering() -> io::Result<((tokio::net::TcpListener, Vec<TcpStream>), SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(0)?;
    let addr = listener.local_addr()?;
    let mut waiting = Vec::new();
    while let Ok(connected) = time::timeout(Duration::from_millis(200), TcpStream::connect(addr)).await {
        waiting.push(connected?);
    }
    Ok(((listener, waiting), addr))
}

/// No connection here takes longer, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);
/// Clients that leave at once are quicker than the program accepts: thousands may still be in the kernel's queue.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
