//! Copying bytes both ways between two connections.
//!
//! [`forward`] is the last step of every proxied connection. It is one future for both directions, holds no buffer while
//! nothing flows, and chooses by what the two sides are:
//!
//! | Sides | How the bytes move |
//! |---|---|
//! | two plain sockets | read and written through one buffer per thread; a direction that proves bulky moves inside the kernel (`splice`, Linux) |
//! | TLS on one side or both | whole buffers through rustls, many records per system call |
//! | anything else | through the buffer, with the streams' own reads and writes |

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::Sleep;

use crate::error::Error;
use crate::error::Phase;
use crate::error::Side;
use crate::io::PeerStats;
use crate::io::Transport;

mod buffer;
mod direction;
mod link;
#[cfg(target_os = "linux")]
mod splice;

use direction::Broken;
use direction::Direction;
use link::Link;

/// How bytes are forwarded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ForwardOptions {
    /// Most bytes that one read takes, and with it most bytes that wait in memory when a peer stops reading: at most
    /// twice this per direction, and 17 KiB more for each side that speaks TLS. Default 64 KiB; at least 1 KiB. One such
    /// buffer per thread, none per connection.
    pub buffer_bytes: usize,
    /// Bytes in one direction after which it may move inside the kernel. Default `Some(64 KiB)`; `None`: never.
    pub splice_after: Option<u64>,
    /// How long both directions may be silent. Default: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long the second direction may be silent after the first has ended. Default: for ever.
    pub half_close_timeout: Option<Duration>,
    /// How long the whole may last. Default: for ever.
    pub lifetime: Option<Duration>,
    /// How much longer than `lifetime` it may last at most; how much is drawn for each connection, so that those which
    /// began together do not end together. Default: zero.
    pub lifetime_jitter: Duration,
}

impl Default for ForwardOptions {
    fn default() -> Self {
        Self {
            buffer_bytes: 64 * 1024,
            splice_after: Some(64 * 1024),
            idle_timeout: None,
            half_close_timeout: None,
            lifetime: None,
            lifetime_jitter: Duration::ZERO,
        }
    }
}

impl ForwardOptions {
    /// Sets the most bytes that one read takes.
    #[must_use]
    pub fn with_buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes.max(1024);
        self
    }

    /// Sets after how many bytes a direction may move inside the kernel, or that it never does.
    #[must_use]
    pub fn with_splice_after(mut self, bytes: Option<u64>) -> Self {
        self.splice_after = bytes;
        self
    }

    /// Limits silence in both directions.
    #[must_use]
    pub fn with_idle_timeout(mut self, limit: Option<Duration>) -> Self {
        self.idle_timeout = limit;
        self
    }

    /// Limits silence in the second direction after the first has ended.
    #[must_use]
    pub fn with_half_close_timeout(mut self, limit: Option<Duration>) -> Self {
        self.half_close_timeout = limit;
        self
    }

    /// Limits the whole.
    #[must_use]
    pub fn with_lifetime(mut self, limit: Option<Duration>) -> Self {
        self.lifetime = limit;
        self
    }

    /// Sets how much longer than its lifetime a connection may last at most.
    #[must_use]
    pub fn with_lifetime_jitter(mut self, most: Duration) -> Self {
        self.lifetime_jitter = most;
        self
    }
}

/// Payload bytes that were forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transferred {
    /// From the client to the server.
    pub upstream: u64,
    /// From the server to the client.
    pub downstream: u64,
    /// How often bytes to the server had to wait because it took fewer than it was given.
    pub upstream_waits: u64,
    /// How often bytes to the client had to wait because it took fewer than it was given.
    pub downstream_waits: u64,
    /// Whether a TLS side ended without saying so, so that its last bytes may be missing.
    pub truncated: bool,
}

impl Transferred {
    /// What was forwarded since an earlier count.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            upstream: self.upstream - earlier.upstream.min(self.upstream),
            downstream: self.downstream - earlier.downstream.min(self.downstream),
            upstream_waits: self.upstream_waits - earlier.upstream_waits.min(self.upstream_waits),
            downstream_waits: self.downstream_waits - earlier.downstream_waits.min(self.downstream_waits),
            truncated: self.truncated,
        }
    }
}

/// Counts of a connection that is being forwarded, for reading while it lasts.
#[derive(Debug, Default)]
pub struct Progress {
    upstream: AtomicU64,
    downstream: AtomicU64,
    upstream_waits: AtomicU64,
    downstream_waits: AtomicU64,
}

impl Progress {
    /// Nothing forwarded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was forwarded so far.
    pub fn transferred(&self) -> Transferred {
        // Relaxed: one task writes, and a reader needs no order between the two counts.
        Transferred {
            upstream: self.upstream.load(Ordering::Relaxed),
            downstream: self.downstream.load(Ordering::Relaxed),
            upstream_waits: self.upstream_waits.load(Ordering::Relaxed),
            downstream_waits: self.downstream_waits.load(Ordering::Relaxed),
            truncated: false,
        }
    }

