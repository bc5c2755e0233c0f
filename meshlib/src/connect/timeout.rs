//! A deadline for a service.

use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use pin_project::pin_project;
use tokio::time::Sleep;
use tower::Layer;
use tower::Service;

use crate::error::Error;
use crate::error::Phase;
use crate::once::Once;

/// Gives a service a deadline that covers its readiness and its call.
///
/// The call ends with the answer of the service: for a connector that is a connection, for HTTP an answer's head. What
/// comes after, the bytes of either, has no deadline.
///
/// # Examples
///
/// A limit for connecting, and one for waiting until discovery has answered and the connection is there:
///
/// ```
/// use std::time::Duration;
/// use meshlib::{BalanceLayer, Phase, Static, TcpConnector, TimeoutLayer};
/// use tower::ServiceBuilder;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let connect = ServiceBuilder::new()
///     .layer(TimeoutLayer::new(Phase::Wait, Duration::from_secs(20)))
///     .layer(BalanceLayer::new(Static::new(["10.0.0.1:80".parse()?]), "web"))
///     .layer(TimeoutLayer::connect(Duration::from_secs(5)))
///     .service(TcpConnector::default());
/// # let _ = connect;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TimeoutLayer {
    phase: Phase,
    after: Option<Duration>,
}

impl TimeoutLayer {
    /// A limit on opening a connection.
    pub fn connect(after: impl Into<Option<Duration>>) -> Self {
        Self::new(Phase::Connect, after)
    }

    /// A limit on a step; the step is what the error will name. `None` is no limit.
    pub fn new(phase: Phase, after: impl Into<Option<Duration>>) -> Self {
        Self { phase, after: after.into() }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { inner, layer: *self }
    }
}

/// A service with a deadline; made by [`TimeoutLayer`].
#[derive(Clone, Debug)]
pub struct Timeout<S> {
    inner: S,
    layer: TimeoutLayer,
}

impl<S, R> Service<R> for Timeout<S>
where
    S: Service<R, Error: Into<Error>> + Clone,
{
    type Response = S::Response;
    type Error = Error;
    type Future = TimeoutFuture<S, R>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // The deadline must cover the inner readiness, so the inner service is readied inside the future.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> TimeoutFuture<S, R> {
        TimeoutFuture {
            inner: Once::new(&mut self.inner, request),
            sleep: self.layer.after.map(tokio::time::sleep),
            layer: self.layer,
        }
    }
}

/// The answer of a [`Timeout`].
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct TimeoutFuture<S: Service<R>, R> {
    #[pin]
    inner: Once<S, R>,
    #[pin]
    sleep: Option<Sleep>,
    layer: TimeoutLayer,
}

impl<S, R> Future for TimeoutFuture<S, R>
where
    S: Service<R, Error: Into<Error>>,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.inner.poll(cx) {
            return Poll::Ready(result.map_err(Into::into));
        }
        match this.sleep.as_pin_mut().map(|sleep| sleep.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(Error::Timeout {
                phase: this.layer.phase,
                after: this.layer.after.unwrap_or_default(),
            })),
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_covers_readiness() {
        let (mock, mut handle) = tower_test::mock::pair::<(), ()>();
        handle.allow(0);
        let slow = TimeoutLayer::connect(Duration::from_secs(1)).layer(mock);

        let error = slow.oneshot(()).await.unwrap_err();

        assert!(matches!(error, Error::Timeout { phase: Phase::Connect, .. }));
    }
}
