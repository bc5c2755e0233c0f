//! Following one answer of Consul by blocking queries.
//!
//! Consul holds a request back until what it asks for has changed, or a time is over. What a watch tells is a [`Level`]:
//! the whole value as it is, and whether it can be relied on. A value is never taken back because Consul fails.
//!
//! # Examples
//!
//! ```no_run
//! # async fn example(consul: meshlib_consul::Consul) -> Result<(), Box<dyn std::error::Error>> {
//! use futures::StreamExt;
//!
//! let mut levels = consul.kv_watch("config/web")?;
//! while let Some(level) = levels.next().await {
//!     if let Some(why) = level.degraded {
//!         eprintln!("what follows may be out of date: {why:?}");
//!     }
//!     match level.value {
//!         None => println!("not known yet"),
//!         Some(None) => println!("the key is not there"),
//!         Some(Some(pair)) => println!("{} has {} bytes", pair.key, pair.value.len()),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use http::HeaderValue;
use tokio::sync::watch::Receiver;
use tokio::time;
use tokio::time::Instant;
use tower::BoxError;

use crate::ask::Ask;
use crate::client::Answer;
use crate::client::Consul;
use crate::client::failure;
use crate::error::ConsulError;
use crate::leader::Watching;

mod index;
mod pace;

use index::Index;
use pace::Pace;

/// Added to the time that Consul may take: its own jitter is a sixteenth on top.
const SLACK: Duration = Duration::from_secs(10);
/// How long a watch waits while others wait for a connection.
const CROWDED_WAIT: Duration = Duration::from_secs(5);
/// Pause after Consul has denied what is watched.
const DENIED_PAUSE: Duration = Duration::from_secs(30);
/// How often in a row a watch asks again because a leader was found, without getting an answer.
const MOST_WAKES: u32 = 3;
/// Refused connections in a row after which it is Consul that fails, and not we who ask too much.
const MOST_REFUSALS: u32 = 10;

/// What is known: a value, once there was one, and whether it may be out of date.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Level<T> {
    /// The last good value. `None`: there was none yet.
    pub value: Option<T>,
    /// Why the value may be out of date, if so.
    pub degraded: Option<Degraded>,
}

impl<T> Level<T> {
    /// Puts the parts together.
    pub fn new(value: Option<T>, degraded: Option<Degraded>) -> Self {
        Self { value, degraded }
    }

    /// The same about something made of the value.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Level<U> {
        Level { value: self.value.map(make), degraded: self.degraded }
    }
}

/// Why a value may be out of date.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Degraded {
    /// The server that answered knows no leader.
    NoLeader,
    /// The server that answered had not heard of the leader for so long.
    Lagging(Duration),
    /// Nothing is in the catalog, not even Consul itself, or services are listed without an instance of any: a token
    /// that has no rights to read services and nodes sees the same. The value is the one from before, if there was one.
    SuspiciousEmpty,
    /// All services that were followed have vanished while Consul was not well, as they do where it has lost its data. The
    /// value is the one from before: what is back is followed at once, and the others stay until they are back as well or
    /// are believed to be gone.
    Forgotten {
        /// How many of them are missing still.
        services: usize,
        /// When these are believed to be gone, unless Consul fails again before.
        until: SystemTime,
    },
    /// Consul could not be asked, or its answer was no good.
    Failing(ConsulError),
}

impl Degraded {
    /// Whether both are the same state of affairs.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failing(one), Self::Failing(other)) => {
                std::mem::discriminant(one) == std::mem::discriminant(other)
            }
            // How many are missing, and until when, is worth telling.
            (
                Self::Forgotten { services: one, until: one_until },
                Self::Forgotten { services: other, until: other_until },
            ) => one == other && one_until == other_until,
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }
}

/// Whether two states of affairs are told apart.
pub(crate) fn same_health(one: Option<&Degraded>, other: Option<&Degraded>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.is_like(other),
        _ => false,
    }
}

pub(crate) type Decode<T> = Box<dyn Fn(&Answer) -> Result<T, BoxError> + Send + Sync>;

