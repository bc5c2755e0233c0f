//! Accepting connections and giving each to a service.

use std::fmt::Debug;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::net::ToSocketAddrs;
use tokio::sync::Semaphore;
use tokio::task;
use tokio::time;
use tokio_util::task::TaskTracker;
use tower::Service;
use tower::ServiceExt;

use crate::backoff::Backoff;
use crate::drain::Drain;
use crate::error::EMFILE;
use crate::error::ENFILE;
use crate::error::Error;
use crate::error::Fault;
use crate::error::Refusal;
use crate::listen::ListenOptions;
use crate::listen::Listener;
use crate::observe::Event;
use crate::observe::Observer;
use crate::session::Conn;
use crate::session::Session;

mod evict;
mod limits;
mod proxied;

use evict::Eviction;
use evict::Newest;
use limits::Limits;
use limits::Permit;

pub use proxied::AcceptProxyHeader;
pub use proxied::AcceptProxyHeaderLayer;

/// Pause after the process ran out of descriptors, doubled up to the second value while that lasts.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long the drain waits for the runtime to ask the kernel who is in the queue.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Most connections that are taken from the queue when the drain starts: the usual length of one.
const LAST_CALL: usize = 4096;

type Accepted = (TcpStream, Session, Permit);

/// Accepts connections and runs a service for each, in a task of its own.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use meshlib::{Conn, Drain, Error, Server};
/// use tokio::io::AsyncWriteExt;
///
/// let greet = tower::service_fn(|mut conn: Conn| async move {
///     let _ = conn.io.write_all(b"hello\n").await;
///     Ok::<_, Error>(())
/// });
/// Server::bind("127.0.0.1:7000").await?.serve(greet, Drain::on_signals()).await
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a server does nothing until it is told to serve"]
pub struct Server {
    listener: Listener,
    limits: Limits,
    newest: Option<Newest>,
    gate: Option<Arc<dyn Gate>>,
    observer: Arc<dyn Observer>,
}

impl Server {
    /// Listens at an address with the default [`ListenOptions`].
    ///
    /// # Errors
    ///
    /// What the operating system says, with the address in the message: see [`Listener::bind`].
    pub async fn bind(addr: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(Self::from_listener(Listener::bind(addr, &ListenOptions::default()).await?))
    }

    /// Serves on a socket that listens already.
    pub fn from_listener(listener: Listener) -> Self {
        Self { listener, limits: Limits::default(), newest: None, gate: None, observer: Arc::new(()) }
    }

