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

    /// Reads certificates again that it shows as they are in files; may block. Called every few seconds where nothing else
    /// waits for it. Default: there are none.
    fn read_files(&self) {}

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

/// An endpoint by the name of its destination, its address, and how many of this address come before it.
type Key = (Arc<str>, String, usize);
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
        problems.extend(outages(&destinations));
        let mut seen = inner.seen();
        seen.asked = Some(now);
        for destination in &mut destinations {
            let keys = keys_of(destination);
            for (endpoint, key) in destination.endpoints.iter_mut().zip(keys) {
                endpoint.rate = seen.rates.get(&key).copied();
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
        let rated = if seen.is_large && !is_asked { 0 } else { RATED };
        drop(seen);
        let (destinations, left_off) = self.source.destinations(rated);
        let mut seen = self.seen();
        seen.tell_outages(&destinations);
        if rated == 0 {
            (seen.picked, seen.rates) = (None, HashMap::new());
            return;
        }
        seen.is_large = left_off > 0;
        let mut picked = Picked::new();
        for destination in &destinations {
            let endpoints = destination.endpoints.iter().map(|endpoint| endpoint.picked);
            picked.extend(keys_of(destination).into_iter().zip(endpoints));
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

impl Seen {
    /// Says of which destinations no endpoint can be connected to any more, and of which one can be again.
    fn tell_outages(&mut self, destinations: &[Destination]) {
        let mut down = HashSet::new();
        for destination in destinations {
            let (router, dst) = (&*destination.router, &*destination.dst);
            let key: Arc<str> = key_of(destination).into();
            let was_down = self.down.contains(&key);
            match (was_down, destination.is_down) {
                (false, Some(true)) => {
                    tracing::error!(target: log::PROCESS, router, dst, "no endpoint can be connected to");
                }
                (true, Some(false)) => {
                    tracing::warn!(target: log::PROCESS, router, dst, "endpoints can be connected to again");
                }
                _ => {}
            }
            // Where all endpoints have left, none is back.
            if destination.is_down.unwrap_or(was_down) {
                down.insert(key);
            }
        }
        self.down = down;
    }
}

/// A line for each destination whose discovery fails, or that nobody can be sent to, as far as there are few.
fn outages(destinations: &[Destination]) -> Vec<String> {
    const MOST: usize = 10;

    let discovery = destinations.iter().filter_map(|it| {
        let why = it.failing.as_deref()?;
        Some(format!("{} {}: discovery fails, what was known stays: {why}", it.router, it.dst))
    });
    let down = destinations.iter().filter_map(|it| match (it.is_down, it.endpoints.first()) {
        (Some(true), _) => Some(format!("{} {}: no endpoint can be connected to", it.router, it.dst)),
        (None, Some(unused)) => {
            let why = unused.why.as_deref().unwrap_or(&unused.state);
            Some(format!("{} {}: no endpoint may be used; {}: {why}", it.router, it.dst, unused.addr))
        }
        _ => None,
    });
    let mut lines: Vec<String> = discovery.chain(down).collect();
    if lines.len() > MOST {
        let more = lines.split_off(MOST).len();
        lines.push(format!("{more} more destinations without discovery or endpoints"));
    }
    lines
}

fn key_of(destination: &Destination) -> String {
    format!("{}\n{}", destination.router, destination.dst)
}

/// The keys of all endpoints of a destination that are shown.
fn keys_of(destination: &Destination) -> Vec<Key> {
    let name: Arc<str> = key_of(destination).into();
    let mut before: HashMap<&str, usize> = HashMap::new();
    let keys = destination.endpoints.iter().map(|endpoint| {
        let same = before.entry(&endpoint.addr).or_default();
        *same += 1;
        (Arc::clone(&name), endpoint.addr.clone(), *same - 1)
    });
    keys.collect()
}

pub(crate) fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(dst: &str, is_down: Option<bool>) -> Destination {
        Destination { router: "web".into(), dst: dst.into(), is_down, ..Destination::default() }
    }

    #[test]
    fn an_outage_is_over_with_an_endpoint_and_not_without_any() {
        let mut seen = Seen::default();
        let mut down = |is_down| {
            seen.tell_outages(&[destination("/a", is_down), destination("/b", Some(false))]);
            seen.down.len()
        };

        assert_eq!(down(None), 0, "nobody knows any yet");
        assert_eq!(down(Some(true)), 1);
        assert_eq!(down(None), 1, "the last one has left");
        assert_eq!(down(Some(false)), 0);
        seen.down.insert("web\n/gone".into());
        seen.tell_outages(&[]);
        assert!(seen.down.is_empty());
    }

    #[test]
    fn problems_name_what_nobody_can_be_sent_to() {
        let unused = EndpointState {
            addr: "10.0.0.1:80".into(),
            state: "unused".into(),
            why: Some("a check is critical".into()),
            ..EndpointState::default()
        };
        let lines = outages(&[
            destination("/well", Some(false)),
            destination("/unknown", None),
            destination("/down", Some(true)),
            Destination { endpoints: vec![unused], ..destination("/unused", None) },
            Destination { failing: Some("no route".into()), ..destination("/old", Some(false)) },
        ]);

        assert_eq!(
            lines,
            [
                "web /old: discovery fails, what was known stays: no route",
                "web /down: no endpoint can be connected to",
                "web /unused: no endpoint may be used; 10.0.0.1:80: a check is critical",
            ]
        );
        let many: Vec<_> = (0..100).map(|n| destination(&format!("/{n}"), Some(true))).collect();
        assert_eq!(outages(&many).len(), 11);
    }

    #[test]
    fn endpoints_at_one_address_are_told_apart() {
        let row = |addr: &str| EndpointState { addr: addr.into(), ..EndpointState::default() };
        let rows = vec![row("a"), row("b"), row("a")];

        let keys = keys_of(&Destination { endpoints: rows, ..destination("/a", None) });

        let keys: Vec<_> = keys.iter().map(|(_, addr, n)| (addr.as_str(), *n)).collect();
        assert_eq!(keys, [("a", 0), ("b", 0), ("a", 1)]);
    }
}