/// The loop of one path. Dropping it cancels the request that waits.
pub(crate) struct Watch<T> {
    consul: Consul,
    ask: Ask,
    decode: Decode<T>,
    missing_is_value: bool,
    index: Index,
    value: Option<T>,
    degraded: Option<Degraded>,
    pace: Pace,
    failures: u32,
    /// Not before then, unless a leader is found.
    retry_at: Option<Instant>,
    wakes: u32,
    refusals: u32,
    watching: Watching,
    token: Receiver<Option<HeaderValue>>,
}

impl<T: Clone + PartialEq> Watch<T> {
    /// Follows what `ask` asks for, understood by `decode`.
    pub(crate) fn new(
        consul: &Consul,
        ask: Ask,
        decode: impl Fn(&Answer) -> Result<T, BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            consul: consul.clone(),
            ask,
            decode: Box::new(decode),
            missing_is_value: false,
            index: Index::default(),
            value: None,
            degraded: None,
            pace: Pace::default(),
            failures: 0,
            retry_at: None,
            wakes: 0,
            refusals: 0,
            watching: Watching::new(consul),
            token: consul.shared.token.subscribe(),
        }
    }

    /// Takes 404 as an answer: that nothing is there.
    pub(crate) fn missing_is_value(mut self) -> Self {
        self.missing_is_value = true;
        self
    }

    /// Leaves at least this time between two requests.
    pub(crate) fn pause(mut self, pause: Duration) -> Self {
        self.pace.set_least(pause);
        self
    }

    /// Leaves at least this time between two requests from now on.
    pub(crate) fn set_pause(&mut self, pause: Duration) {
        self.pace.set_least(pause);
    }

    /// What is known after the next change of it.
    ///
    /// Cancel-safe: what was under way is asked for again.
    pub(crate) async fn next(&mut self) -> Level<T> {
        loop {
            self.rest().await;
            let result = self.read().await;
            if self.take(result) {
                return Level { value: self.value.clone(), degraded: self.degraded.clone() };
            }
        }
    }

    async fn rest(&mut self) {
        if let Some(at) = self.retry_at {
            if self.wakes < MOST_WAKES {
                tokio::select! {
                    () = time::sleep_until(at) => {}
                    () = self.watching.found() => self.wakes += 1,
                    Ok(()) = self.token.changed() => {}
                }
            } else {
                tokio::select! {
                    () = time::sleep_until(at) => {}
                    Ok(()) = self.token.changed() => {}
                }
            }
            self.retry_at = None;
        }
        time::sleep_until(self.pace.next_start()).await;
    }

    async fn read(&mut self) -> Result<Answer, ConsulError> {
        let lanes = Arc::clone(&self.consul.shared.watches);
        let lane = lanes.enter().await;
        self.pace.started();
        if self.token.has_changed().unwrap_or_default() {
            self.token.mark_unchanged();
            self.index.reset();
        }
        let answer = loop {
            let mut ask = self.ask.clone();
            if let Some(index) = self.index.get() {
                let wait = self.wait(lanes.is_crowded());
                // Consul reads whole numbers with a unit.
                let millis = format!("{}ms", wait.as_millis());
                ask = ask
                    .param("index", index.to_string())
                    .param("wait", millis)
                    .within(wait + wait / 16 + SLACK);
            }
            tokio::select! {
                answer = self.consul.wait(ask) => break answer,
                // With another token the answer may be another one.
                Ok(()) = self.token.changed() => self.index.reset(),
            }
        };
        drop(lane);
        answer
    }

    fn wait(&self, crowded: bool) -> Duration {
        let config = &self.consul.shared.config;
        let wait = config.wait.unwrap_or_else(|| wait_among(self.consul.shared.leader.watches()));
        if crowded { wait.min(CROWDED_WAIT) } else { wait }
    }

    /// True if there is something new to tell.
    fn take(&mut self, result: Result<Answer, ConsulError>) -> bool {
        match result.and_then(|answer| self.understand(answer)) {
            Ok((value, degraded, moved)) => {
                (self.failures, self.wakes, self.refusals) = (0, 0, 0);
                self.watching.set_failing(None);
                let is_news = self.value.as_ref() != Some(&value);
                if is_news {
                    self.value = Some(value);
                }
                if is_news || moved {
                    self.pace.woken(is_news);
                }
                self.set_degraded(degraded) || is_news
            }
            Err(ConsulError::Busy) if self.refusals < MOST_REFUSALS => {
                self.refusals += 1;
                // Too many connections is our own doing, and says nothing about Consul. It may have been its end all the
                // same, and the index that of an agent that is no more.
                self.index.reset();
                self.consul.shared.watches.refused();
                self.retry_after(Duration::from_millis(100 + fastrand::u64(..900)));
                false
            }
            Err(error) => {
                self.index.reset();
                let pause = if error.is_denied() {
                    // A leader has nothing to do with it.
                    self.wakes = MOST_WAKES;
                    DENIED_PAUSE.mul_f64(0.9 + fastrand::f64() / 5.0)
                } else {
                    pace::backoff(self.failures)
                };
                self.failures = self.failures.saturating_add(1);
                self.retry_after(pause);
                self.watching.set_failing(Some(&error));
                self.consul.shared.doubt.failed(&error);
                tracing::debug!(what = %self.ask.what, %error, ?pause, "a watch of consul failed");
                self.set_degraded(Some(Degraded::Failing(error)))
            }
        }
    }

    /// The value, whether it may be out of date, and whether Consul's state has moved.
    fn understand(&mut self, answer: Answer) -> Result<(T, Option<Degraded>, bool), ConsulError> {
        let what = &self.ask.what;
        if answer.status != 200 && !(answer.status == 404 && self.missing_is_value) {
            return Err(failure(what, &answer));
        }
        let index = answer.index().ok_or_else(|| ConsulError::NoIndex { what: Arc::clone(what) })?;
        let value = (self.decode)(&answer).map_err(|error| ConsulError::decode(what, error))?;
        if self.index.is_behind(index) {
            self.consul.shared.counts.index_went_back(&self.ask.uri);
        }
        let regresses = self.index.regresses(index);
        let moved = self.index.advance(index);
        let most_lag = self.consul.shared.config.max_lag;
        let degraded = match answer.lag() {
            _ if !answer.knows_leader() => Some(Degraded::NoLeader),
            lag if lag > most_lag => Some(Degraded::Lagging(lag)),
            _ => None,
        };
        if regresses || degraded.is_some() {
            self.consul.shared.doubt.trouble();
        }
        Ok((value, degraded, moved))
    }

    fn retry_after(&mut self, pause: Duration) {
        self.retry_at = Some(Instant::now() + pause);
    }

    fn set_degraded(&mut self, degraded: Option<Degraded>) -> bool {
        let same = same_health(self.degraded.as_ref(), degraded.as_ref());
        self.degraded = degraded;
        !same
    }
}

