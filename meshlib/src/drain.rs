//! Closing down without cutting anybody off.
//!
//! A [`Drain`] has three states: running, draining (no new work, what runs goes on) and forced (what still runs is
//! dropped). Whoever has work holds a [`Draining`], which counts it and tells it the state.

use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use pin_project::pin_project;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::WaitForCancellationFuture;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::relay::Seldom;

/// How long [`Drain::on_signals`] lets connections go on. Default 10 s.
const GRACE: Duration = Duration::from_secs(10);

/// Starts and forces the end of servers. A clone is the same drain.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
/// use meshlib::Drain;
///
/// let drain = Drain::new();
/// let worker = tokio::spawn({
///     let draining = drain.draining();
///     async move { draining.started().await }
/// });
/// assert!(drain.finish(Duration::from_secs(5)).await, "nothing had to be forced");
/// # worker.await.unwrap();
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Drain {
    start: CancellationToken,
    force: CancellationToken,
    work: TaskTracker,
    /// Waits for the work, too.
    above: Option<TaskTracker>,
}

impl Drain {
    /// A drain that has not started.
    pub fn new() -> Self {
        Self::default()
    }

    /// A drain that SIGTERM or SIGINT (elsewhere: Ctrl-C) starts, with a grace of 10 s; a second signal forces it.
    ///
    /// Installs handlers for these signals, which lasts for the life of the process. Must be called in a runtime.
    pub fn on_signals() -> Self {
        Self::on_signals_within(GRACE)
    }

    /// Like [`on_signals`](Self::on_signals), with another grace.
    pub fn on_signals_within(grace: Duration) -> Self {
        let drain = Self::new();
        let mut signals = Signals::install();
        tokio::spawn({
            let drain = drain.clone();
            async move {
                signals.next().await;
                tokio::select! {
                    _ = drain.finish(grace) => {}
                    () = signals.next() => drain.force(),
                }
            }
        });
        drain
    }

    /// A drain for a part of what this one is for: a part that may end before the rest, such as one of several servers.
    ///
    /// It begins and is forced with this one, or before, and this one waits for its work. For the work of a
    /// part of a part the whole waits, the part between them does not.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use std::time::Duration;
    /// use meshlib::Drain;
    ///
    /// let all = Drain::new();
    /// let (one, other) = (all.part(), all.part());
    /// assert!(one.finish(Duration::from_secs(1)).await);
    /// assert!(!other.is_started());
    ///
    /// all.start();
    /// assert!(other.is_started());
    /// # }
    /// ```
    #[must_use]
    pub fn part(&self) -> Self {
        Self {
            start: self.start.child_token(),
            force: self.force.child_token(),
            work: TaskTracker::new(),
            above: Some(self.above.as_ref().unwrap_or(&self.work).clone()),
        }
    }

    /// Begins: listeners close, connections go on.
    pub fn start(&self) {
        self.start.cancel();
        self.work.close();
    }

    /// Ends what still runs.
    pub fn force(&self) {
        self.start();
        self.force.cancel();
    }

    /// Whether it has begun.
    pub fn is_started(&self) -> bool {
        self.start.is_cancelled()
    }

    /// Waits until it has begun.
    pub async fn started(&self) {
        self.start.cancelled().await;
    }

    /// Waits until it is forced.
    pub async fn forced(&self) {
        self.force.cancelled().await;
    }

    /// Begins, waits up to `grace` for the work to end, forces the rest, and returns when all has ended.
    ///
    /// True if nothing had to be forced.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.start();
        let in_time = time::timeout(grace, self.work.wait()).await.is_ok();
        let forced = !in_time || self.force.is_cancelled();
        if forced {
            self.force();
            self.work.wait().await;
        }
        !forced
    }

    /// Registers a piece of work and gives it a view of the state. Dropping the view ends the work.
    pub fn draining(&self) -> Draining {
        // Its own, so that the connections of one server do not share a lock with those of others.
        let force = self.force.child_token();
        let above = self.above.as_ref().map(TaskTracker::token);
        Draining { start: self.start.clone(), force, _work: self.work.token(), _above: above }
    }
}

