//! A network that fails when a test says so.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time;
use tower::Service;
use tower::ServiceExt;

use crate::error::Error;
use crate::session::To;

/// A connector, or another service of requests with an endpoint, that fails, delays and remembers. A clone is the same.
///
/// # Examples
///
/// ```
/// use meshlib::test_util::{Echo, Flaky};
/// use meshlib::{BalanceLayer, Session, Static, TcpConnector};
/// use tower::{Layer, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let backend = Echo::start().await;
/// let network = Flaky::new(TcpConnector::default());
/// network.fail_next(1);
/// let connect = BalanceLayer::new(Static::new([backend.addr()]), "web").layer(network.clone());
///
/// assert!(connect.clone().oneshot(Session::default()).await.is_err());
/// assert!(connect.oneshot(Session::default()).await.is_ok());
/// assert_eq!(network.attempts().len(), 2);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Flaky<S> {
    inner: S,
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    failing_next: usize,
    failing: HashSet<SocketAddr>,
    delay: Option<Duration>,
    attempts: Vec<SocketAddr>,
}

impl<S> Flaky<S> {
    /// Wraps a connector. Nothing fails until told to.
    pub fn new(inner: S) -> Self {
        Self { inner, script: Arc::default() }
    }

    /// Lets the next `n` attempts fail, wherever they go.
    pub fn fail_next(&self, n: usize) {
        self.script().failing_next = n;
    }

    /// Lets every attempt to this address fail, until it [works](Self::heal) again.
    pub fn fail(&self, addr: SocketAddr) {
        self.script().failing.insert(addr);
    }

    /// Lets attempts to this address succeed again.
    pub fn heal(&self, addr: SocketAddr) {
        self.script().failing.remove(&addr);
    }

    /// Lets every attempt, failing or not, begin with a pause. `None`: no pause.
    pub fn delay(&self, pause: impl Into<Option<Duration>>) {
        self.script().delay = pause.into();
    }

    /// Where all attempts so far went, in order.
    pub fn attempts(&self) -> Vec<SocketAddr> {
        self.script().attempts.clone()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S, R> Service<To<R>> for Flaky<S>
where
    S: Service<To<R>, Error = Error, Future: Send> + Clone + Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = Error;
    type Future = BoxFuture<'static, Result<S::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: To<R>) -> Self::Future {
        let addr = to.endpoint.addr;
        let (fails, delay) = {
            let mut script = self.script();
            script.attempts.push(addr);
            let by_count = script.failing_next > 0;
            script.failing_next = script.failing_next.saturating_sub(1);
            (by_count || script.failing.contains(&addr), script.delay)
        };
        let inner = self.inner.clone();
        Box::pin(async move {
            if let Some(delay) = delay {
                time::sleep(delay).await;
            }
            if fails {
                let source = io::ErrorKind::ConnectionRefused.into();
                return Err(Error::Connect { addr, source });
            }
            inner.oneshot(to).await
        })
    }
}