/// How long a watch waits for a change where there are so many of them: the more, the longer, so that those that come
/// back without a change stay few.
fn wait_among(watches: usize) -> Duration {
    let over = u64::try_from(watches.saturating_sub(200).min(800)).unwrap_or(800);
    Duration::from_secs(60 + 240 * over / 800)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_watches_wait_longer() {
        let seconds = |watches| wait_among(watches).as_secs();

        assert_eq!([seconds(1), seconds(200), seconds(600), seconds(1000)], [60, 60, 180, 300]);
        assert_eq!(seconds(100_000), 300);
    }

    #[test]
    fn states_of_affairs_are_told_apart_by_kind() {
        let failing = |error| Degraded::Failing(error);
        let status = |status| ConsulError::Status { what: "x".into(), status, reason: String::new() };

        assert!(failing(status(500)).is_like(&failing(status(503))));
        assert!(!failing(status(500)).is_like(&failing(ConsulError::Busy)));
        assert!(Degraded::Lagging(SLACK).is_like(&Degraded::Lagging(DENIED_PAUSE)));
        assert!(!same_health(None, Some(&Degraded::NoLeader)));
    }

    #[test]
    fn how_many_are_missing_and_until_when_is_told_anew() {
        let now = SystemTime::UNIX_EPOCH;
        let forgotten = |services, until| Some(Degraded::Forgotten { services, until });
        let same = |one: Option<Degraded>, other: Option<Degraded>| same_health(one.as_ref(), other.as_ref());

        assert!(same(forgotten(2, now), forgotten(2, now)));
        assert!(!same(forgotten(2, now), forgotten(1, now)));
        assert!(!same(forgotten(2, now), forgotten(2, now + SLACK)));
    }
}
