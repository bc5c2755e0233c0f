//! The service that connects and forwards.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time;
use tokio::time::Instant;
use tower::Service;
use tower::ServiceExt;

use crate::error::Error;
use crate::error::Fault;
use crate::error::Phase;
use crate::error::Side;
use crate::forward::ForwardOptions;
use crate::forward::Progress;
use crate::forward::Transferred;
use crate::forward::forward_counted;
use crate::io::Io;
use crate::io::PeerStats;
use crate::io::TIME_TO_ANSWER;
use crate::io::Transport;
use crate::observe::Event;
use crate::observe::Observer;
use crate::session::Conn;
use crate::session::Session;

/// How often connections that last are reported on.
const REPORT: Duration = Duration::from_secs(10);
/// A client that closed its writing side is taken for gone if it still has no server this much later.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// Connects each accepted connection to a server and copies bytes both ways.
///
/// Nothing is ever written to a client on the proxy's own account: when no server can be had it is closed, which it sees
/// as a reset if it had sent something. A client that
/// resets its connection while it waits for a server is forgotten at once; one that closes it, a second later, since it
/// may be half closed only.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use meshlib::{BalanceLayer, Drain, Server, Static, TcpConnector, TcpProxy};
/// use tower::Layer;
///
/// let backends = Static::new(["127.0.0.1:9001".parse()?, "127.0.0.1:9002".parse()?]);
/// let connect = BalanceLayer::new(backends, "backends").layer(TcpConnector::default());
/// let proxy = TcpProxy::new(connect).connect_within(Some(Duration::from_secs(5)));
/// Server::bind("[::]:7474").await?.serve(proxy, Drain::on_signals()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TcpProxy<C> {
    connect: C,
    settings: Arc<Settings>,
}

#[derive(Clone, Debug)]
struct Settings {
    forward: ForwardOptions,
    connect_within: Option<Duration>,
    reset_unserved: bool,
    observer: Arc<dyn Observer>,
}

impl<C> TcpProxy<C> {
    /// Connects with `connect`, forwards with the default options, without a deadline.
    pub fn new(connect: C) -> Self {
        let settings = Settings {
            forward: ForwardOptions::default(),
            connect_within: None,
            reset_unserved: false,
            observer: Arc::new(()),
        };
        Self { connect, settings: Arc::new(settings) }
    }

    /// Sets how bytes are forwarded.
    #[must_use]
    pub fn forward(mut self, options: ForwardOptions) -> Self {
        Arc::make_mut(&mut self.settings).forward = options;
        self
    }

    /// Limits the time from accepting a client until its server is connected. Default: no limit.
    #[must_use]
    pub fn connect_within(mut self, limit: Option<Duration>) -> Self {
        Arc::make_mut(&mut self.settings).connect_within = limit;
        self
    }

    /// Says whether a client is reset when no server can be had, so that it cannot take the end for an answer. Default:
    /// no, it is closed.
    #[must_use]
    pub fn reset_unserved(mut self, reset: bool) -> Self {
        Arc::make_mut(&mut self.settings).reset_unserved = reset;
        self
    }

    /// Reports when bytes begin and cease to flow. Default: to nobody.
    #[must_use]
    pub fn observe(mut self, observer: Arc<dyn Observer>) -> Self {
        Arc::make_mut(&mut self.settings).observer = observer;
        self
    }
}

impl<C> Service<Conn> for TcpProxy<C>
where
    C: Service<Session, Response = Io, Error = Error, Future: Send> + Clone + Send + 'static,
{
    type Response = Transferred;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Transferred, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, conn: Conn) -> Self::Future {
        let settings = Arc::clone(&self.settings);
        // A future of its own, made here: what connecting needs is gone when it has ended, while whatever the future
        // below has taken in stays with the connection for as long as it lives.
        let opening = Box::pin(Arc::clone(&settings).open(self.connect.clone(), conn));
        Box::pin(async move {
            let (mut client, mut server) = opening.await?;
            let result = settings.relay(&mut client, &mut server).await;
            // The endpoint is free before the client can know that it is.
            drop(server);
            result
        })
    }
}

impl Settings {
    /// Both sides of a connection.
    async fn open<C>(self: Arc<Self>, connect: C, conn: Conn) -> Result<(Io, Io), Error>
    where
        C: Service<Session, Response = Io, Error = Error>,
    {
        let Conn { io: client, session, .. } = conn;
        match self.connect(connect, session.clone(), client.socket()).await {
            Ok(server) => {
                self.observer.on(&Event::Opened { session: &session });
                Ok((client, server))
            }
            Err(error) => {
                if self.reset_unserved {
                    client.reset_on_close();
                }
                self.observer.on(&Event::NotOpened { error: &error });
                Err(error)
            }
        }
    }

    /// A connected server, in time and before the client has gone.
    async fn connect<C>(&self, connect: C, session: Session, client: Option<&TcpStream>) -> Result<Io, Error>
    where
        C: Service<Session, Response = Io, Error = Error>,
    {
        let accepted = session.accepted;
        let deadline = self.connect_within.and_then(|limit| accepted.checked_add(limit));
        tokio::select! {
            biased;
            server = connect.oneshot(session) => server,
            () = reset(client) => Err(departed()),
            error = self.given_up(client, deadline) => Err(error),
        }
    }

