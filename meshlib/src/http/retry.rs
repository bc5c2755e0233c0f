//! Asking again when an answer is no good.

use std::fmt;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body::Body as _;
use tokio::time;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;

use super::Body;
use crate::backoff::Backoff;
use crate::balance::Budget;
use crate::balance::Replay;
use crate::error::Error;
use crate::error::Fault;

/// Sends a request again whose answer is no good, as long as a budget lasts.
///
/// Belongs above the balancer, which sends a request that nobody took to another endpoint by itself. Only requests are
/// repeated that have no body or one of at most 64 KiB, which is read before the first attempt; others go through as they
/// come. What counts as good says a [`Classify`].
///
/// The balancer gives a retry an endpoint as it does any request, and that may be the one that has just failed. After an
/// error it is another one if the balancer leaves endpoints alone for a moment after any failure:
/// [`Accrual::with_cool_down`](crate::balance::Accrual::with_cool_down). An answer of 502 to 504 is a success to the balancer,
/// which knows no statuses: with n equal endpoints about one retry in n goes to the same one, more with
/// [`PeakEwma`](crate::balance::PeakEwma), to which who fails quickly is quick. A second retry ([`most(2)`](Self::most))
/// makes up for that.
///
/// A [`TimeoutLayer`](crate::TimeoutLayer) above this layer is for all attempts together, one below it for each.
///
/// # Examples
///
/// ```
/// use meshlib::balance::Budget;
/// use meshlib::http::{IdempotentFailures, RetryLayer};
///
/// let retries = RetryLayer::new(IdempotentFailures::new()).most(2).budget(Budget::default());
/// # let _ = retries;
/// ```
#[derive(Clone)]
#[must_use = "layers do nothing unless applied"]
pub struct RetryLayer {
    classify: Arc<dyn Classify>,
    most: u32,
    budget: Budget,
    pause: Backoff,
}

/// Says whether an answer is good.
pub trait Classify: Send + Sync + 'static {
    /// What has become of a request.
    fn classify(&self, outcome: &Outcome<'_>) -> Class;
}

/// What has become of a request.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome<'a> {
    /// Its method.
    pub method: &'a Method,
    /// The answer's head, or why there is none.
    pub result: Result<&'a Response<Body>, &'a Error>,
}

/// What an outcome is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// It is good.
    Success,
    /// It is not, and may be another time.
    Retryable,
    /// It is not, and would not be another time, or must not be tried.
    Failure,
}

/// Tries requests again that do no harm twice (RFC 9110 section 9.2.2), when the answer is 502, 503 or 504, or there is none
/// by the [endpoint's fault](crate::Fault::Server).
///
/// What is nobody's fault there is not tried again: that no endpoint is known, or none came within the balancer's wait, would
/// be waited for a second time; a client that broke its request off does not want it; what a policy or a limit of ours
/// refuses, it refuses again. None of that draws on the budget.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct IdempotentFailures {}

impl IdempotentFailures {
    /// There are no options.
    pub const fn new() -> Self {
        Self {}
    }
}

impl Classify for IdempotentFailures {
    fn classify(&self, outcome: &Outcome<'_>) -> Class {
        let failed = match outcome.result {
            Ok(answer) => matches!(
                answer.status(),
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            ),
            Err(error) => error.fault() == Fault::Server,
        };
        match (failed, outcome.method.is_idempotent()) {
            (false, _) => Class::Success,
            (true, true) => Class::Retryable,
            (true, false) => Class::Failure,
        }
    }
}

/// Larger bodies are not kept for another attempt.
const MAX_KEPT: usize = 64 * 1024;
/// Pause before the first retry, doubling up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));

impl RetryLayer {
    /// One retry, paid from a default [`Budget`] of its own, after 25 ms.
    pub fn new(classify: impl Classify) -> Self {
        let pause = Backoff::new(PAUSE.0, PAUSE.1);
        Self { classify: Arc::new(classify), most: 1, budget: Budget::default(), pause }
    }

    /// Sets how many retries a request may have. Default 1.
    pub fn most(mut self, retries: u32) -> Self {
        self.most = retries;
        self
    }

    /// Sets what retries are paid from; several layers may share one.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Sets the pauses before retries. Default: 25 ms, doubling up to 250 ms.
    pub fn pause(mut self, pause: Backoff) -> Self {
        self.pause = pause;
        self
    }
}

impl fmt::Debug for RetryLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("most", &self.most)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { inner, layer: self.clone() }
    }
}

/// Sends requests again; made by [`RetryLayer`].
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
    layer: RetryLayer,
}

