//! Following one answer of namerd: asking at an interval, watching in between.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::Response;
use http::header::TRANSFER_ENCODING;
use meshlib::backoff::Backoff;
use meshlib::http::Body;
use meshlib::observe::Event;
use meshlib::resolve::ResolveError;
use tokio::time;
use tokio::time::Instant;

use crate::api::Addr;
use crate::api::Skipped;
use crate::api::Tree;
use crate::client::Asker;
use crate::client::Options;
use crate::client::Target;
use crate::client::Watch;
use crate::watch::Values;

/// Pause before a failed poll is repeated, doubled up to the period.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Pauses before a watch that did not work is opened again.
const REOPEN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A watch is opened anew after this long: what a half-open connection hides comes to light then.
const RENEW: Duration = Duration::from_secs(600);

/// Understands an answer, and notes what of it is left out.
pub(crate) type Decode<T> = fn(&[u8], &Arc<str>, &mut Skipped) -> Result<T, ResolveError>;

/// What can be asked for.
pub(crate) trait Answer {
    /// Why there is nothing in it that can be used, if so.
    fn unusable(&self) -> Option<String>;
}

/// The values of one answer as they change. Without an end.
pub(crate) struct Follow<T> {
    asker: Asker,
    target: Target,
    options: Options,
    decode: Decode<T>,
    /// What was left out of the last answer.
    skipped: Skipped,
    poll: Poll,
    retry: Backoff,
    watch: Stream,
    reopen: Backoff,
}

enum Poll {
    At(Instant),
    Asking { asked: Instant, answer: BoxFuture<'static, Result<bytes::Bytes, ResolveError>> },
}

enum Stream {
    Never,
    At(Instant),
    Opening(BoxFuture<'static, Result<Response<Body>, ResolveError>>),
    Open { body: Body, values: Values, until: Instant },
}

/// What happened.
enum Step {
    PollDue,
    Polled(Result<bytes::Bytes, ResolveError>),
    WatchDue,
    Opened(Result<Response<Body>, ResolveError>),
    Chunk(Result<Option<bytes::Bytes>, meshlib::http::HttpError>),
    Renew,
}

impl<T: Answer> Follow<T> {
    pub(crate) fn new(asker: Asker, target: Target, options: Options, decode: Decode<T>) -> Self {
        let now = Instant::now();
        let watch = if options.watch == Watch::Never { Stream::Never } else { Stream::At(now) };
        let most = if options.watch == Watch::Always { REOPEN.0 } else { REOPEN.1 };
        Self {
            asker,
            target,
            retry: Backoff::new(FIRST_RETRY, options.period),
            options,
            decode,
            skipped: Skipped::default(),
            poll: Poll::At(now),
            watch,
            reopen: Backoff::new(REOPEN.0, most),
        }
    }

    /// The next answer, or why there is none.
    pub(crate) async fn next(&mut self) -> Result<T, ResolveError> {
        loop {
            if let Stream::Open { values, .. } = &mut self.watch
                && let Some(value) = values.next()
            {
                let result = match value {
                    Ok(value) => self.decoded(&value),
                    Err(error) => Err(self.undecodable(error)),
                };
                match &result {
                    Ok(_) => self.reopen.reset(),
                    Err(_) => self.reopen_later(),
                }
                return result;
            }
            let step = self.step().await;
            match step {
                Step::PollDue => {
                    let answer = self.asker.ask(self.target.clone());
                    self.poll = Poll::Asking { asked: Instant::now(), answer };
                }
                Step::Polled(answer) => return self.polled(answer),
                Step::WatchDue => self.watch = Stream::Opening(self.asker.watch(self.target.clone())),
                Step::Opened(Ok(response)) => {
                    // Whoever does not stream has not understood: its answer is one answer, and no watch.
                    if !response.headers().contains_key(TRANSFER_ENCODING) {
                        tracing::debug!(name = %self.target.name, "namerd does not stream; polling only");
                    }
                    let until = Instant::now() + RENEW.mul_f64(0.9 + fastrand::f64() / 5.0);
                    self.watch = Stream::Open { body: response.into_body(), values: Values::new(), until };
                }
                Step::Opened(Err(error)) => {
                    self.reopen_later();
                    tracing::debug!(name = %self.target.name, %error, "cannot watch; polling only");
                }
                Step::Chunk(Ok(Some(bytes))) => {
                    if let Stream::Open { values, .. } = &mut self.watch {
                        values.push(&bytes);
                    }
                }
                Step::Chunk(ended) => {
                    if let Err(error) = ended {
                        tracing::debug!(name = %self.target.name, %error, "the watch broke off");
                    }
                    // A complete value at the very end counts; the rest of a cut one does not.
                    let rest = if let Stream::Open { values, .. } = &mut self.watch {
                        values.finish();
                        values.next()
                    } else {
                        None
                    };
                    self.reopen_later();
                    if let Some(Ok(value)) = rest {
                        return self.decoded(&value);
                    }
                }
                Step::Renew => self.watch = Stream::At(Instant::now()),
            }
        }
    }