    /// Ends when the deadline is over, or when a client that closed its side has shown no other sign of life for a
    /// while. One timer for both.
    async fn given_up(&self, client: Option<&TcpStream>, deadline: Option<Instant>) -> Error {
        let mut look = Instant::now() + HALF_CLOSED;
        loop {
            time::sleep_until(deadline.map_or(look, |deadline| deadline.min(look))).await;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Error::Timeout {
                    phase: Phase::Connect,
                    after: self.connect_within.unwrap_or_default(),
                };
            }
            if client.is_some_and(is_closed) {
                return departed();
            }
            look += HALF_CLOSED;
        }
    }

    async fn relay(&self, client: &mut Io, server: &mut Io) -> Result<Transferred, Error> {
        let mut stream = Stream::begin(&*self.observer, server.peer_stats());
        let progress = Arc::clone(&stream.progress);
        let mut forward = pin!(forward_counted(client, server, &self.forward, &progress));
        let mut report =
            self.observer.wants_progress().then(|| time::interval_at(stream.began + REPORT, REPORT));
        if let Some(report) = &mut report {
            // After a pause of the whole process a report is of what came after it.
            report.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        }
        let result = poll_fn(|cx| {
            let polled = forward.as_mut().poll(cx);
            stream.look();
            if let Some(report) = &mut report {
                while report.poll_tick(cx).is_ready() {
                    stream.report();
                }
            }
            polled
        })
        .await;
        stream.end(result.as_ref());
        result
    }
}

/// Bytes flow as long as this lives. Says so when they cease, also when the connection is cut off.
struct Stream<'a> {
    observer: &'a dyn Observer,
    progress: Arc<Progress>,
    began: Instant,
    peer: Option<Arc<dyn PeerStats>>,
    first: First,
    is_unanswered: bool,
    reported: Transferred,
    ended: bool,
}

/// Whether both sides have spoken.
#[derive(Clone, Copy)]
enum First {
    Silence,
    /// The client has, then.
    Asked(Instant),
    /// The server has.
    Answered,
}

impl<'a> Stream<'a> {
    fn begin(observer: &'a dyn Observer, peer: Option<Arc<dyn PeerStats>>) -> Self {
        let progress = Arc::new(Progress::new());
        let (began, reported) = (Instant::now(), Transferred::default());
        let first = First::Silence;
        Self { observer, progress, began, peer, first, is_unanswered: false, reported, ended: false }
    }

    /// Notices the first bytes of both sides.
    fn look(&mut self) {
        if let First::Answered = self.first {
            return;
        }
        if self.progress.has_answered() {
            let since = if let First::Asked(at) = self.first { at } else { self.began };
            self.first = First::Answered;
            self.observer.on(&Event::FirstByte { took: since.elapsed() });
        } else if let First::Silence = self.first
            && self.progress.has_asked()
        {
            self.first = First::Asked(Instant::now());
        }
    }

    fn report(&mut self) {
        let now = self.progress.transferred();
        self.observer.on(&Event::Progress { transferred: now.since(&self.reported) });
        // Who sends on is owed nothing yet.
        let waits = now.upstream == self.reported.upstream;
        self.reported = now;
        if let (true, First::Asked(_)) = (waits, self.first) {
            self.unanswered();
        }
    }

    /// Says once that the server owes an answer.
    fn unanswered(&mut self) {
        if !std::mem::replace(&mut self.is_unanswered, true) {
            self.observer.on(&Event::Unanswered);
            if let Some(peer) = &self.peer {
                peer.unanswered();
            }
        }
    }

    fn end(mut self, result: Result<&Transferred, &Error>) {
        self.ended = true;
        let transferred = result.copied().unwrap_or_else(|_| self.progress.transferred());
        self.closed(transferred, result.err(), false);
    }

    fn closed(&mut self, transferred: Transferred, error: Option<&Error>, forced: bool) {
        let broke = error.is_some_and(|error| error.fault() == Fault::Server);
        if let First::Asked(at) = self.first
            && !forced
            && !broke
            && at.elapsed() >= TIME_TO_ANSWER
        {
            self.unanswered();
        }
        self.observer.on(&Event::Closed {
            transferred,
            unreported: transferred.since(&self.reported),
            lasted: self.began.elapsed(),
            error,
            forced,
        });
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.closed(self.progress.transferred(), None, true);
        }
    }
}

fn departed() -> Error {
    let source = std::io::ErrorKind::ConnectionAborted.into();
    Error::Forward { side: Side::Client, transferred: Box::default(), source }
}

/// Ends when the client has certainly gone.
async fn reset(client: Option<&TcpStream>) {
    let broken = match client {
        Some(socket) => socket.ready(Interest::ERROR).await.is_ok(),
        None => false,
    };
    // A stream of another kind cannot say, and a failing poller is no news about the client.
    if !broken {
        std::future::pending().await
    }
}

/// Whether the client has closed its side.
fn is_closed(socket: &TcpStream) -> bool {
    let ready = socket.ready(Interest::READABLE).now_or_never();
    matches!(ready, Some(Ok(ready)) if ready.is_read_closed())
}
