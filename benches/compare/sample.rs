//! One sample: a fresh proxy, a load, and what both cost between two instants.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use tokio::time::{Duration, Instant};

use crate::counters::{self, Counters};
use crate::histogram::Histogram;
use crate::host::{self, LOAD_CORE, PROXY_CORE};
use crate::load::{Running, Work};
use crate::peer::Peer;
use crate::procfs::{self, CoreTicks, Measured};
use crate::stage::{Server, Stage, Target};
use crate::workload::{Load, Profile, Workload};

/// The result of one sample.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Values of the workload's figures, in their order.
    pub(crate) values: Vec<f64>,
    /// How busy the load core was, 0 to 1.
    pub(crate) load_busy: f64,
    /// How busy the proxy's core was, 0 to 1.
    pub(crate) proxy_busy: f64,
    /// The part of the proxy's core that neither the proxy nor idling took.
    pub(crate) foreign: f64,
    /// The same for the load core.
    pub(crate) load_foreign: f64,
    /// Failed connections or requests.
    pub(crate) errors: u64,
    /// The text of the last failure.
    pub(crate) last_error: Option<String>,
}

/// How long a sample takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// Work before the window.
    pub(crate) warm_up: Duration,
    /// The window.
    pub(crate) window: Duration,
}

/// Takes one sample of `peer`. `round` moves the slow server's place.
pub(crate) fn take(
    stage: &Stage,
    workload: &Workload,
    peer: &Peer,
    round: usize,
    timing: Timing,
) -> io::Result<Sample> {
    let backend = stage.backend_of(peer);
    let policy = workload.load.policy();
    backend.pool.slow_one.store(round, Ordering::Relaxed);
    host::schedule(backend.tid, policy);
    let target = stage.start(peer, workload.profile, Server::Right, policy)?;
    let load_counters = Arc::new(Counters::default());
    let work = Work {
        load: workload.load,
        profile: workload.profile,
        talk: workload.talk(),
        target: target.addr,
        identity: Arc::clone(&stage.identity),
        warm_up: timing.warm_up,
        window: timing.window,
        idle_connections: stage.idle_connections,
        counters: Arc::clone(&load_counters),
    };
    let look = || Edge::read(stage, peer, &target, &load_counters);
    let memory_before = if workload.load == Load::Idle { memory(&target)? } else { 0 };
    let (running, start) = Running::start(work).map_err(|error| blame(&target, &error))?;
    sleep_until(start + timing.warm_up);
    let first = look()?;
    sleep_until(start + timing.warm_up + timing.window);
    let last = look()?;
    let memory_after = if workload.load == Load::Idle { memory(&target)? } else { 0 };
    let latencies = running.finish()?;

    let values = match workload.load {
        Load::Idle => {
            let grown = memory_after.saturating_sub(memory_before) as f64;
            vec![memory_before as f64 / 1e6, grown / 1024.0 / stage.idle_connections as f64]
        }
        load => values(load, workload.profile, &first, &last, latencies.as_ref()),
    };
    let (errors, last_error) = load_counters.failures();
    let seconds = (last.at - first.at).as_secs_f64();
    let own = last.cpu.saturating_sub(first.cpu).as_secs_f64() / seconds;
    let load_own = last.load_cpu.saturating_sub(first.load_cpu).as_secs_f64() / seconds;
    // The kernel samples a core's use at its ticks and misses work that sleeps whenever they come.
    let proxy_busy = last.proxy_core.busy_since(first.proxy_core).max(own);
    let load_busy = last.load_core.busy_since(first.load_core).max(load_own);
    Ok(Sample {
        values,
        load_busy,
        proxy_busy,
        foreign: proxy_busy - own,
        load_foreign: load_busy - load_own,
        errors,
        last_error,
    })
}

/// Everything that is read at an edge of the window.
#[derive(Debug)]
struct Edge {
    at: Instant,
    cpu: Duration,
    load_cpu: Duration,
    load_core: CoreTicks,
    proxy_core: CoreTicks,
    client: [u64; 4],
    server_done: u64,
    server_sent: u64,
    server_received: u64,
    served: (u64, u64),
}