    /// Whether the client has sent something.
    pub(crate) fn has_asked(&self) -> bool {
        self.upstream.load(Ordering::Relaxed) > 0
    }

    /// Whether the server has.
    pub(crate) fn has_answered(&self) -> bool {
        self.downstream.load(Ordering::Relaxed) > 0
    }

    fn set(&self, upstream: &Direction, downstream: &Direction) {
        self.upstream.store(upstream.moved(), Ordering::Relaxed);
        self.downstream.store(downstream.moved(), Ordering::Relaxed);
        self.upstream_waits.store(upstream.waits(), Ordering::Relaxed);
        self.downstream_waits.store(downstream.waits(), Ordering::Relaxed);
    }
}

/// Copies bytes both ways until both directions have ended.
///
/// End of input on one side shuts down writing on the other; the opposite direction goes on. When both have ended, what
/// is left to do is to drop the streams: a plain socket whose peer has ended too is not shut down before. On Linux, when both sides
/// are plain TCP, a direction that moved more than [`ForwardOptions::splice_after`] bytes (64 KiB unless set) and keeps
/// filling the buffer continues inside the kernel. A peer that stops reading stops the reading of the other side.
///
/// # Errors
///
/// [`Error::Forward`] names the side that failed and what was transferred before; the other side is set to be reset when
/// it is dropped. A failure to write to a peer that had already closed its own writing side is not an error.
/// [`Error::Timeout`] when a limit of the options passed.
///
/// # Cancel safety
///
/// Not cancel-safe: bytes read from one side may be lost. Drop the future only to close the connection.
///
/// # Examples
///
/// ```
/// # async fn example(client: tokio::net::TcpStream, server: tokio::net::TcpStream) -> Result<(), meshlib::Error> {
/// use meshlib::{Io, forward};
///
/// let done = forward(&mut Io::from(client), &mut Io::from(server), &Default::default()).await?;
/// println!("{} bytes up, {} down", done.upstream, done.downstream);
/// # Ok(())
/// # }
/// ```
pub async fn forward(
    client: &mut impl Transport,
    server: &mut impl Transport,
    options: &ForwardOptions,
) -> Result<Transferred, Error> {
    forward_counted(client, server, options, &Progress::new()).await
}

/// Like [`forward`], and keeps `progress` up to date meanwhile.
///
/// # Errors
///
/// As [`forward`].
///
/// # Cancel safety
///
/// As [`forward`].
pub async fn forward_counted(
    client: &mut impl Transport,
    server: &mut impl Transport,
    options: &ForwardOptions,
    progress: &Progress,
) -> Result<Transferred, Error> {
    let mut relay = Relay::new(options, server.peer_stats());
    let mut client = Link::new(client);
    let mut server = Link::new(server);
    poll_fn(|cx| relay.poll(cx, &mut client, &mut server, progress)).await
}

/// Both directions and the clock.
struct Relay<'a> {
    options: &'a ForwardOptions,
    upstream: Direction,
    downstream: Direction,
    clock: Option<Pin<Box<Clock>>>,
    turns: Option<Turns>,
}

impl<'a> Relay<'a> {
    fn new(options: &'a ForwardOptions, peer_stats: Option<Arc<dyn PeerStats>>) -> Self {
        let limited = options.idle_timeout.is_some()
            || options.half_close_timeout.is_some()
            || options.lifetime.is_some();
        Self {
            options,
            upstream: Direction::default(),
            downstream: Direction::default(),
            clock: limited.then(|| Box::pin(Clock::new(options))),
            turns: peer_stats.map(Turns::new),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Link<'_>,
        server: &mut Link<'_>,
        progress: &Progress,
    ) -> Poll<Result<Transferred, Error>> {
        let (asked, answered) = (self.upstream.moved(), self.downstream.moved());
        let before = asked + answered;
        // The answer first: what the same poll sends upstream is asked after it.
        let up_ended = self.upstream.input_ended();
        let down = self.downstream.poll(cx, server, client, self.options, up_ended);
        let down_ended = self.downstream.input_ended();
        let up = match &down {
            // The kernel tells of a reset once: asked again it would say that the client has ended.
            Poll::Ready(Err(Broken::Sink(error))) if error.kind() == io::ErrorKind::ConnectionReset => {
                Poll::Pending
            }
            _ => self.upstream.poll(cx, client, server, self.options, down_ended),
        };
        progress.set(&self.upstream, &self.downstream);
        if let Some(turns) = &mut self.turns {
            turns.saw(self.upstream.moved() > asked, self.downstream.moved() > answered);
        }

        if let Poll::Ready(Err(broken)) = up {
            return Poll::Ready(self.broke(broken, Side::Client, client, server));
        }
        if let Poll::Ready(Err(broken)) = down {
            return Poll::Ready(self.broke(broken, Side::Server, client, server));
        }
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(Ok(self.transferred(client, server)));
        }
        let Some(clock) = &mut self.clock else {
            return Poll::Pending;
        };
        let moved = self.upstream.moved() + self.downstream.moved() > before;
        clock.as_mut().poll(cx, self.options, moved, up.is_ready() || down.is_ready()).map(Err)
    }

