//! Waking a task on behalf of what it need not ask each time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;

use futures::task::AtomicWaker;
use pin_project::pin_project;

/// Passes on to a task that something has called, and notes that it has.
///
/// What calls holds this one waker for as long as it lives, whichever task looks after it.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    called: AtomicBool,
    task: AtomicWaker,
}

impl Relay {
    /// For something that has not been asked yet: it counts as having called.
    pub(crate) fn called() -> Arc<Self> {
        Arc::new(Self { called: AtomicBool::new(true), task: AtomicWaker::new() })
    }

    /// Takes the call, whether there is one.
    pub(crate) fn take(&self) -> bool {
        self.called.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the task is woken, and read by it after it has registered: one of both is seen.
        self.called.store(true, Ordering::SeqCst);
        self.task.wake();
    }
}

/// A future that is polled only when it has asked for that, however often the task runs.
///
/// For what nearly never happens and costs more to ask than this does.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Seldom<F> {
    #[pin]
    future: F,
    relay: Arc<Relay>,
}

impl<F> Seldom<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future, relay: Relay::called() }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.relay.task.register(cx.waker());
        if !this.relay.take() {
            return Poll::Pending;
        }
        this.future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(this.relay))))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_future_is_asked_when_it_has_called() {
        let (tx, mut rx) = oneshot::channel();
        let asked = Cell::new(0);
        let mut seldom = std::pin::pin!(Seldom::new(poll_fn(|cx| {
            asked.set(asked.get() + 1);
            Pin::new(&mut rx).poll(cx)
        })));

        for _ in 0..3 {
            assert!(futures::poll!(seldom.as_mut()).is_pending());
        }
        assert_eq!(asked.get(), 1);

        tx.send("called").unwrap();
        assert_eq!(seldom.await, Ok("called"));
        assert_eq!(asked.get(), 2);
    }

    #[tokio::test]
    async fn whichever_task_asked_last_is_woken() {
        let (tx, rx) = oneshot::channel::<()>();
        let mut seldom = Box::pin(Seldom::new(rx));
        assert!(futures::poll!(seldom.as_mut()).is_pending());

        let other = tokio::spawn(seldom);
        tokio::task::yield_now().await;
        tx.send(()).unwrap();

        assert_eq!(other.await.unwrap(), Ok(()));
    }
}