impl Edge {
    fn read(stage: &Stage, peer: &Peer, target: &Target, client: &Counters) -> io::Result<Self> {
        let backend = stage.backend_of(peer);
        // All that this process started is load, but the proxy.
        let mut own = procfs::tree(std::process::id())?;
        if let Measured::Processes(proxy) = &target.measured {
            own.retain(|pid| !proxy.contains(pid));
        }
        Ok(Self {
            at: Instant::now(),
            cpu: target.measured.cpu()?,
            // The backend of "direct" is a thread of this process on the other core.
            load_cpu: Measured::Processes(own)
                .cpu()?
                .saturating_sub(Measured::Thread(stage.direct.tid).cpu()?),
            client: [&client.sent, &client.received, &client.done, &client.resumed].map(counters::read),
            server_done: counters::read(&backend.counters.done),
            server_sent: counters::read(&backend.counters.sent),
            server_received: counters::read(&backend.counters.received),
            served: backend.pool.counts(),
            load_core: CoreTicks::read(LOAD_CORE)?,
            proxy_core: CoreTicks::read(PROXY_CORE)?,
        })
    }
}

fn values(
    load: Load,
    profile: Profile,
    first: &Edge,
    last: &Edge,
    latencies: Option<&Histogram>,
) -> Vec<f64> {
    let seconds = (last.at - first.at).as_secs_f64();
    let cpu = last.cpu.saturating_sub(first.cpu).as_secs_f64();
    let [sent, received, done, resumed] = std::array::from_fn(|i| (last.client[i] - first.client[i]) as f64);
    // The generator of HTTP/2 is another program.
    let done = match load {
        Load::Streams { .. } => (last.server_done - first.server_done) as f64,
        _ => done,
    };
    // Bytes count where they are plain, so that the overhead of TLS is nobody's gain.
    let bytes = match (load, profile) {
        (Load::BulkUp { .. }, Profile::Originate) => sent,
        (Load::BulkUp { .. }, _) => (last.server_received - first.server_received) as f64,
        (_, Profile::Terminate) => (last.server_sent - first.server_sent) as f64,
        _ => received,
    };
    let micros = |latencies: &Histogram, q| latencies.quantile(q) / 1e3;
    match (load, latencies) {
        (Load::BulkUp { .. } | Load::BulkDown { .. }, _) => vec![bytes / 1e9 / seconds, cpu / (bytes / 1e9)],
        (Load::Handshakes { .. }, _) => vec![done / seconds, cpu * 1e6 / done, 100.0 * resumed / done],
        (Load::OpenLoop { .. }, Some(all)) => {
            vec![micros(all, 0.5), micros(all, 0.99), micros(all, 0.999), cpu * 1e6 / done]
        }
        (Load::Arrivals { .. }, Some(all)) => {
            let slow = (last.served.0 - first.served.0) as f64 / (last.served.1 - first.served.1) as f64;
            let millis = [0.5, 0.99, 0.999].map(|q| micros(all, q) / 1e3);
            millis.into_iter().chain([all.mean() / 1e6, 100.0 * slow]).collect()
        }
        _ => vec![done / seconds, cpu * 1e6 / done],
    }
}

fn memory(target: &Target) -> io::Result<u64> {
    let proxy = target
        .proxy
        .as_ref()
        .ok_or_else(|| io::Error::other("there is no proxy whose memory could be read"))?;
    procfs::memory(&proxy.pids()?)
}

/// An error of the load with what the proxy printed, which usually explains it.
fn blame(target: &Target, error: &io::Error) -> io::Error {
    let words = target.proxy.as_ref().map(|proxy| format!("; the proxy: {}", proxy.last_words()));
    io::Error::other(format!("{error}{}", words.unwrap_or_default()))
}

/// Sleeps on this thread; the load has its own.
fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}