    /// Limits the connections that live at a time; beyond it accepting stops and the kernel's queue fills. Of several limits
    /// each is kept. Default: no limit.
    pub fn max_connections(self, n: usize) -> Self {
        self.share_limit(Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// Like [`max_connections`](Self::max_connections), with a limit that several servers share.
    pub fn share_limit(mut self, limit: Arc<Semaphore>) -> Self {
        self.limits.add(limit);
        self
    }

    /// Limits the connections that live at a time by ending the oldest, with
    /// [`Refused`](Error::Refused), when one comes that is too many. Default: no limit.
    ///
    /// For short exchanges that must stay possible while somebody holds connections open, such as an operator's. Has no
    /// effect where [`max_connections`](Self::max_connections) is not higher.
    pub fn evict_beyond(mut self, n: usize) -> Self {
        self.newest = Some(Newest::new(n));
        self
    }

    /// Accepts only while a gate is open; the kernel's queue fills meanwhile. Default: no gate.
    pub fn gate(mut self, gate: impl Gate) -> Self {
        self.gate = Some(Arc::new(gate));
        self
    }

    /// Reports what happens to connections. Default: to nobody.
    pub fn observe(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Accepts until the drain starts, then takes what waits in the kernel's queue, closes it, and waits until every
    /// connection has ended.
    ///
    /// A connection's error is reported to the observer and logged by whose fault it is; it never ends the server. When
    /// the process is out of descriptors, accepting pauses for 10 ms, doubling up to 1 s.
    ///
    /// # Errors
    ///
    /// Only if the listening socket itself is broken, and then at once: the connections that it accepted go on, and the
    /// drain waits for them.
    pub async fn serve<S>(mut self, service: S, drain: Drain) -> io::Result<()>
    where
        S: Service<Conn, Error = Error, Future: Send, Response: Send> + Clone + Send + 'static,
    {
        let draining = drain.draining();
        let tasks = TaskTracker::new();
        let mut spawn = {
            let (tasks, draining, observer) = (tasks.clone(), draining.clone(), Arc::clone(&self.observer));
            let mut newest = self.newest.take();
            move |(stream, session, permit): Accepted| {
                let conn = Box::new(Conn::new(stream.into(), session, draining.clone()));
                let eviction = newest.as_mut().map(Newest::admit);
                tasks.spawn(connection(service.clone(), conn, permit, eviction, Arc::clone(&observer)));
            }
        };
        let mut pause = Backoff::new(ACCEPT_PAUSE.0, ACCEPT_PAUSE.1);
        loop {
            let accepted = tokio::select! {
                biased;
                () = draining.started() => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    pause.reset();
                    spawn(accepted);
                    if self.gate.is_some() {
                        // The connection must have run to where it may have to wait, or the gate knows nothing of it.
                        task::yield_now().await;
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) if is_exhaustion(&error) => {
                    let delay = pause.next_delay();
                    tracing::warn!(%error, ?delay, "cannot accept; waiting");
                    time::sleep(delay).await;
                }
                Err(error) => return Err(error),
            }
        }
        // Closing the socket would reset who is in its queue already. The runtime knows of them once it has asked the kernel
        // again, which it may not have done since they came.
        time::sleep(LOOK_AGAIN).await;
        for _ in 0..LAST_CALL {
            // Unconstrained: else tokio says, after 128 of them, that nobody is there.
            match task::unconstrained(self.accept()).now_or_never() {
                Some(Ok(accepted)) => spawn(accepted),
                _ => break,
            }
        }
        drop(self.listener);
        // With the service, and whatever it holds, which connections that go on need no more.
        drop(spawn);
        tasks.close();
        tasks.wait().await;
        Ok(())
    }

    async fn accept(&self) -> io::Result<Accepted> {
        if let Some(gate) = self.gate.as_ref().filter(|gate| !gate.is_open()) {
            gate.opened().await;
        }
        let mut held = None;
        loop {
            // A permit is held only while looking whether somebody is there: a listener that nobody connects to must
            // not keep one from the others that share the limit.
            let accepted = poll_fn(|cx| match self.limits.permit(held.take()) {
                Ok(permit) => self.listener.poll_accept(cx).map_ok(|accepted| Ok((accepted, permit))),
                Err(reached) => Poll::Ready(Ok(Err(reached))),
            });
            match accepted.await? {
                Ok(((stream, session), permit)) => return Ok((stream, session, permit)),
                Err(reached) => held = Some(reached.place().await),
            }
        }
    }
}

/// Holds a server back while something else is at its limit.
pub trait Gate: Debug + Send + Sync + 'static {
    /// Whether a connection may be accepted now.
    fn is_open(&self) -> bool;

    /// Waits until one may be.
    fn opened(&self) -> BoxFuture<'_, ()>;
}

/// Runs the service for one connection, until it ends, is evicted or the drain is forced.
async fn connection<S>(
    mut service: S,
    conn: Box<Conn>,
    _permit: Permit,
    eviction: Option<Eviction>,
    observer: Arc<dyn Observer>,
) where
    S: Service<Conn, Error = Error>,
{
    observer.on(&Event::Accepted { session: &conn.session });
    let life = Life { observer, ended: false };
    let (peer, draining) = (conn.session.peer, conn.draining.clone());
    // Boxed until here, so that the room for it is not kept for as long as the connection lives.
    let call = async move {
        let answer = service.ready().await?.call(unboxed(conn));
        // What it holds may be large, and the connection old.
        drop(service);
        answer.await
    };
    let outcome = match eviction {
        None => draining.until_forced(call).await,
        Some(eviction) => {
            // Boxed, so that the connections of other servers have no room for it.
            let mut call = Box::pin(call);
            let call = async move {
                tokio::select! {
                    biased;
                    result = &mut call => result,
                    () = eviction.happens() => Err(Error::Refused(Refusal::Limit)),
                }
            };
            draining.until_forced(call).await
        }
    };
    let Some(outcome) = outcome else { return };
    let error = outcome.err();
    if let Some(error) = &error {
        log(error, peer);
    }
    life.end(error.as_ref());
}

/// Frees the box now. Moved out in place, its memory would be kept until the end of the scope.
#[expect(clippy::boxed_local, reason = "to free it is what this is for")]
fn unboxed<T>(boxed: Box<T>) -> T {
    *boxed
}

/// Says that a connection has ended, also when its service panicked or was cut off.
struct Life {
    observer: Arc<dyn Observer>,
    ended: bool,
}

impl Life {
    fn end(mut self, error: Option<&Error>) {
        self.ended = true;
        self.observer.on(&Event::Ended { error, forced: false });
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if !self.ended {
            self.observer.on(&Event::Ended { error: None, forced: true });
        }
    }
}

fn log(error: &Error, peer: Option<SocketAddr>) {
    let peer = peer.map(tracing::field::display);
    match error.fault() {
        Fault::Client => tracing::debug!(peer, error = %error.chain(), "client failed"),
        Fault::Server => tracing::debug!(peer, error = %error.chain(), "server failed"),
        Fault::Discovery => tracing::info!(peer, error = %error.chain(), "nothing to connect to"),
        Fault::Local => {
            tracing::debug!(peer, error = %error.chain(), "connection refused, or ended by a limit")
        }
    }
}

/// The connection was gone before it was accepted; the next one may be well.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;

    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | ConnectionRefused
            | Interrupted
            | HostUnreachable
            | NetworkUnreachable
            | NetworkDown
            | PermissionDenied
            | TimedOut
            | NotConnected
    )
}

/// Out of descriptors, memory or places in the poller, which passes.
fn is_exhaustion(error: &io::Error) -> bool {
    /// No buffer space available (Linux).
    const ENOBUFS: i32 = 105;
    /// The poller may watch no more sockets (`fs.epoll.max_user_watches`, epoll_ctl(2)).
    const ENOSPC: i32 = 28;

    error.kind() == io::ErrorKind::OutOfMemory
        || matches!(error.raw_os_error(), Some(code) if [EMFILE, ENFILE, ENOBUFS, ENOSPC].contains(&code))
}
