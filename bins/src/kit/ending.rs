//! How a program ends: it is told to, drains, and is gone.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use meshlib::Drain;

use crate::kit::log;
use crate::kit::manager;
use crate::kit::manager::Watchdog;
use crate::kit::signals::Asked;
use crate::kit::signals::Order;
use crate::kit::signals::Signals;

/// The orderly end of a program, which begins once, whoever asks for it: a signal, an admin page, or a worker that failed.
/// A clone is the same end.
#[derive(Clone)]
pub struct Ending {
    drain: Drain,
    grace: Duration,
    /// What is done first; taken when the end begins.
    first: Arc<Mutex<Option<BoxFuture<'static, ()>>>>,
}

impl Ending {
    /// Ends by a drain; what still runs when `grace` is over is cut.
    pub fn new(drain: Drain, grace: Duration) -> Self {
        Self::after(std::future::ready(()), drain, grace)
    }

    /// Ends by some last work, and the drain after it.
    pub fn after(first: impl Future<Output = ()> + Send + 'static, drain: Drain, grace: Duration) -> Self {
        Self { drain, grace, first: Arc::new(Mutex::new(Some(Box::pin(first)))) }
    }

    /// The drain.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// How long what runs may go on when the end has begun.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Begins. False if it had begun before. Must be called in a runtime.
    pub fn begin(&self) -> bool {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(first) = first else { return false };
        let (drain, grace) = (self.drain.clone(), self.grace);
        manager::stopping(grace);
        tokio::spawn(async move {
            first.await;
            if !drain.finish(grace).await {
                tracing::warn!(target: log::PROCESS, ?grace, "cut what has outlasted the grace");
            }
        });
        true
    }

    /// Serves until `serving` has ended. A signal that asks for it begins the end; other orders are for `heed`. The service
    /// manager is told that the program is ready, with `status`, a few words about what it serves.
    ///
    /// # Errors
    ///
    /// A second signal that asks for the end, which is not to be waited for any more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `serving`.
    pub async fn serve<T>(
        &self,
        serving: impl Future<Output = T>,
        status: &str,
        signals: &mut Signals,
        mut heed: impl FnMut(Order),
    ) -> Result<T, Interrupted> {
        let mut serving = pin!(serving);
        let mut is_told = false;
        // What fails at once was never ready.
        if let Some(served) = (&mut serving).now_or_never() {
            return Ok(served);
        }
        manager::ready(status);
        let mut watchdog = Watchdog::new();
        loop {
            let signal = tokio::select! {
                () = watchdog.feed() => continue,
                served = &mut serving => return Ok(served),
                asked = signals.next() => match asked {
                    Asked::End(signal) => signal,
                    Asked::Do(order) if self.drain.is_started() => {
                        tracing::info!(target: log::PROCESS, ?order, "draining: nothing is begun any more");
                        continue;
                    }
                    Asked::Do(order) => {
                        heed(order);
                        continue;
                    }
                },
            };
            if is_told {
                return Err(Interrupted { signal });
            }
            is_told = true;
            tracing::info!(target: log::PROCESS, signal, grace = ?self.grace, "draining");
            self.begin();
        }
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending")
            .field("drain", &self.drain)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

/// Somebody did not want to wait for the end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a second signal ({signal}): exiting at once")]
#[non_exhaustive]
pub struct Interrupted {
    /// The name of the signal.
    pub signal: &'static str,
}