    /// Tells the side that is well that the other is not, and says who failed.
    fn broke(
        &self,
        broken: Broken,
        source: Side,
        client: &Link<'_>,
        server: &Link<'_>,
    ) -> Result<Transferred, Error> {
        let sink = if source == Side::Client { Side::Server } else { Side::Client };
        let (side, error) = match broken {
            Broken::Source(error) => (source, error),
            Broken::Sink(error) => (sink, error),
        };
        let input_ended = match side {
            Side::Client => {
                server.reset_on_close();
                self.upstream.input_ended()
            }
            Side::Server => {
                client.reset_on_close();
                self.downstream.input_ended()
            }
        };
        let transferred = self.transferred(client, server);
        if input_ended {
            return Ok(transferred);
        }
        if let (Side::Server, Some(turns)) = (side, &self.turns) {
            turns.peer.broke(&error);
        }
        Err(Error::Forward { side, transferred: Box::new(transferred), source: error })
    }

    fn transferred(&self, client: &Link<'_>, server: &Link<'_>) -> Transferred {
        Transferred {
            upstream: self.upstream.moved(),
            downstream: self.downstream.moved(),
            upstream_waits: self.upstream.waits(),
            downstream_waits: self.downstream.waits(),
            truncated: client.was_truncated() || server.was_truncated(),
        }
    }
}

/// Measures how long the server takes to answer, in as many turns of the conversation as are wanted.
struct Turns {
    peer: Arc<dyn PeerStats>,
    turn: Turn,
    one_in: u32,
    /// How many turns are left out before the next one is measured.
    left_out: u32,
}

/// Whose turn it is.
#[derive(Clone, Copy)]
enum Turn {
    /// The client's. Nothing waits for an answer.
    Client,
    /// The server's, since the client began to ask if this turn is measured.
    Server(Option<Instant>),
}

impl Turns {
    fn new(peer: Arc<dyn PeerStats>) -> Self {
        Self { one_in: peer.one_in().max(1), peer, turn: Turn::Client, left_out: 0 }
    }

    fn saw(&mut self, asked: bool, answered: bool) {
        if answered && let Turn::Server(since) = self.turn {
            if let Some(since) = since {
                self.peer.answered(since.elapsed());
            }
            self.turn = Turn::Client;
        }
        if asked && let Turn::Client = self.turn {
            let measured = self.left_out == 0;
            self.left_out = if measured { self.one_in } else { self.left_out } - 1;
            self.turn = Turn::Server(measured.then(Instant::now));
        }
    }
}

/// The limits on silence and on the whole.
struct Clock {
    sleep: Pin<Box<Sleep>>,
    ends: Option<Instant>,
    moved: Instant,
    half_closed: bool,
}

impl Clock {
    fn new(options: &ForwardOptions) -> Self {
        let now = Instant::now();
        let jitter = options.lifetime_jitter.mul_f64(fastrand::f64());
        let ends = options.lifetime.and_then(|lifetime| now.checked_add(lifetime.saturating_add(jitter)));
        Self { sleep: Box::pin(tokio::time::sleep_until(now)), ends, moved: now, half_closed: false }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        options: &ForwardOptions,
        moved: bool,
        half_closed: bool,
    ) -> Poll<Error> {
        let now = Instant::now();
        // The end of a direction is a sign of life too: the other one may be silent for its whole limit from then on.
        if moved || half_closed != self.half_closed {
            self.moved = now;
            self.half_closed = half_closed;
        }
        let half_close =
            options.half_close_timeout.filter(|_| half_closed).map(|limit| (Phase::HalfClosed, limit));
        let idle = options.idle_timeout.map(|limit| (Phase::Idle, limit));
        let silence = [half_close, idle].into_iter().flatten().min_by_key(|(_, limit)| *limit);
        let silent_until = silence.and_then(|(_, limit)| self.moved.checked_add(limit));

        if let (Some(ends), Some(after)) = (self.ends, options.lifetime)
            && now >= ends
        {
            return Poll::Ready(Error::Timeout { phase: Phase::Lifetime, after });
        }
        if let (Some(until), Some((phase, after))) = (silent_until, silence)
            && now >= until
        {
            return Poll::Ready(Error::Timeout { phase, after });
        }
        let Some(next) = [self.ends, silent_until].into_iter().flatten().min() else {
            return Poll::Pending;
        };
        // A sleep that ends too early is set anew when it has ended; only one that would end too late is moved now, so
        // that a message costs no timer.
        let deadline = self.sleep.deadline();
        if next < deadline || deadline <= now {
            self.sleep.as_mut().reset(next);
        }
        if self.sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// Whether a system call must be tried again later.
fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
