//! One request on its way: picking, waiting, attempts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use futures::future::BoxFuture;
use pin_project::pin_project;
use tokio::time::Instant;
use tower::Service;
use tower::load::TrackCompletion;

use super::Hints;
use super::attempts::Replay;
use super::budget::Budget;
use super::service::Calls;
use super::set::InFlight;
use super::set::Replica;
use super::shared::Nothing;
use super::shared::Shared;
use super::wait::Place;
use crate::backoff::Backoff;
use crate::endpoint::EndpointKey;
use crate::error::Error;
use crate::error::Fault;
use crate::error::Unavailable;
use crate::io::TIME_TO_ANSWER;
use crate::observe::Event;
use crate::once::Once;
use crate::session::To;

/// Pause before a request that was tried on every endpoint begins a second round, doubled up to the second value.
const ROUND_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The answer of a [`Balance`](super::Balance).
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct BalanceFuture<S: Service<To<R>>, R: Replay, K> {
    inner: S,
    shared: Arc<Shared>,
    calls: Arc<Calls<K>>,
    /// Before the first attempt.
    request: Option<R>,
    /// Of the request, after it, unless it cannot be made again.
    kept: Option<R::Kept>,
    affinity: Option<u64>,
    tried: Vec<EndpointKey>,
    attempts: u32,
    rounds: Backoff,
    /// When this attempt found no endpoint at once, if it did not.
    asked: Option<Instant>,
    /// When any attempt first had to wait. What it may wait is counted from here, however many attempts fail in between.
    waiting_since: Option<Instant>,
    /// Why the attempt before failed, if there is to be another.
    last: Option<Error>,
    #[pin]
    step: Step<S, R>,
}

#[pin_project(project = StepProj)]
enum Step<S: Service<To<R>>, R> {
    Pick {
        place: Option<Place>,
    },
    Wait {
        wait: BoxFuture<'static, Result<Place, Error>>,
    },
    Call {
        #[pin]
        call: Once<S, To<R>>,
        attempt: Attempt,
        place: Option<Place>,
    },
}

impl<S: Service<To<R>>, R: Replay, K> BalanceFuture<S, R, K> {
    pub(super) fn new(inner: S, shared: Arc<Shared>, calls: Arc<Calls<K>>, request: R) -> Self {
        Self {
            inner,
            shared,
            calls,
            affinity: request.affinity(),
            request: Some(request),
            kept: None,
            tried: Vec::new(),
            attempts: 0,
            rounds: Backoff::new(ROUND_PAUSE.0, ROUND_PAUSE.1),
            asked: None,
            waiting_since: None,
            last: None,
            step: Step::Pick { place: None },
        }
    }
}

