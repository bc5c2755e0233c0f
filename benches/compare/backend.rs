//! The servers behind the proxy: one thread, pinned to one core.
//!
//! A connection's first message says what it wants (see [`Wish`]); HTTP has ports of its own. Beside the plain and TLS
//! servers there is one with a certificate nobody should trust, and ten slow ones that serve one request at a time.

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
use crate::http;
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
    /// HTTP.
    pub(crate) http: SocketAddr,
    /// HTTP over TLS.
    pub(crate) https: SocketAddr,
    /// The ten servers of the slow workloads.
    pub(crate) slow: Vec<SocketAddr>,
    /// The same servers, speaking HTTP.
    pub(crate) slow_http: Vec<SocketAddr>,
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
    let serve_on = |acceptor: Option<&Arc<ServerConfig>>, speech| {
        let (listener, addr) = bind()?;
        let acceptor = acceptor.map(|config| Arc::clone(config).into());
        tokio::spawn(accept(listener, acceptor, speech, Arc::clone(&counters)));
        io::Result::Ok(addr)
    };
    let mut slow = Vec::new();
    let mut slow_http = Vec::new();
    for place in 0..Pool::SIZE {
        // One request at a time, whatever the language.
        let turn = Arc::new(Mutex::new(Alarm::new()?));
        for (speech, addrs) in [(Speech::Messages, &mut slow), (Speech::Http, &mut slow_http)] {
            let (listener, addr) = bind()?;
            addrs.push(addr);
            tokio::spawn(accept_slow(
                listener,
                speech,
                Slow { place, pool: Arc::clone(&pool), turn: Arc::clone(&turn) },
            ));
        }
    }
    Ok(Backend {
        plain: serve_on(None, Speech::Messages)?,
        tls: serve_on(Some(&tls), Speech::Messages)?,
        untrusted: serve_on(Some(&untrusted), Speech::Messages)?,
        http: serve_on(None, Speech::Http)?,
        https: serve_on(Some(&tls), Speech::Http)?,
        slow,
        slow_http,
        tid: host::thread_id(),
        counters: Arc::clone(&counters),
        pool: Arc::clone(&pool),
    })
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug)]
enum Speech {
    Messages,
    Http,
}

fn bind() -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let listener = socket.listen(BACKLOG)?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    speech: Speech,
    counters: Arc<Counters>,
) {
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
            match speech {
                Speech::Messages => serve(wire, &counters).await,
                Speech::Http => serve_http(wire, &counters).await,
            }
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

/// Answers requests until the client closes.
async fn serve_http(mut wire: Wire, counters: &Counters) -> io::Result<()> {
    let mut requests = http::Requests::default();
    let (mut size, mut answer) = (0, http::answer(0));
    let mut buf = vec![0; 4096];
    loop {
        let n = wire.read(&mut buf).await?;
        if n == 0 {
            return Ok(());
        }
        let mut read = &buf[..n];
        while let Some(wanted) = requests.next(&mut read)? {
            if wanted != size {
                (size, answer) = (wanted, http::answer(wanted));
            }
            wire.send(&answer).await?;
            counters::add(&counters.done, 1);
        }
    }
}

/// One slow server: requests wait for their turn, first come first served.
#[derive(Clone, Debug)]
struct Slow {
    place: usize,
    pool: Arc<Pool>,
    turn: Arc<Mutex<Alarm>>,
}

async fn accept_slow(listener: TcpListener, speech: Speech, server: Slow) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let server = server.clone();
        tokio::spawn(async move {
            socket.set_nodelay(true)?;
            match speech {
                Speech::Messages => server.answer_message(socket).await,
                Speech::Http => server.answer_http(socket).await,
            }
        });
    }
}

impl Slow {
    async fn answer_message(&self, mut socket: TcpStream) -> io::Result<()> {
        let mut request = [0; MESSAGE];
        socket.read_exact(&mut request).await?;
        self.work().await?;
        socket.write_all(&request).await?;
        // The client closes first.
        socket.read(&mut request).await.map(drop)
    }

    async fn answer_http(&self, mut socket: TcpStream) -> io::Result<()> {
        let mut requests = http::Requests::default();
        let mut buf = [0; 4096];
        loop {
            let n = socket.read(&mut buf).await?;
            if n == 0 {
                return Ok(());
            }
            let mut read = &buf[..n];
            while let Some(size) = requests.next(&mut read)? {
                self.work().await?;
                socket.write_all(&http::answer(size)).await?;
            }
        }
    }

    /// What one request takes.
    async fn work(&self) -> io::Result<()> {
        let alarm = self.turn.lock().await;
        let slow = self.pool.slow_one.load(Ordering::Relaxed) % Pool::SIZE == self.place;
        alarm.after(if slow { 10 * SERVICE_TIME } else { SERVICE_TIME }).await?;
        counters::add(&self.pool.served[self.place], 1);
        Ok(())
    }
}

/// Time a healthy server needs for one request.
const SERVICE_TIME: Duration = Duration::from_millis(2);
/// Connections the kernel keeps until they are accepted; bursts of connects are part of the work.
const BACKLOG: u32 = 4096;
