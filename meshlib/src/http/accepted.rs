//! What a request came over.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;

use futures::future::BoxFuture;
use http::HeaderValue;

use crate::drain::Draining;
use crate::session::Session;

/// The accepted connection that a request came over: an extension of the requests that an
/// [`HttpServer`](super::HttpServer) hands out. A clone is one count more.
#[derive(Clone)]
pub struct Accepted(Arc<Inner>);

struct Inner {
    session: Session,
    draining: Draining,
    /// What the connection's own task goes on with when its HTTP has ended, if that can be.
    next: Option<Mutex<Option<BoxFuture<'static, ()>>>>,
    /// The client's address as requests tell it.
    peer: OnceLock<Option<HeaderValue>>,
}

impl Accepted {
    /// Puts the parts together.
    pub fn new(session: Session, draining: Draining) -> Self {
        Self(Arc::new(Inner { session, draining, next: None, peer: OnceLock::new() }))
    }

    /// The same for a connection that may be upgraded as a whole.
    pub(super) fn upgradable(session: Session, draining: Draining) -> Self {
        let next = Some(Mutex::default());
        Self(Arc::new(Inner { session, draining, next, peer: OnceLock::new() }))
    }

    /// The facts about the connection.
    pub fn session(&self) -> &Session {
        &self.0.session
    }

    /// Tells that the server is closing down. The server waits for whoever holds a clone of it.
    pub fn draining(&self) -> &Draining {
        &self.0.draining
    }

    /// The client's address without its port, written once for all requests of the connection.
    pub(super) fn peer(&self) -> Option<&HeaderValue> {
        let write = || {
            let ip = self.0.session.peer?.ip().to_canonical();
            HeaderValue::try_from(ip.to_string()).ok()
        };
        self.0.peer.get_or_init(write).as_ref()
    }

    /// Runs what comes after an upgrade: on the connection's own task, or where it carries other requests too, on a new
    /// one that ends with the server.
    pub(super) fn go_on(&self, tunnel: impl Future<Output = ()> + Send + 'static) {
        if let Some(next) = &self.0.next {
            *next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(tunnel));
            return;
        }
        let draining = self.0.draining.clone();
        tokio::spawn(async move { draining.until_forced(tunnel).await });
    }

    /// What the connection goes on with.
    pub(super) fn take_next(&self) -> Option<BoxFuture<'static, ()>> {
        self.0.next.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("session", &self.0.session).finish_non_exhaustive()
    }
}