    /// Waits for whatever comes first. Cancel-safe: what was begun is kept.
    async fn step(&mut self) -> Step {
        let poll = async {
            match &mut self.poll {
                Poll::At(at) => {
                    time::sleep_until(*at).await;
                    Step::PollDue
                }
                Poll::Asking { answer, .. } => Step::Polled(answer.await),
            }
        };
        let watch = async {
            match &mut self.watch {
                Stream::Never => std::future::pending().await,
                Stream::At(at) => {
                    time::sleep_until(*at).await;
                    Step::WatchDue
                }
                Stream::Opening(response) => Step::Opened(response.await),
                Stream::Open { body, until, .. } => {
                    time::timeout_at(*until, body.chunk()).await.map_or(Step::Renew, Step::Chunk)
                }
            }
        };
        tokio::select! {
            step = watch => step,
            step = poll => step,
        }
    }

    fn polled(&mut self, answer: Result<bytes::Bytes, ResolveError>) -> Result<T, ResolveError> {
        let asked = match &self.poll {
            Poll::Asking { asked, .. } | Poll::At(asked) => *asked,
        };
        let result = answer.and_then(|bytes| self.decoded(&bytes));
        self.report(asked.elapsed(), &result);
        let pause = if result.is_ok() {
            self.retry.reset();
            self.options.period.mul_f64(0.9 + fastrand::f64() / 10.0)
        } else {
            self.retry.next_delay()
        };
        self.poll = Poll::At(Instant::now() + pause);
        result
    }

    fn report(&self, took: Duration, result: &Result<T, ResolveError>) {
        let name = &self.target.name;
        // For those who count, an answer without endpoints is none.
        let unusable = result.as_ref().ok().and_then(Answer::unusable);
        let unusable = unusable.map(|reason| ResolveError::Undecided { name: Arc::clone(name), reason });
        let error = result.as_ref().err().or(unusable.as_ref());
        self.options.observer.on(&Event::Asked { name, took, error });
    }

    fn reopen_later(&mut self) {
        self.watch = Stream::At(Instant::now() + self.reopen.next_delay());
    }

    fn decoded(&mut self, bytes: &[u8]) -> Result<T, ResolveError> {
        let mut skipped = Skipped::default();
        let answer = (self.decode)(bytes, &self.target.name, &mut skipped)?;
        // Once per change: answers come every few seconds.
        if skipped != self.skipped && !skipped.is_empty() {
            let reason = skipped.first.as_deref().unwrap_or_default();
            tracing::warn!(name = %self.target.name, left_out = skipped.count, reason, "some addresses cannot be used");
        }
        self.skipped = skipped;
        Ok(answer)
    }

    fn undecodable(&self, error: crate::watch::ValueError) -> ResolveError {
        ResolveError::Decode { name: Arc::clone(&self.target.name), source: Arc::new(error) }
    }
}

/// Understands an address.
pub(crate) fn addr(bytes: &[u8], name: &Arc<str>, skipped: &mut Skipped) -> Result<Addr, ResolveError> {
    Addr::from_json(bytes, skipped)
        .map_err(|error| ResolveError::Decode { name: Arc::clone(name), source: Arc::new(error) })
}

/// Why a name without addresses has none.
pub(crate) const NEGATIVE: &str = "no such name";

impl Answer for Addr {
    fn unusable(&self) -> Option<String> {
        match self {
            Self::Bound { .. } => None,
            Self::Neg => Some(NEGATIVE.into()),
            Self::Failed { cause } => Some(cause.clone().unwrap_or_else(|| "the look-up failed".into())),
            Self::Pending => Some("still looking".into()),
        }
    }
}

impl Answer for Tree {
    fn unusable(&self) -> Option<String> {
        matches!(self, Self::Neg | Self::Fail | Self::Empty).then(|| NEGATIVE.into())
    }
}
