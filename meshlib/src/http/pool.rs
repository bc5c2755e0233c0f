//! Connections that wait for the next request.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;
use std::mem;
use std::mem::Discriminant;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Wake;
use std::task::Waker;
use std::time::Duration;

use hyper::client::conn::http2;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::time;
use tokio::time::Instant;

use super::Body;
use super::exchange::Http1;
use super::exchange::Traffic;
use crate::endpoint::Protocol;
use crate::session::Session;
use crate::session::To;
use crate::tls::ConnectTls;

/// How connections are kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolOptions {
    /// Most idle HTTP/1 connections per endpoint. Default 1,024. There are no more than there were requests at a time shortly
    /// before; a limit below that closes connections that the next requests open again.
    pub max_idle: usize,
    /// How long a connection may be idle. Default 30 s: less than what servers usually allow, so that few requests meet
    /// a connection that is being closed.
    pub idle_timeout: Duration,
    /// Most requests at a time on an HTTP/2 connection; beyond that another is opened. Default 100, the least that
    /// RFC 9113 section 6.5.2 recommends servers to allow.
    pub max_streams: usize,
    /// Whether a connection is used for requests of one client address only, as it must be where endpoints are connected
    /// to [from the client's address](crate::connect::SocketOptions). Default false.
    pub per_client: bool,
    /// How long an endpoint may be silent in the middle of an answer's body while somebody waits for more of it, before the
    /// body breaks off with [`HttpError::Silent`](super::HttpError::Silent). Each part that comes begins the time anew, and a
    /// slow client does not use it up. Default `None`, for ever: a stream of events may have nothing to say for hours. Where
    /// endpoints have none, a minute is long. The balancer does not hear of it: to it a request has succeeded with its
    /// answer's head.
    pub body_within: Option<Duration>,
    /// How long an HTTP/2 connection that has requests may bring nothing before its endpoint is pinged. Default 15 s.
    pub ping_every: Duration,
    /// How long the endpoint may take to answer a ping, before the connection is closed and its requests fail by the
    /// endpoint's fault. Default 10 s.
    pub pong_within: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            max_idle: 1024,
            idle_timeout: Duration::from_secs(30),
            max_streams: 100,
            per_client: false,
            body_within: None,
            ping_every: Duration::from_secs(15),
            pong_within: Duration::from_secs(10),
        }
    }
}

impl PoolOptions {
    /// Sets how many idle HTTP/1 connections are kept per endpoint.
    #[must_use]
    pub fn with_max_idle(mut self, n: usize) -> Self {
        self.max_idle = n;
        self
    }

    /// Sets how long a connection may be idle.
    #[must_use]
    pub fn with_idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = limit;
        self
    }

    /// Sets how many requests at a time an HTTP/2 connection carries.
    #[must_use]
    pub fn with_max_streams(mut self, n: usize) -> Self {
        self.max_streams = n.max(1);
        self
    }

    /// Says whether a connection is used for requests of one client address only.
    #[must_use]
    pub fn with_per_client(mut self, per_client: bool) -> Self {
        self.per_client = per_client;
        self
    }

    /// Sets how long an endpoint may be silent in the middle of an answer's body.
    #[must_use]
    pub fn with_body_within(mut self, limit: Option<Duration>) -> Self {
        self.body_within = limit;
        self
    }

    /// Sets when the endpoint of an HTTP/2 connection is pinged, and how long it may take to answer.
    ///
    /// An endpoint that goes away without a word, as a machine without power does, is noticed within both together: after
    /// 25 s unless set. Until then its connection is given new requests, also after others on it were given up, since a
    /// request that takes too long says nothing about its connection. Shorter times cost a ping for each interval in which
    /// nothing else comes. Some servers close connections that are pinged often while they have nothing to send: those of
    /// gRPC may allow one ping in five minutes.
    ///
    /// HTTP/1.1 has no pings. [`SocketOptions::user_timeout`](crate::connect::SocketOptions::user_timeout) has the kernel
    /// notice that nobody acknowledges what was sent, on connections of either version.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use meshlib::http::{ClientLayer, PoolOptions};
    ///
    /// let pool = PoolOptions::default().with_ping(Duration::from_secs(3), Duration::from_secs(2));
    /// let client = ClientLayer::new().pool(pool);
    /// # let _ = client;
    /// ```
    #[must_use]
    pub fn with_ping(mut self, interval: Duration, timeout: Duration) -> Self {
        self.ping_every = interval;
        self.pong_within = timeout;
        self
    }
}

