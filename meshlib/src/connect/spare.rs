//! Connected sockets kept ready.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::Weak;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::Interest;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time;
use tokio::time::Instant;
use tower::Service;
use tower::ServiceExt;

use crate::backoff::Backoff;
use crate::balance::Balance;
use crate::balance::View;
use crate::balance::Waiting;
use crate::error::Error;
use crate::io::Io;
use crate::session::Session;

/// How often spares are looked after.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after a spare could not be connected, doubled up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Keeps a few connections of a balancer ready, so that clients need not wait for a handshake.
///
/// Spares are spread by the balancer and count as its load. One that the endpoint closed, that is too old, or whose
/// endpoint has left discovery is dropped; one on which the endpoint has spoken already is good, and its words reach the
/// client. The oldest is given out first. A connection made ahead is made for no client in particular: endpoints that
/// are told the client's address cannot be connected to ahead.
#[derive(Clone, Copy, Debug)]
#[must_use = "layers do nothing unless applied"]
pub struct SpareLayer {
    wanted: usize,
    max_age: Duration,
}

impl SpareLayer {
    /// Keeps `wanted` connections ready, each for at most 60 s.
    pub fn new(wanted: usize) -> Self {
        Self { wanted, max_age: Duration::from_secs(60) }
    }

    /// Sets how old a spare may become. Default 60 s.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Puts spares in front of a balancer.
    pub fn layer<S>(&self, balance: Balance<S>) -> Spare<S> {
        let shared = Shared {
            layer: *self,
            view: balance.view(),
            ready: Mutex::default(),
            taken: Notify::new(),
            task: OnceLock::new(),
        };
        Spare { balance, shared: Arc::new(shared) }
    }
}

/// A balancer with connections ready; made by [`SpareLayer`]. A clone has the same spares.
pub struct Spare<S> {
    balance: Balance<S>,
    shared: Arc<Shared>,
}

struct Shared {
    layer: SpareLayer,
    view: View,
    ready: Mutex<VecDeque<(Io, Instant)>>,
    taken: Notify,
    task: OnceLock<AbortHandle>,
}

impl<S> Spare<S>
where
    S: Service<crate::session::To<Session>, Response = Io, Error = Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    /// Begins to fill up now instead of with the first request. Must be called in a runtime.
    pub fn start(&self) {
        self.shared.task.get_or_init(|| {
            tokio::spawn(fill(Arc::downgrade(&self.shared), self.balance.clone())).abort_handle()
        });
    }
}

impl<S> Spare<S> {
    /// How many connections wait for a client.
    pub fn ready(&self) -> usize {
        self.shared.lock().len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Io, Instant)>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_good(&self, (io, since): &(Io, Instant)) -> bool {
        since.elapsed() < self.layer.max_age && is_alive(io) && self.is_current(io)
    }

    /// Whether the endpoint is still one.
    fn is_current(&self, io: &Io) -> bool {
        let (Some(state), Some(addr)) = (self.view.state(), io.peer_addr()) else { return false };
        state.replicas.replicas().iter().any(|replica| replica.endpoint().addr == addr)
    }

    fn take(&self) -> Option<Io> {
        let mut ready = self.lock();
        while let Some(spare) = ready.pop_front() {
            if self.is_good(&spare) {
                return Some(spare.0);
            }
        }
        None
    }

    /// Drops what is no good and says how many are missing.
    fn missing(&self) -> usize {
        let mut ready = self.lock();
        ready.retain(|spare| self.is_good(spare));
        self.layer.wanted.saturating_sub(ready.len())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// Neither closed nor broken. Bytes that wait to be read are a greeting, unless the end comes behind them.
fn is_alive(io: &Io) -> bool {
    let Some(socket) = io.socket() else { return true };
    let ready = socket.ready(Interest::READABLE).now_or_never();
    if matches!(ready, Some(Ok(ready)) if ready.is_read_closed()) {
        return false;
    }
    !matches!(socket.peek(&mut [0]).now_or_never(), Some(Ok(0) | Err(_)))
}

/// Ends with the last clone of the balancer.
async fn fill<S>(shared: Weak<Shared>, balance: Balance<S>)
where
    S: Service<crate::session::To<Session>, Response = Io, Error = Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let mut retry = Backoff::new(RETRY.0, RETRY.1);
    loop {
        let missing = match shared.upgrade() {
            Some(shared) => shared.missing(),
            None => return,
        };
        for _ in 0..missing {
            let connected = balance.clone().oneshot(Session::default()).await;
            let Some(shared) = shared.upgrade() else { return };
            match connected {
                Ok(io) => {
                    retry.reset();
                    shared.lock().push_back((io, Instant::now()));
                }
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "no spare connection");
                    time::sleep(retry.next_delay()).await;
                    break;
                }
            }
        }
        let Some(shared) = shared.upgrade() else { return };
        tokio::select! {
            () = shared.taken.notified() => {}
            () = time::sleep(LOOK) => {}
        }
    }
}

impl<S> Service<Session> for Spare<S>
where
    S: Service<crate::session::To<Session>, Response = Io, Error = Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    type Response = Io;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Io, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, session: Session) -> Self::Future {
        self.start();
        if let Some(io) = self.shared.take() {
            self.shared.taken.notify_one();
            // The spare belongs to the runtime that made it; from now on this one is woken for it.
            return Box::pin(std::future::ready(io.rehome()));
        }
        Box::pin(self.balance.clone().oneshot(session))
    }
}

impl<S: Clone> Spare<S> {
    /// The same spares and the same balancer for callers that wait otherwise.
    #[must_use]
    pub fn with_waiting(&self, waiting: Waiting) -> Self {
        Self { balance: self.balance.with_waiting(waiting), shared: Arc::clone(&self.shared) }
    }
}

impl<S: Clone> Clone for Spare<S> {
    fn clone(&self) -> Self {
        Self { balance: self.balance.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S> fmt::Debug for Spare<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spare").field("layer", &self.shared.layer).field("ready", &self.ready()).finish()
    }
}
