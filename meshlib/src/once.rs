//! Calling a service once.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;

use pin_project::pin_project;
use tower::Service;

/// The answer of a service that is called as soon as it is ready.
///
/// tower's `oneshot` keeps the service and the request until it is polled. Nearly all services are ready at once, and
/// requests are large: this calls them at once and keeps neither, nor does it need a clone of the service.
#[pin_project(project = OnceProj)]
#[must_use = "futures do nothing unless polled"]
pub(crate) enum Once<S: Service<R>, R> {
    /// Nothing after the call.
    Waits(Option<Box<(S, R)>>),
    Called(#[pin] S::Future),
    /// It will never be ready.
    Failed(Option<S::Error>),
}

impl<S: Service<R> + Clone, R> Once<S, R> {
    pub(crate) fn new(service: &mut S, request: R) -> Self {
        // Asked again with the task's waker if it is not ready.
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Self::Called(service.call(request)),
            Poll::Ready(Err(error)) => Self::Failed(Some(error)),
            Poll::Pending => {
                // What was asked may have a place in a queue, which a clone would not have.
                let clone = service.clone();
                Self::Waits(Some(Box::new((mem::replace(service, clone), request))))
            }
        }
    }
}

impl<S: Service<R>, R> fmt::Debug for Once<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

impl<S: Service<R>, R> Future for Once<S, R> {
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                OnceProj::Called(answer) => return answer.poll(cx),
                OnceProj::Failed(error) => {
                    // Nobody polls it again.
                    let Some(error) = error.take() else { return Poll::Pending };
                    return Poll::Ready(Err(error));
                }
                OnceProj::Waits(waits) => {
                    if let Some(waits) = waits {
                        ready!(waits.0.poll_ready(cx))?;
                    }
                    let Some(waited) = waits.take() else { return Poll::Pending };
                    let (mut service, request) = *waited;
                    let answer = service.call(request);
                    self.set(Self::Called(answer));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::Ready;
    use futures::future::ready;

    use super::*;

    /// Is ready when it has been asked so often.
    #[derive(Clone)]
    struct After(u32);

    impl Service<u32> for After {
        type Response = u32;
        type Error = &'static str;
        type Future = Ready<Result<u32, &'static str>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            match self.0 {
                0 => Poll::Ready(Ok(())),
                u32::MAX => Poll::Ready(Err("never")),
                _ => {
                    self.0 -= 1;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        }

        fn call(&mut self, request: u32) -> Self::Future {
            assert_eq!(self.0, 0, "called before it was ready");
            ready(Ok(request + 1))
        }
    }

    #[tokio::test]
    async fn a_service_is_called_when_it_is_ready() {
        for asked in [0, 1, 5] {
            assert_eq!(Once::new(&mut After(asked), 1).await, Ok(2), "{asked}");
        }
    }

    #[tokio::test]
    async fn a_service_that_fails_is_not_called() {
        assert_eq!(Once::new(&mut After(u32::MAX), 1).await, Err("never"));
    }
}