/// Connections by what may share them.
pub(super) struct Pool {
    pub(super) options: PoolOptions,
    slots: Mutex<Slots>,
    stirred: Arc<Stirred>,
    /// Over HTTP/1.
    traffic: Arc<Traffic>,
}

/// Tells that some idle connection has something to say, which is most likely that it was closed.
#[derive(Default)]
struct Stirred(Notify);

impl Wake for Stirred {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

#[derive(Default)]
struct Slots {
    by_key: HashMap<Key, Arc<Slot>>,
    sweeping: bool,
}

/// Requests of the same key may share a connection.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    addr: SocketAddr,
    /// What the policy said. Where plaintext will do, TLS was tried and may have been given up: such a connection is none
    /// for those that insist on TLS. Those that are refused have no connection at all.
    how: Discriminant<ConnectTls>,
    tls: Option<(SameConfig, ServerName<'static>)>,
    protocol: Option<Protocol>,
    client: Option<IpAddr>,
}

impl Hash for Key {
    /// Of the address: endpoints are many, and the ways to speak to one are few.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.addr.hash(state);
    }
}

/// A configuration, compared by its place in memory. Holding it keeps the place from being used again.
#[derive(Clone)]
pub(super) struct SameConfig(pub(super) Arc<ClientConfig>);

impl PartialEq for SameConfig {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SameConfig {}

impl Key {
    pub(super) fn new(to: &To<Session>, decision: &ConnectTls, options: &PoolOptions) -> Self {
        let tls = match decision {
            ConnectTls::Required(tls) | ConnectTls::Opportunistic { tls, .. } => Some(tls),
            _ => None,
        };
        Self {
            addr: to.endpoint.addr,
            how: mem::discriminant(decision),
            tls: tls.map(|tls| (SameConfig(Arc::clone(&tls.config)), tls.server_name.clone())),
            protocol: to.endpoint.metadata.protocol,
            client: to.request.peer.filter(|_| options.per_client).map(|peer| peer.ip()),
        }
    }
}

impl Pool {
    pub(super) fn new(options: PoolOptions) -> Arc<Self> {
        Arc::new(Self { options, slots: Mutex::default(), stirred: Arc::default(), traffic: Arc::default() })
    }

    /// The connections of a key.
    pub(super) fn slot(self: &Arc<Self>, key: Key) -> Arc<Slot> {
        let mut slots = self.lock();
        let Slots { by_key, sweeping } = &mut *slots;
        let slot = by_key.entry(key).or_insert_with(|| {
            let stirred = Waker::from(Arc::clone(&self.stirred));
            Arc::new(Slot::new(&self.options, stirred, Arc::clone(&self.traffic)))
        });
        if !mem::replace(sweeping, true) {
            let stirred = Arc::clone(&self.stirred);
            tokio::spawn(sweep(Arc::downgrade(self), stirred, self.options.idle_timeout));
        }
        Arc::clone(slot)
    }

    /// Closes the idle connections to an endpoint; those in use are closed when they are idle.
    pub(super) fn forget(&self, addr: SocketAddr) {
        self.lock().by_key.retain(|key, slot| {
            let stays = key.addr != addr;
            if !stays {
                slot.close();
            }
            stays
        });
    }

