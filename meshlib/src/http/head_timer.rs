//! A timer for the heads of one connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use hyper::rt;
use tokio::time;
use tokio::time::Sleep;

/// Times what an HTTP/1 connection waits for, one thing at a time.
///
/// hyper has a sleep made for every head that it waits for, and drops it when the head is there. This one keeps the sleep
/// for the next head: later deadlines than the last one cost no look at the runtime's timers.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadTimer {
    kept: Kept,
}

/// A sleep that nobody waits for.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Option<Pin<Box<Sleep>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_types, reason = "hyper counts in these; they come from tokio's clock")]
impl rt::Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn rt::Sleep>> {
        let kept = self.kept.lock().take();
        let sleep = match kept {
            Some(mut sleep) => {
                sleep.as_mut().reset(deadline.into());
                sleep
            }
            None => Box::pin(time::sleep_until(deadline.into())),
        };
        Box::pin(Lent { sleep: Some(sleep), kept: self.kept.clone() })
    }

    fn now(&self) -> std::time::Instant {
        time::Instant::now().into_std()
    }
}

/// A sleep that is kept when it is dropped.
struct Lent {
    /// Until then.
    sleep: Option<Pin<Box<Sleep>>>,
    kept: Kept,
}

impl Future for Lent {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().map_or(Poll::Ready(()), |sleep| sleep.as_mut().poll(cx))
    }
}

impl rt::Sleep for Lent {}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.kept.lock() = self.sleep.take();
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Timer;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_sleep_ends_at_its_own_deadline() {
        let timer = HeadTimer::default();
        let began = time::Instant::now();

        timer.sleep(SECOND).await;
        assert_eq!(began.elapsed().as_secs(), 1);

        drop(timer.sleep(5 * SECOND));
        time::sleep(SECOND).await;
        timer.sleep(10 * SECOND).await;
        assert_eq!(began.elapsed().as_secs(), 12);

        // An earlier deadline than the last one.
        drop(timer.sleep(100 * SECOND));
        timer.sleep(SECOND).await;
        assert_eq!(began.elapsed().as_secs(), 13);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_that_was_waited_for_is_used_again() {
        let timer = HeadTimer::default();
        let mut first = timer.sleep(SECOND);
        assert!(futures::poll!(first.as_mut()).is_pending());
        drop(first);
        assert!(timer.kept.lock().is_some());

        let began = time::Instant::now();
        let mut second = timer.sleep(3 * SECOND);
        assert!(timer.kept.lock().is_none());
        assert!(futures::poll!(second.as_mut()).is_pending());
        second.await;

        assert_eq!(began.elapsed().as_secs(), 3);
    }
}
