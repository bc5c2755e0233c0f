//! The servers behind the proxy: one thread, pinned to one core.
//!
//! A connection's first message says what it wants (see [`Wish`]). Beside the plain and TLS servers there is
//! one with a certificate nobody should trust, and ten slow ones that serve one request at a time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime;
use tokio::sync::Mutex;
use tokio::time::Duration;
use tokio_rustls::TlsAcceptor;

use crate::clock::Alarm;
use crate::counters::{self, Counters};
use crate::host;
use crate::wire::{self, MESSAGE, Wire, Wish};

/// A running backend. It lives as long as the program.
#[derive(Debug)]
pub(crate) struct Backend {
    /// Plain TCP.
    pub(crate) plain: SocketAddr,
    /// TLS with the certificate that clients trust.
    pub(crate) tls: SocketAddr,
    /// TLS with a certificate of another authority.
    pub(crate) untrusted: SocketAddr,
    /// The ten servers of the slow workloads.
    pub(crate) slow: Vec<SocketAddr>,
    /// Its only thread.
    pub(crate) tid: u32,
    /// What it counted.
    pub(crate) counters: Arc<Counters>,
    /// What the slow servers share.
    pub(crate) pool: Arc<Pool>,
}

/// State of the ten slow servers.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Requests served by each.
    pub(crate) served: Vec<AtomicU64>,
    /// Which of them is the slow one.
    pub(crate) slow_one: AtomicUsize,
}

impl Pool {
    /// How many servers there are.
    pub(crate) const SIZE: usize = 10;

    /// Requests served by the slow one, and by all.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let slow_one = &self.served[self.slow_one.load(Ordering::Relaxed) % Self::SIZE];
        (counters::read(slow_one), self.served.iter().map(counters::read).sum())
    }
}

impl Backend {
    /// Starts the thread on `core` and waits until it listens.
    pub(crate) fn start(
        core: usize,
        tls: Arc<ServerConfig>,
        untrusted: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let (ready, started) = mpsc::channel();
        thread::Builder::new().name("backend".into()).spawn(move || {
            let serving = host::pin(core).and_then(|()| {
                host::be_urgent();
                runtime::Builder::new_current_thread().enable_all().build()
            });
            match serving {
                Ok(runtime) => runtime.block_on(async {
                    let listening = listen(tls, untrusted);
                    let failed = listening.is_err();
                    let _ = ready.send(listening);
                    if !failed {
                        std::future::pending::<()>().await;
                    }
                }),
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        started.recv().map_err(io::Error::other)?
    }
}

/// Opens all listeners and spawns their accept loops.
fn listen(tls: Arc<ServerConfig>, untrusted: Arc<ServerConfig>) -> io::Result<Backend> {
    let counters = Arc::new(Counters::default());
    let pool = Arc::new(Pool {
        served: (0..Pool::SIZE).map(|_| AtomicU64::new(0)).collect(),
        slow_one: AtomicUsize::new(0),
    });
    let serve_on = |acceptor: Option<TlsAcceptor>| {
        let (listener, addr) = bind()?;
        tokio::spawn(accept(listener, acceptor, Arc::clone(&counters)));
        io::Result::Ok(addr)
    };
    let slow = (0..Pool::SIZE).map(|place| {
        let (listener, addr) = bind()?;
        tokio::spawn(accept_slow(listener, place, Arc::clone(&pool), Alarm::new()?));
        Ok(addr)
    });
    Ok(Backend {
        plain: serve_on(None)?,
        tls: serve_on(Some(tls.into()))?,
        untrusted: serve_on(Some(untrusted.into()))?,
        slow: slow.collect::<io::Result<_>>()?,
        tid: host::thread_id(),
        counters: Arc::clone(&counters),
        pool: Arc::clone(&pool),
    })
}

fn bind() -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let listener = socket.listen(BACKLOG)?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, counters: Arc<Counters>) {
    loop {
        // Only a lack of descriptors fails here; the load reports the missing answers.
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let acceptor = acceptor.clone();
        let counters = Arc::clone(&counters);
        // Ends with the connection. How it ends is the load's concern.
        tokio::spawn(async move {
            socket.set_nodelay(true)?;
            let wire = match acceptor {
                Some(acceptor) => Wire::tls(acceptor.accept(socket).await?),
                None => Wire::Plain(socket),
            };
            serve(wire, &counters).await
        });
    }
}

async fn serve(mut wire: Wire, counters: &Counters) -> io::Result<()> {
    let mut first = [0; MESSAGE];
    wire.read_exact(&mut first).await?;
    match (Wish::of(&first), wire) {
        (Wish::Echo, mut wire) => {
            wire.send(&first).await?;
            echo(&mut wire).await
        }
        (Wish::Source, mut wire) => wire::pour(&mut wire, &counters.sent).await,
        (Wish::SinkRaw, wire) | (Wish::Sink, wire @ Wire::Plain(_)) => {
            wire::discard(&wire.into_socket(), &counters.received).await
        }
        (Wish::Sink, mut wire) => wire::drink(&mut wire, &counters.received).await,
    }
}

async fn echo(wire: &mut Wire) -> io::Result<()> {
    let mut buf = vec![0; 4096];
    loop {
        match wire.read(&mut buf).await? {
            0 => return wire.shutdown().await,
            n => wire.send(&buf[..n]).await?,
        }
    }
}

/// One slow server: requests wait for their turn, first come first served.
async fn accept_slow(listener: TcpListener, place: usize, pool: Arc<Pool>, alarm: Alarm) {
    let turn = Arc::new(Mutex::new(alarm));
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let turn = Arc::clone(&turn);
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { serve_slow(socket, place, &pool, &turn).await });
    }
}

async fn serve_slow(mut socket: TcpStream, place: usize, pool: &Pool, turn: &Mutex<Alarm>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut request = [0; MESSAGE];
    socket.read_exact(&mut request).await?;
    {
        let alarm = turn.lock().await;
        let slow = pool.slow_one.load(Ordering::Relaxed) % Pool::SIZE == place;
        alarm.after(if slow { 10 * SERVICE_TIME } else { SERVICE_TIME }).await?;
    }
    counters::add(&pool.served[place], 1);
    socket.write_all(&request).await?;
    // The client closes first.
    socket.read(&mut request).await.map(drop)
}

/// Time a healthy server needs for one request.
const SERVICE_TIME: Duration = Duration::from_millis(2);
/// Connections the kernel keeps until they are accepted; bursts of connects are part of the work.
const BACKLOG: u32 = 4096;