/// The view that a piece of work has of a [`Drain`]; the drain waits for it to be dropped.
#[derive(Clone, Debug)]
pub struct Draining {
    start: CancellationToken,
    force: CancellationToken,
    _work: TaskTrackerToken,
    _above: Option<TaskTrackerToken>,
}

impl Draining {
    /// Whether no new work should begin.
    pub fn is_started(&self) -> bool {
        self.start.is_cancelled()
    }

    /// Waits until no new work should begin.
    pub async fn started(&self) {
        self.start.cancelled().await;
    }

    /// Waits until the work must end.
    pub async fn forced(&self) {
        self.force.cancelled().await;
    }

    /// Runs a future until it ends (`Some`) or the drain is forced (`None`; the future is dropped).
    pub fn until_forced<F: Future>(&self, future: F) -> UntilForced<'_, F> {
        UntilForced { future, forced: Seldom::new(self.force.cancelled()) }
    }
}

/// A future that ends when the drain is forced; made by [`Draining::until_forced`].
///
/// Not an `async fn`, which would keep room for two of the future.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct UntilForced<'a, F> {
    #[pin]
    future: F,
    #[pin]
    forced: Seldom<WaitForCancellationFuture<'a>>,
}

impl<F: Future> Future for UntilForced<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.forced.poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        this.future.poll(cx).map(Some)
    }
}

/// The signals that ask a process to end.
struct Signals {
    #[cfg(unix)]
    streams: Vec<tokio::signal::unix::Signal>,
}

impl Signals {
    /// A signal that cannot be caught keeps its own effect, which is to end the process.
    fn install() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::SignalKind;

            let kinds = [SignalKind::terminate(), SignalKind::interrupt()];
            let streams = kinds.into_iter().filter_map(|kind| match tokio::signal::unix::signal(kind) {
                Ok(stream) => Some(stream),
                Err(error) => {
                    tracing::error!(%error, "cannot install a signal handler");
                    None
                }
            });
            Self { streams: streams.collect() }
        }
        #[cfg(not(unix))]
        Self {}
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        std::future::poll_fn(|cx| {
            let arrived =
                self.streams.iter_mut().any(|stream| matches!(stream.poll_recv(cx), Poll::Ready(Some(()))));
            if arrived { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_ends_in_time_is_not_forced() {
        let drain = Drain::new();
        let draining = drain.draining();
        tokio::spawn(async move {
            draining.started().await;
            time::sleep(Duration::from_secs(1)).await;
        });

        assert!(drain.finish(Duration::from_secs(2)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_goes_on_is_forced_at_the_deadline() {
        let drain = Drain::new();
        let draining = drain.draining();
        let work = tokio::spawn(async move { draining.until_forced(std::future::pending::<()>()).await });

        let began = time::Instant::now();
        assert!(!drain.finish(Duration::from_secs(2)).await);
        assert_eq!(began.elapsed().as_secs(), 2);
        assert_eq!(work.await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_work_of_a_part_is_waited_for_and_forced() {
        let all = Drain::new();
        let part = all.part();
        let draining = part.part().draining();
        let work = tokio::spawn(async move { draining.until_forced(std::future::pending::<()>()).await });
        part.start();

        let began = time::Instant::now();
        assert!(!all.finish(Duration::from_secs(2)).await);
        assert_eq!(began.elapsed().as_secs(), 2);
        assert_eq!(work.await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_ends_without_the_rest() {
        let all = Drain::new();
        let part = all.part();
        let (here, rest) = (part.draining(), all.draining());
        tokio::spawn(async move { here.until_forced(std::future::pending::<()>()).await });

        assert!(!part.finish(Duration::from_secs(1)).await);

        assert!(!rest.is_started());
        drop(rest);
        assert!(all.finish(Duration::from_secs(1)).await);
    }
}
