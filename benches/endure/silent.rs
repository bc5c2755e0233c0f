//! TLS handshakes beside connections that say nothing.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use benches::histogram::Histogram;
use benches::tls;
use benches::tls::Sessions;
use benches::wire::Wire;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::args::Args;
use crate::backend::Backend;
use crate::config;
use crate::program::Program;
use crate::setup::Setup;

/// How many, how often, how long.
#[derive(Debug)]
pub(crate) struct Options {
    connections: usize,
    rounds: usize,
    window: Duration,
}

impl Options {
    /// Reads the options of this run.
    pub(crate) fn read(args: &mut Args) -> io::Result<Self> {
        Ok(Self {
            connections: args.number("connections", 1000)?,
            rounds: args.number("rounds", 5)?,
            window: Duration::from_secs(args.number("seconds", 3)? as u64),
        })
    }
}

/// The two figures of a sample, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    p50: f64,
    p99: f64,
}

/// Measures with and without silent connections, by turns.
pub(crate) async fn run(setup: &Setup, options: &Options) -> io::Result<()> {
    let backend = Backend::start(Ipv4Addr::LOCALHOST.into())?;
    let mut config = config::empty(1);
    let mut server = config::server_tls(&setup.identity);
    // The silent connections must last longer than a sample.
    server["handshakeTimeoutMs"] = json!(600_000);
    config::add_router(&mut config, server, config::fixed(&[backend.addr]), json!({}));
    let program = Program::start(setup, &config)?;
    let idle = program.idle_descriptors().await?;
    let tls = TlsConnector::from(setup.identity.client(Sessions::Forget)?);

    sample(&program, &tls, Duration::from_secs(1)).await?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        // Whoever is first in one round is second in the next.
        for silent in [round % 2 == 0, round % 2 != 0] {
            if silent {
                beside.push(sample_beside(&program, &tls, options, idle).await?);
            } else {
                alone.push(sample(&program, &tls, options.window).await?);
            }
        }
        let (alone, beside) = (alone[round], beside[round]);
        println!(
            "round {}: p50 {} alone, {} beside; p99 {} alone, {} beside",
            round + 1,
            micros(alone.p50),
            micros(beside.p50),
            micros(alone.p99),
            micros(beside.p99)
        );
    }
    compare("p50", &alone, &beside, |sample| sample.p50, 1.10)?;
    compare("p99", &alone, &beside, |sample| sample.p99, 1.25)
}

/// A sample while so many connections are open that say nothing. `idle` are the descriptors without any.
async fn sample_beside(
    program: &Program,
    tls: &TlsConnector,
    options: &Options,
    idle: usize,
) -> io::Result<Sample> {
    let mut silent = Vec::with_capacity(options.connections);
    for _ in 0..options.connections {
        silent.push(TcpStream::connect(program.addr()).await?);
    }
    descriptors_are(program, |now| now >= idle + options.connections).await?;
    let sample = sample(program, tls, options.window).await?;
    let gone = silent.iter().filter(|io| !says_nothing(io)).count();
    if gone > 0 {
        return Err(io::Error::other(format!("{gone} silent connections were closed during the sample")));
    }
    drop(silent);
    descriptors_are(program, |now| now <= idle).await?;
    Ok(sample)
}

/// Handshake, exchange, end, one after the other.
async fn sample(program: &Program, tls: &TlsConnector, window: Duration) -> io::Result<Sample> {
    let mut latencies = Histogram::new();
    let end = Instant::now() + window;
    while Instant::now() < end {
        let began = Instant::now();
        let mut wire = handshake(program.addr(), tls).await?;
        wire.exchange().await?;
        latencies.record(began.elapsed());
    }
    Ok(Sample { p50: latencies.quantile(0.5), p99: latencies.quantile(0.99) })
}

async fn handshake(addr: SocketAddr, tls: &TlsConnector) -> io::Result<Wire> {
    let socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    Ok(Wire::tls(tls.connect(tls::server_name()?, socket).await?))
}

fn says_nothing(io: &TcpStream) -> bool {
    matches!(io.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

async fn descriptors_are(program: &Program, wanted: impl Fn(usize) -> bool) -> io::Result<()> {
    let late = Instant::now() + Duration::from_secs(10);
    loop {
        let now = program.descriptors()?;
        if wanted(now) {
            return Ok(());
        }
        if Instant::now() > late {
            return Err(io::Error::other(format!("the program has {now} descriptors")));
        }
        time::sleep(Duration::from_millis(10)).await;
    }
}

/// Prints the medians of a figure and fails if their ratio is above a limit.
fn compare(
    name: &str,
    alone: &[Sample],
    beside: &[Sample],
    figure: impl Fn(&Sample) -> f64,
    limit: f64,
) -> io::Result<()> {
    let median = |samples: &[Sample]| {
        let mut values: Vec<f64> = samples.iter().map(&figure).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (alone, beside) = (median(alone), median(beside));
    let ratio = beside / alone;
    println!("{name}: {} alone, {} beside, ratio {ratio:.3} (limit {limit})", micros(alone), micros(beside));
    if ratio <= limit {
        return Ok(());
    }
    Err(io::Error::other(format!("{name} is {ratio:.3} times as long beside silent connections")))
}

fn micros(nanos: f64) -> String {
    format!("{:.0} us", nanos / 1e3)
}