impl<S> Service<Request<Body>> for Retry<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (inner, mut layer) = (self.inner.clone(), self.layer.clone());
        layer.budget.deposit();
        Box::pin(async move {
            let small = request.body().size_hint().upper().is_some_and(|size| size <= MAX_KEPT as u64);
            if !small || layer.most == 0 {
                return inner.oneshot(request).await;
            }
            let (head, body) = request.into_parts();
            let kept = if body.is_end_stream() { Bytes::new() } else { kept(body).await? };
            let mut request = Request::from_parts(head, Body::from(kept));
            for _ in 0..layer.most {
                let Some(kept) = request.keep() else { break };
                let method = request.method().clone();
                let result = inner.clone().oneshot(request).await;
                let class = layer.classify.classify(&Outcome { method: &method, result: result.as_ref() });
                if class != Class::Retryable || !layer.budget.withdraw() {
                    return result;
                }
                // The answer is dropped with its body, which the endpoint need not send to its end.
                drop(result);
                time::sleep(layer.pause.next_delay()).await;
                request = Replay::replay(kept);
            }
            inner.oneshot(request).await
        })
    }
}

async fn kept(body: Body) -> Result<Bytes, Error> {
    body.collect(MAX_KEPT).await.map_err(|error| Error::Http(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::error::Phase;
    use crate::error::Refusal;
    use crate::http::HttpError;

    fn timeout(phase: Phase) -> Error {
        Error::Timeout { phase, after: Duration::from_secs(1) }
    }

    /// The status of the answer, and the bodies that a service got which answers with these statuses in turn.
    async fn ask(layer: RetryLayer, statuses: &'static [u16], request: Request<Body>) -> (u16, Vec<Bytes>) {
        let seen = Arc::<Mutex<Vec<Bytes>>>::default();
        let noted = Arc::clone(&seen);
        let service = tower::service_fn(move |request: Request<Body>| {
            let noted = Arc::clone(&noted);
            async move {
                let body = request.into_body().collect(MAX_KEPT * 2).await.unwrap();
                let mut noted = noted.lock().unwrap();
                noted.push(body);
                let mut answer = Response::new(Body::empty());
                *answer.status_mut() = StatusCode::from_u16(statuses[noted.len() - 1]).unwrap();
                Ok::<_, Error>(answer)
            }
        });
        let status = layer.layer(service).oneshot(request).await.unwrap().status().as_u16();
        let seen = seen.lock().unwrap().clone();
        (status, seen)
    }

    fn request(method: Method, body: impl Into<Body>) -> Request<Body> {
        Request::builder().method(method).body(body.into()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_no_good_is_asked_for_again_with_the_same_body() {
        let layer = RetryLayer::new(IdempotentFailures::new()).most(2);

        let (status, seen) = ask(layer, &[503, 502, 200], request(Method::PUT, "all of it")).await;

        assert_eq!((status, seen), (200, vec![Bytes::from("all of it"); 3]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_is_given_whatever_it_is() {
        let layer = RetryLayer::new(IdempotentFailures::new()).most(1);

        assert_eq!(ask(layer, &[503, 504], request(Method::GET, "")).await.0, 504);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_do_harm_or_is_large_or_good_is_sent_once() {
        let layer = RetryLayer::new(IdempotentFailures::new()).most(2);

        assert_eq!(ask(layer.clone(), &[503], request(Method::POST, "x")).await.0, 503);
        assert_eq!(ask(layer.clone(), &[503], request(Method::PUT, vec![b'x'; MAX_KEPT + 1])).await.0, 503);
        assert_eq!(ask(layer, &[404], request(Method::GET, "")).await.0, 404);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_an_endpoints_fault_is_tried_again_and_paid_for() {
        type Fail = fn() -> Error;
        let outcomes: [(Fail, u32); _] = [
            (|| timeout(Phase::Connect), 2),
            (|| timeout(Phase::Request), 2),
            (|| timeout(Phase::Wait), 1),
            (|| Error::Http(Box::new(HttpError::Malformed("no host"))), 1),
            (|| Error::Refused(Refusal::Limit), 1),
            (|| Error::other("the cache is cold"), 1),
        ];
        for (fail, attempts) in outcomes {
            let made = Arc::new(AtomicU32::new(0));
            let count = Arc::clone(&made);
            let service = tower::service_fn(move |_: Request<Body>| {
                count.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Err::<Response<Body>, _>(fail()))
            });
            let one = Budget::new(Duration::from_secs(3600), 1.0 / 3600.0, 0.0);
            let layer = RetryLayer::new(IdempotentFailures::new()).budget(one.clone());

            let error = layer.layer(service).oneshot(request(Method::GET, "")).await.unwrap_err();

            assert_eq!(made.load(Ordering::Relaxed), attempts, "{error}");
            assert_eq!(one.withdraw(), attempts == 1, "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_budget_nothing_is_repeated() {
        let broke = Budget::new(Duration::from_secs(10), 0.0, 0.0);
        let layer = RetryLayer::new(IdempotentFailures::new()).most(2).budget(broke);

        assert_eq!(ask(layer, &[503], request(Method::GET, "")).await.0, 503);
    }
}