impl<S, R, K> Future for BalanceFuture<S, R, K>
where
    S: Service<To<R>, Error = Error> + Clone,
    R: Replay,
    K: TrackCompletion<InFlight, S::Response> + Clone,
{
    type Output = Result<K::Output, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            match this.step.as_mut().project() {
                StepProj::Pick { place } => {
                    let place = place.take();
                    this.shared.start();
                    let queued = this.shared.waiters.load(Ordering::Relaxed) > 0;
                    let waiting = this.calls.waiting;
                    // Whoever comes while others wait goes behind them.
                    let picked = if place.is_none() && waiting.is_some() && queued {
                        Err(Nothing::Pending)
                    } else {
                        this.shared.pick(&Hints { exclude: this.tried, hash: *this.affinity })
                    };
                    match picked {
                        Ok(replica) => {
                            // Whoever is behind has its turn. The place itself is kept until the attempt has succeeded:
                            // those that came later must not take it, or turn this one away when the attempt fails.
                            let place = place.map(Place::pass);
                            let request = this.request.take().or_else(|| this.kept.take().map(R::replay));
                            let Some(mut request) = request else {
                                unreachable!("a request that cannot be repeated is not picked for twice")
                            };
                            if this.calls.attempts.most.is_none_or(|most| *this.attempts + 1 < most) {
                                *this.kept = request.keep();
                            }
                            *this.attempts += 1;
                            let to = To::new(replica.endpoint().clone(), request);
                            let attempt =
                                Attempt::begin(this.shared, replica, this.asked.take(), *this.attempts);
                            let call = Once::new(this.inner, to);
                            this.step.set(Step::Call { call, attempt, place });
                        }
                        Err(nothing) => {
                            let mut floor = Duration::ZERO;
                            match nothing {
                                Nothing::Pending => {}
                                Nothing::Unavailable(reason) if waiting.is_none() => {
                                    // What went wrong is the attempt, not that there is nothing else to try.
                                    let failed = this.last.take();
                                    return Poll::Ready(Err(
                                        failed.unwrap_or_else(|| this.shared.error(reason))
                                    ));
                                }
                                Nothing::Unavailable(Unavailable::Excluded) => {
                                    this.tried.clear();
                                    floor = this.rounds.next_delay();
                                }
                                // Woken because there was something to pick, and it was not picked: another caller was
                                // quicker, or the balancer sees it otherwise and must not be asked in a loop.
                                Nothing::Unavailable(_) if place.is_some() => floor = ROUND_PAUSE.0,
                                Nothing::Unavailable(_) => {}
                            }
                            let now = Instant::now();
                            this.asked.get_or_insert(now);
                            let since = *this.waiting_since.get_or_insert(now);
                            let place = match place {
                                Some(place) => place,
                                None => Place::join(this.shared, waiting.as_ref(), since)?,
                            };
                            this.step.set(Step::Wait { wait: Box::pin(place.wait(waiting, floor)) });
                        }
                    }
                }
                StepProj::Wait { wait } => {
                    let place = ready!(wait.as_mut().poll(cx))?;
                    this.step.set(Step::Pick { place: Some(place) });
                }
                StepProj::Call { call, attempt, place } => {
                    let result = ready!(call.poll(cx));
                    let (mut guard, took) = attempt.end(result.as_ref().err());
                    let error = match result {
                        Ok(answer) => {
                            guard.answered(took);
                            this.shared.succeeded(&attempt.replica);
                            return Poll::Ready(Ok(this.calls.tracking.track_completion(guard, answer)));
                        }
                        Err(error) => error,
                    };
                    drop(guard);
                    let of_connection = error.is_of_connection();
                    if error.fault() == Fault::Server && !of_connection {
                        this.shared.failed(&attempt.replica, &error);
                    }
                    let attempts = &this.calls.attempts;
                    let again = error.is_retryable()
                        && this.kept.is_some()
                        && attempts.most.is_none_or(|most| *this.attempts < most)
                        && attempts.budget.as_ref().is_none_or(Budget::withdraw);
                    if !again {
                        return Poll::Ready(Err(error));
                    }
                    tracing::debug!(name = %this.shared.name, error = %error.chain(), "trying another endpoint");
                    if !of_connection {
                        this.tried.push(attempt.replica.endpoint().key());
                    }
                    *this.last = Some(error);
                    let place = place.take();
                    this.step.set(Step::Pick { place });
                }
            }
        }
    }
}

/// One attempt on one replica. Says how it ended, also when its caller does not wait for that.
struct Attempt {
    shared: Arc<Shared>,
    replica: Replica,
    since: Instant,
    /// Taken when it has ended.
    guard: Option<InFlight>,
}

impl Attempt {
    fn begin(shared: &Arc<Shared>, replica: Replica, asked: Option<Instant>, attempt: u32) -> Self {
        let since = Instant::now();
        let waited = asked.map_or(Duration::ZERO, |asked| since - asked);
        let (name, endpoint) = (&shared.name, replica.endpoint());
        shared.observer.on(&Event::Attempt { name, endpoint, waited, attempt });
        let guard = Some(replica.begin());
        Self { shared: Arc::clone(shared), replica, since, guard }
    }

    /// Gives back the guard, and how long it took.
    fn end(&mut self, error: Option<&Error>) -> (InFlight, Duration) {
        let Some(guard) = self.guard.take() else { unreachable!("an attempt ends once") };
        let (name, endpoint, took) = (&self.shared.name, self.replica.endpoint(), self.since.elapsed());
        self.shared.observer.on(&Event::Attempted { name, endpoint, took, error });
        (guard, took)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.guard.is_some() {
            let (name, endpoint, took) = (&self.shared.name, self.replica.endpoint(), self.since.elapsed());
            self.shared.observer.on(&Event::Abandoned { name, endpoint, took });
            if took >= TIME_TO_ANSWER {
                self.replica.unanswered_now();
            }
        }
    }
}

impl<S: Service<To<R>>, R: Replay, K> fmt::Debug for BalanceFuture<S, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceFuture").field("attempts", &self.attempts).finish_non_exhaustive()
    }
}
