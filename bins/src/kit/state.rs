//! What a program shows of itself: the numbers and names behind `/state.json` and the dashboard.
//!
//! A program implements [`Source`]; [`Watching`] looks at it every few seconds, so that rates and the last ten minutes
//! can be shown to whoever asks, at a cost that does not depend on how many ask.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;
use std::time::SystemTime;

use tokio::time;
use tokio::time::Instant;

mod certificate;
mod endings;
mod endpoints;
mod history;
mod model;

pub use endpoints::endpoints;
pub use history::LOOKS;
pub use history::Totals;
pub use model::Certificate;
pub use model::Destination;
pub use model::EndpointState;
pub use model::Point;
pub use model::Reload;
pub use model::State;
pub use model::Traffic;

use history::History;

use crate::kit::log;

/// How often a program is looked at. The history is [`LOOKS`] times as long: ten minutes.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Endpoints whose rate is known.
const RATED: usize = 2_000;
/// How long a program with more endpoints is looked at in detail after somebody has asked: else it would cost more than it
/// tells.
const INTEREST: Duration = Duration::from_secs(60);

/// What a program knows about itself.
pub trait Source: Send + Sync + 'static {
    /// What has been served since the start.
    fn totals(&self) -> Totals;

    /// Where traffic goes, with at most so many endpoints in all, and how many endpoints were left off.
    fn destinations(&self, most: usize) -> (Vec<Destination>, usize);

    /// Where each connection goes, in words, in a program that has no destinations of its own. Default: it has some.
    fn towards(&self) -> Option<String> {
        None
    }

    /// The certificates that it shows or uses.
    fn certificates(&self) -> Vec<Certificate>;

    /// Why no traffic should be sent here, a line for each reason.
    fn unready(&self) -> Vec<String>;

    /// What else is wrong, a line for each thing. Default: nothing.
    fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    /// The configuration that is in force, without secrets.
    fn config(&self) -> serde_json::Value;

    /// How the configuration was loaded.
    fn reload(&self) -> Reload;
}

/// A program that is looked at. A clone is the same one.
#[derive(Clone)]
pub struct Watching(Arc<Inner>);

struct Inner {
    tool: &'static str,
    started: (SystemTime, Instant),
    source: Box<dyn Source>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    history: History,
    /// How often each endpoint was picked at the last look.
    picked: Option<(Instant, Picked)>,
    /// Picks per second between the last two looks.
    rates: HashMap<Key, f64>,
    /// Destinations without an endpoint that can be connected to.
    down: HashSet<Arc<str>>,
    /// Whether there are more endpoints than [`RATED`].
    is_large: bool,
    asked: Option<Instant>,
}

/// An endpoint by the number of its destination's name and its address.
type Key = (Arc<str>, String);
type Picked = HashMap<Key, u64>;

impl Watching {
    /// Looks at a program from now on. Must be called in a runtime; ends with the runtime, or when nobody has a clone.
    pub fn new(tool: &'static str, source: impl Source) -> Self {
        let inner = Arc::new(Inner {
            tool,
            started: (SystemTime::now(), Instant::now()),
            source: Box::new(source),
            seen: Mutex::default(),
        });
        let watched = Arc::downgrade(&inner);
        tokio::spawn(endings::watch(Weak::clone(&watched)));
        tokio::spawn(async move {
            let mut ticks = time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(inner) = watched.upgrade() else { return };
                inner.look();
            }
        });
        Self(inner)
    }

    /// Everything, as it is now. `most` endpoints are shown.
    pub fn state(&self, most: usize) -> State {
        let inner = &self.0;
        let now = Instant::now();
        let (mut destinations, left_off) = inner.source.destinations(most);
        let totals = inner.source.totals();
        let certificates = inner.source.certificates();
        let at_ms = unix_ms(SystemTime::now());
        let mut problems = inner.source.problems();
        problems.extend(endings::problems(&certificates, at_ms));
        let mut seen = inner.seen();
        seen.asked = Some(now);
        for destination in &mut destinations {
            let name: Arc<str> = key_of(destination).into();
            for endpoint in &mut destination.endpoints {
                endpoint.rate = seen.rates.get(&(Arc::clone(&name), endpoint.addr.clone())).copied();
            }
        }
        State {
            tool: inner.tool.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("BUILT_COMMIT").to_owned(),
            at_ms,
            started_ms: unix_ms(inner.started.0),
            uptime_ms: millis(inner.started.1.elapsed()),
            unready: inner.source.unready(),
            problems,
            reload: inner.source.reload(),
            traffic: seen.history.traffic(now, totals),
            destinations,
            towards: inner.source.towards(),
            left_off,
            certificates,
        }
    }

    /// The last ten minutes, the oldest first.
    pub fn history(&self) -> Vec<Point> {
        self.0.seen().history.points()
    }

    /// What is looked at.
    pub fn source(&self) -> &dyn Source {
        &*self.0.source
    }
}

impl std::fmt::Debug for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watching").field("tool", &self.0.tool).finish_non_exhaustive()
    }
}

impl Inner {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let totals = self.source.totals();
        let now = Instant::now();
        let mut seen = self.seen();
        seen.history.push(now, totals);
        let is_asked = seen.asked.is_some_and(|asked| now.duration_since(asked) < INTEREST);
        if seen.is_large && !is_asked {
            (seen.picked, seen.rates) = (None, HashMap::new());
            return;
        }
        drop(seen);
        let (destinations, left_off) = self.source.destinations(RATED);
        let mut seen = self.seen();
        seen.is_large = left_off > 0;
        let is_down = |it: &&Destination| {
            let mut used = it.endpoints.iter().filter(|endpoint| endpoint.state != "unused").peekable();
            used.peek().is_some() && used.all(|endpoint| ["ejected", "probation"].contains(&&*endpoint.state))
        };
        let down: HashSet<Arc<str>> =
            destinations.iter().filter(is_down).map(|it| key_of(it).into()).collect();
        for (destination, key) in destinations.iter().map(|it| (it, key_of(it))) {
            let (router, dst) = (&*destination.router, &*destination.dst);
            match (seen.down.contains(&*key), down.contains(&*key)) {
                (false, true) => {
                    tracing::error!(target: log::PROCESS, router, dst, "no endpoint can be connected to");
                }
                (true, false) => {
                    tracing::warn!(target: log::PROCESS, router, dst, "endpoints can be connected to again");
                }
                _ => {}
            }
        }
        seen.down = down;
        let mut picked = Picked::new();
        for destination in &destinations {
            let name: Arc<str> = key_of(destination).into();
            for endpoint in &destination.endpoints {
                picked.insert((Arc::clone(&name), endpoint.addr.clone()), endpoint.picked);
            }
        }
        seen.rates = match &seen.picked {
            None => HashMap::new(),
            Some((before, old)) => {
                let seconds = now.duration_since(*before).as_secs_f64().max(1e-3);
                let rate = |(key, now): (&Key, &u64)| {
                    // One that is new has been picked since it is there.
                    let before = old.get(key).copied().unwrap_or_default();
                    (key.clone(), now.saturating_sub(before) as f64 / seconds)
                };
                picked.iter().map(rate).collect()
            }
        };
        seen.picked = Some((now, picked));
    }
}

fn key_of(destination: &Destination) -> String {
    format!("{}\n{}", destination.router, destination.dst)
}

pub(crate) fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