    /// Closes what was idle for too long. True if nothing is left.
    fn expire(&self) -> bool {
        let mut slots = self.lock();
        slots.by_key.retain(|_, slot| slot.expire() || Arc::strong_count(slot) > 1);
        slots.sweeping = !slots.by_key.is_empty();
        !slots.sweeping
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The connections of one key.
pub(super) struct Slot {
    max_idle: usize,
    idle_timeout: Duration,
    max_streams: usize,
    body_within: Option<Duration>,
    connections: Mutex<Connections>,
    /// For idle connections to wake.
    stirred: Waker,
    /// Of the whole pool.
    traffic: Arc<Traffic>,
    /// Held while a connection is opened that others will share.
    pub(super) opening: Semaphore,
    /// Whether the last connection spoke HTTP/2: then it pays to wait for one that is being opened.
    shares: AtomicBool,
}

#[derive(Default)]
struct Connections {
    /// The one used last comes last.
    idle: Vec<Idle>,
    shared: Vec<Shared>,
    closed: bool,
}

/// An HTTP/1 connection.
struct Idle {
    connection: Http1,
    since: Instant,
}

/// An HTTP/2 connection.
struct Shared {
    sender: http2::SendRequest<Body>,
    /// Each request on it holds one.
    streams: Arc<()>,
    used: Instant,
}

/// A connection for one request.
pub(super) enum Reused {
    Http1(Http1),
    Http2(http2::SendRequest<Body>, Arc<()>),
}

impl Slot {
    fn new(options: &PoolOptions, stirred: Waker, traffic: Arc<Traffic>) -> Self {
        Self {
            traffic,
            max_idle: options.max_idle,
            idle_timeout: options.idle_timeout,
            max_streams: options.max_streams,
            body_within: options.body_within,
            connections: Mutex::default(),
            stirred,
            opening: Semaphore::new(1),
            shares: AtomicBool::new(false),
        }
    }

    /// How many requests of the whole pool wait for an answer over HTTP/1.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// How long the endpoint may be silent in the middle of an answer's body.
    pub(super) fn body_within(&self) -> Option<Duration> {
        self.body_within
    }

    /// A connection, if there is one to be had. One of HTTP/1 may have been closed meanwhile: who sends a request looks.
    pub(super) fn take(&self) -> Option<Reused> {
        let mut connections = self.lock();
        let Connections { idle, shared, .. } = &mut *connections;
        shared.retain(|shared| !shared.sender.is_closed());
        let free = shared.iter_mut().find(|shared| Arc::strong_count(&shared.streams) <= self.max_streams);
        if let Some(free) = free {
            free.used = Instant::now();
            return Some(Reused::Http2(free.sender.clone(), Arc::clone(&free.streams)));
        }
        // The one used last has waited shortest: if it has waited for too long, all have.
        let last = idle.pop().filter(|last| last.since.elapsed() < self.idle_timeout);
        match last {
            Some(last) => Some(Reused::Http1(last.connection)),
            None => {
                idle.clear();
                None
            }
        }
    }

    /// Keeps a connection whose answer has been read.
    pub(super) fn put(&self, mut connection: Http1) {
        if !connection.rest() || connection.is_closed(&self.stirred) {
            return;
        }
        let mut connections = self.lock();
        if connections.closed {
            return;
        }
        if connections.idle.len() >= self.max_idle {
            connections.idle.retain_mut(|idle| !idle.connection.is_closed(&self.stirred));
        }
        if connections.idle.len() < self.max_idle {
            connections.idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes the HTTP/1 connections that wait.
    pub(super) fn drop_idle(&self) {
        self.lock().idle.clear();
    }

    /// Lets others share a new connection.
    pub(super) fn share(&self, sender: &http2::SendRequest<Body>) -> Arc<()> {
        self.shares.store(true, Ordering::Relaxed);
        let streams = Arc::new(());
        let shared = Shared { sender: sender.clone(), streams: Arc::clone(&streams), used: Instant::now() };
        let mut connections = self.lock();
        if !connections.closed {
            connections.shared.push(shared);
        }
        streams
    }

    pub(super) fn speaks_http1(&self) {
        self.shares.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shares.load(Ordering::Relaxed)
    }

    fn close(&self) {
        *self.lock() = Connections { closed: true, ..Connections::default() };
    }

    /// Closes what was idle for too long. False if nothing is left.
    fn expire(&self) -> bool {
        let mut connections = self.lock();
        let Connections { idle, shared, .. } = &mut *connections;
        idle.retain_mut(|idle| {
            idle.since.elapsed() < self.idle_timeout && !idle.connection.is_closed(&self.stirred)
        });
        shared.retain(|shared| {
            let idle = Arc::strong_count(&shared.streams) == 1 && shared.used.elapsed() >= self.idle_timeout;
            !idle && !shared.sender.is_closed()
        });
        !(idle.is_empty() && shared.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections that were closed by their servers, or idle for too long. Ends when the pool is empty or gone.
async fn sweep(pool: Weak<Pool>, stirred: Arc<Stirred>, every: Duration) {
    loop {
        if time::timeout(every.max(SHORTEST), stirred.0.notified()).await.is_ok() {
            // A server that goes away closes many.
            time::sleep(TOGETHER).await;
        }
        let Some(pool) = pool.upgrade() else { return };
        if pool.expire() {
            return;
        }
    }
}

/// However short connections may be idle.
const SHORTEST: Duration = Duration::from_millis(10);
/// How long the first connection that was closed by its server waits for others, since all are looked at then.
const TOGETHER: Duration = Duration::from_millis(100);
