//! The load generator: one thread of its own on the load core per sample.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

use crate::counters::Counters;
use crate::histogram::Histogram;
use crate::host;
use crate::talk::{Conversation, Talk};
use crate::tls::{self, Identity, Sessions};
use crate::wire::Wire;
use crate::workload::{Load, Profile};

mod bulk;
mod churn;
mod h2;
mod idle;
mod messages;
mod open;

/// What a load needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    /// What to do.
    pub(crate) load: Load,
    /// The proxy's job.
    pub(crate) profile: Profile,
    /// What is said.
    pub(crate) talk: Talk,
    /// Where the proxy listens.
    pub(crate) target: SocketAddr,
    /// Whom TLS clients trust.
    pub(crate) identity: Arc<Identity>,
    /// Time between start and window.
    pub(crate) warm_up: Duration,
    /// Time that is measured.
    pub(crate) window: Duration,
    /// How many connections [`Load::Idle`] opens.
    pub(crate) idle_connections: usize,
    /// What the load counts.
    pub(crate) counters: Arc<Counters>,
}

/// A load at work.
#[derive(Debug)]
pub(crate) struct Running {
    thread: JoinHandle<io::Result<Option<Histogram>>>,
}

impl Running {
    /// Starts the thread and waits until all its connections are open. The window begins `warm_up` after the
    /// returned instant.
    pub(crate) fn start(work: Work) -> io::Result<(Self, Instant)> {
        let (start, started) = mpsc::channel();
        let thread = thread::Builder::new().name("load".into()).spawn(move || {
            host::pin(host::LOAD_CORE)?;
            host::be_urgent();
            host::schedule(host::thread_id(), work.load.policy());
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(&work, &Start(start)))
        })?;
        let running = Self { thread };
        match started.recv_timeout(CONNECT_WITHIN) {
            Ok(start) => Ok((running, start)),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let error = running.finish().err();
                Err(error.unwrap_or_else(|| io::Error::other("the load ended before it began")))
            }
            // The thread ends when the proxy is killed.
            Err(mpsc::RecvTimeoutError::Timeout) => Err(io::Error::other("the connections did not open")),
        }
    }

    /// Waits for the end: latencies, if the load measures them.
    pub(crate) fn finish(self) -> io::Result<Option<Histogram>> {
        self.thread.join().map_err(|_| io::Error::other("the load generator panicked"))?
    }
}

/// Tells the measuring thread that the work begins.
#[derive(Debug)]
struct Start(mpsc::Sender<Instant>);

impl Start {
    fn now(&self) -> Instant {
        let now = Instant::now();
        // Nobody listens any more if the sample was given up; the load then ends by itself.
        let _ = self.0.send(now);
        now
    }
}

impl Work {
    /// A TLS configuration if the client speaks TLS.
    fn tls(&self, sessions: Sessions) -> io::Result<Option<Arc<ClientConfig>>> {
        self.profile.client_tls().then(|| self.identity.client(sessions)).transpose()
    }

    /// Opens one connection to ask on.
    async fn begin(&self, tls: Option<&Arc<ClientConfig>>) -> io::Result<Conversation> {
        Ok(Conversation::new(connect(self.target, tls).await?, self.talk))
    }

    /// Opens many connections, a few at a time.
    async fn connect_all(&self, count: usize) -> io::Result<Vec<Wire>> {
        let tls = self.tls(Sessions::Forget)?;
        let mut wires = Vec::with_capacity(count);
        for _ in 0..count {
            wires.push(connect(self.target, tls.as_ref()).await?);
        }
        Ok(wires)
    }

    /// Runs `tasks`, which never end by themselves, until the window is over. They are dropped then.
    async fn run_closed(&self, start: &Start, mut tasks: JoinSet<()>) {
        let over = start.now() + self.warm_up + self.window + MARGIN;
        tokio::select! {
            () = tokio::time::sleep_until(over) => {}
            // All tasks ended early: their errors are counted, and the window goes on without them.
            () = async { while tasks.join_next().await.is_some() {} } => {}
        }
    }
}

/// Opens one connection to `target`.
pub(crate) async fn connect(target: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Wire> {
    let socket = TcpStream::connect(target).await?;
    socket.set_nodelay(true)?;
    match tls {
        None => Ok(Wire::Plain(socket)),
        Some(config) => {
            let connector = TlsConnector::from(Arc::clone(config));
            Ok(Wire::tls(connector.connect(tls::server_name()?, socket).await?))
        }
    }
}

async fn run(work: &Work, start: &Start) -> io::Result<Option<Histogram>> {
    match work.load {
        Load::BulkUp { connections } => bulk::up(work, start, connections).await.map(|()| None),
        Load::BulkDown { connections } => bulk::down(work, start, connections).await.map(|()| None),
        Load::Connect { workers } => churn::run(work, start, workers, Sessions::Forget).await.map(|()| None),
        Load::Handshakes { workers, resume } => {
            let sessions = if resume { Sessions::Resume } else { Sessions::Forget };
            churn::run(work, start, workers, sessions).await.map(|()| None)
        }
        Load::Messages { connections } | Load::Bodies { connections, .. } => {
            messages::run(work, start, connections).await.map(|()| None)
        }
        Load::Streams { connections, streams } => {
            h2::run(work, start, connections, streams).await.map(|()| None)
        }
        Load::Idle => idle::run(work, start).await.map(|()| None),
        Load::OpenLoop { connections, per_second } => {
            open::kept(work, start, connections, per_second).await.map(Some)
        }
        Load::Arrivals { per_second } => open::arrivals(work, start, per_second).await.map(Some),
    }
}

/// How long all connections of a load may take to open; ten thousand TLS handshakes are the most.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// How long a closed loop goes on after the window, so that the second edge is read under load.
const MARGIN: Duration = Duration::from_millis(200);
