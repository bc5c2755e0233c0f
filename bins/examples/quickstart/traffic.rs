//! Clients of the proxy, who check every answer.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufStream;
use tokio::net::TcpStream;
use tokio::sync::RwLock;
use tokio::sync::RwLockWriteGuard;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::Instant;

use crate::backend::GREETING;

/// How long a client has patience.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection through the proxy that is kept.
pub(crate) struct Stream {
    io: BufStream<TcpStream>,
    /// Who is at the other end.
    pub(crate) backend: String,
}

impl Stream {
    pub(crate) async fn open(proxy: SocketAddr) -> io::Result<Self> {
        patiently(async {
            let mut io = BufStream::new(TcpStream::connect(proxy).await?);
            let mut line = String::new();
            io.read_line(&mut line).await?;
            let name = line.strip_prefix(GREETING).and_then(|name| name.strip_suffix('\n'));
            let backend = name.ok_or_else(|| io::Error::other(format!("greeted with {line:?}")))?.to_owned();
            Ok(Self { io, backend })
        })
        .await
    }

    /// Sends a line and expects it back.
    pub(crate) async fn say(&mut self, text: &str) -> io::Result<()> {
        patiently(async {
            self.io.write_all(text.as_bytes()).await?;
            self.io.flush().await?;
            let mut answer = vec![0; text.len()];
            self.io.read_exact(&mut answer).await?;
            if answer != text.as_bytes() {
                return Err(io::Error::other("other bytes came back than were sent"));
            }
            Ok(())
        })
        .await
    }

    /// Ends the connection and expects the other side to do the same, without another byte.
    async fn close(mut self) -> io::Result<()> {
        patiently(async {
            self.io.shutdown().await?;
            match self.io.read(&mut [0]).await? {
                0 => Ok(()),
                _ => Err(io::Error::other("more came back than was sent")),
            }
        })
        .await
    }
}

/// A connection with one line each way, closed in order. Gives the name of the backend.
pub(crate) async fn exchange(proxy: SocketAddr) -> io::Result<String> {
    let mut stream = Stream::open(proxy).await?;
    stream.say("is anybody there?\n").await?;
    let backend = stream.backend.clone();
    stream.close().await?;
    Ok(backend)
}

/// Makes so many exchanges, a number of them at a time, and counts whom they reached.
pub(crate) async fn spread(
    proxy: SocketAddr,
    exchanges: usize,
    at_a_time: usize,
) -> io::Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    let mut done = stream::iter(0..exchanges).map(|_| exchange(proxy)).buffer_unordered(at_a_time);
    while let Some(backend) = done.next().await {
        *counts.entry(backend?).or_default() += 1;
    }
    Ok(counts)
}

/// Clients that make one exchange after another until they are told to end.
pub(crate) struct Steady {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    /// Read by every exchange while it lasts.
    exchanging: RwLock<()>,
    tally: Mutex<Tally>,
}

/// How the exchanges of steady traffic went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) exchanges: usize,
    /// What clients saw go wrong.
    pub(crate) errors: Vec<String>,
    pub(crate) slowest: Duration,
}

impl Steady {
    /// Starts so many clients, who pause between exchanges.
    pub(crate) fn start(proxy: SocketAddr, clients: usize, pause: Duration) -> Self {
        let shared = Arc::<Shared>::default();
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let shared = Arc::clone(&shared);
            // Ends when the traffic is told to.
            tasks.spawn(async move {
                while !shared.ended.load(Ordering::Relaxed) {
                    shared.exchange(proxy).await;
                    time::sleep(pause).await;
                }
            });
        }
        Self { shared, clients: tasks }
    }

    /// A moment at which no exchange is going on; none begins until the guard is dropped.
    pub(crate) async fn between_exchanges(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared.exchanging.write().await
    }

    /// Ends the traffic after the exchanges that have begun.
    pub(crate) async fn end(mut self) -> Tally {
        self.shared.ended.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        self.shared.tally().clone()
    }
}

impl Shared {
    async fn exchange(&self, proxy: SocketAddr) {
        let _exchanging = self.exchanging.read().await;
        let began = Instant::now();
        let result = exchange(proxy).await;
        let took = began.elapsed();
        let mut tally = self.tally();
        tally.slowest = tally.slowest.max(took);
        match result {
            Ok(_) => tally.exchanges += 1,
            Err(error) => tally.errors.push(error.to_string()),
        }
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn patiently<T>(action: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    time::timeout(PATIENCE, action)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}")))?
}
