//! Following the instances of one service.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time;
use tokio::time::Instant;
use tower::BoxError;

use crate::api;
use crate::api::HealthEntry;
use crate::ask::Ask;
use crate::ask::Consistency;
use crate::client::Answer;
use crate::client::Consul;
use crate::doubt;
use crate::instance::Instance;
use crate::instance::Instances;
use crate::instance::Skipped;
use crate::watch::Degraded;
use crate::watch::Level;
use crate::watch::Watch;
use crate::watch::same_health;

/// Time between two looks at whether everything has vanished.
const DOUBT: Duration = Duration::from_secs(10);
/// Added to the time for which losses are doubted: names that are gone are dropped before, all together.
const AFTER_NAMES: Duration = Duration::from_secs(1);
/// Time between two requests about a service that does not exist: it is woken by every registration there is.
const ABSENT: Duration = Duration::from_secs(1);

/// Whose instances are followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) service: Arc<str>,
    pub(crate) datacenter: Option<Arc<str>>,
    pub(crate) consistency: Consistency,
}

/// What Consul knows of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// How many registrations there are, usable or not. None: there is no such service.
    pub(crate) registered: usize,
    /// Those that can be used, by node and id.
    pub(crate) instances: Instances,
    pub(crate) skipped: Arc<[Skipped]>,
}

impl Found {
    pub(crate) fn is_absent(&self) -> bool {
        self.registered == 0
    }
}

/// Makes sense of answers about one service. Instances that are as they were are the same ones.
pub(crate) struct Decoder {
    site_key: Arc<str>,
    foreign: bool,
    last: Mutex<Instances>,
}

impl Decoder {
    pub(crate) fn new(consul: &Consul, name: &Name) -> Self {
        let config = &consul.shared.config;
        let foreign = name.datacenter.is_some() && name.datacenter != config.datacenter;
        Self { site_key: Arc::clone(&config.site_key), foreign, last: Mutex::default() }
    }

    pub(crate) fn decode(&self, answer: &Answer) -> Result<Found, BoxError> {
        let (entries, senseless) = api::list::<HealthEntry>(&answer.body)?;
        let registered = entries.len() + senseless;
        let (mut instances, mut skipped) = (Vec::with_capacity(entries.len()), Vec::new());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            match Instance::new(entry, &self.site_key, self.foreign) {
                Ok(instance) => {
                    let at = last.binary_search_by(|other| order(other, &instance));
                    let known = at.ok().map(|at| &last[at]).filter(|known| ***known == instance);
                    instances.push(known.map_or_else(|| Arc::new(instance), Arc::clone));
                }
                Err(reason) => skipped.push(reason),
            }
        }
        // Consul gives no order that could be relied on.
        instances.sort_by(|one, other| order(one, other));
        skipped.sort_unstable();
        let instances: Instances = instances.into_iter().collect();
        last.clone_from(&instances);
        Ok(Found { registered, instances, skipped: skipped.into() })
    }
}

pub(crate) fn order(one: &Instance, other: &Instance) -> std::cmp::Ordering {
    (&one.node, &one.id, &one.address, one.port).cmp(&(&other.node, &other.id, &other.address, other.port))
}

impl Name {
    /// The request for its instances with all their checks.
    pub(crate) fn ask(&self, consul: &Consul) -> Ask {
        let ask = Ask::get("/v1/health/service/").segment(&self.service);
        consul.catalog(ask, self.datacenter.as_deref(), self.consistency)
    }
}

impl Consul {
    /// Adds what reads of the catalog have in common.
    pub(crate) fn catalog(&self, ask: Ask, datacenter: Option<&str>, consistency: Consistency) -> Ask {
        let config = &self.shared.config;
        let ask = ask.datacenter(datacenter.or(config.datacenter.as_deref())).consistency(consistency);
        if config.cached && consistency != Consistency::Consistent { ask.flag("cached") } else { ask }
    }
}

/// The instances of one service as they change.
pub(crate) struct Follow {
    consul: Consul,
    name: Name,
    watch: Watch<Found>,
    guard: Guard,
    /// What was read last, believed or not.
    read: Level<Found>,
    warned: Arc<[Skipped]>,
    told: Option<Level<Found>>,
}

impl Follow {
    pub(crate) fn new(consul: &Consul, name: Name) -> Self {
        let decoder = Decoder::new(consul, &name);
        let watch = Watch::new(consul, name.ask(consul), move |answer| decoder.decode(answer));
        let believed = consul.shared.hub.found(&name);
        Self {
            consul: consul.clone(),
            name,
            watch,
            guard: Guard::new(believed),
            read: Level::new(None, None),
            warned: Arc::default(),
            told: None,
        }
    }

    /// What is known after the next change of it. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Level<Found> {
        loop {
            match self.guard.again_at() {
                None => self.read = self.watch.next().await,
                Some(again) => tokio::select! {
                    level = self.watch.next() => self.read = level,
                    () = time::sleep_until(again) => {}
                },
            }
            let absent = self.read.value.as_ref().is_some_and(Found::is_absent);
            self.watch.set_pause(if absent { ABSENT } else { Duration::ZERO });
            if let Some(level) = self.guard.pass(&self.consul, &self.read, Instant::now()).await {
                if self.told.as_ref().is_some_and(|told| is_same(told, &level)) {
                    continue;
                }
                if let Some(found) = &level.value
                    && self.warned != found.skipped
                {
                    warn(&self.name, &found.skipped);
                    self.warned = Arc::clone(&found.skipped);
                }
                self.told = Some(level.clone());
                return level;
            }
        }
    }
}

/// Whether a level says what was told already.
pub(crate) fn is_same(told: &Level<Found>, level: &Level<Found>) -> bool {
    told.value == level.value && same_health(told.degraded.as_ref(), level.degraded.as_ref())
}

pub(crate) fn warn(name: &Name, skipped: &[Skipped]) {
    for Skipped { node, id, reason, .. } in skipped {
        tracing::warn!(service = %name.service, %node, %id, reason, "an instance is left out");
    }
}

/// Keeps what was known of a service while Consul is not well and when it vanishes together with everything else, and
/// believes in no service's absence where nothing at all is shown.
#[derive(Debug)]
pub(crate) struct Guard {
    believed: Option<Found>,
    again: Option<Instant>,
    /// Whether there is no doubt any more, except about what was read while there was.
    cleared: bool,
}

impl Guard {
    /// Believes in what was known before.
    pub(crate) fn new(believed: Option<Found>) -> Self {
        Self { believed, again: None, cleared: false }
    }

    /// When what is doubted is looked at again.
    pub(crate) fn again_at(&self) -> Option<Instant> {
        self.again
    }

    /// What to tell after something was read at this time: nothing while what was read is doubted still.
    pub(crate) async fn pass(
        &mut self,
        consul: &Consul,
        read: &Level<Found>,
        at: Instant,
    ) -> Option<Level<Found>> {
        if let (Some(believed), Some(found), Some(until)) =
            (&self.believed, &read.value, consul.shared.doubt.until(at))
            && let Some(kept) = doubt::keep(believed, found)
        {
            // What is lost still when it is read again then is gone. A long doubt may end before its time.
            let again = if until > at + DOUBT { at + DOUBT } else { until + AFTER_NAMES };
            (self.again, self.cleared) = (Some(again), false);
            self.believed = Some(kept.clone());
            return Some(Level::new(Some(kept), read.degraded.clone()));
        }
        let emptiness = &consul.shared.hub.emptiness;
        let is_absent = read.value.as_ref().is_some_and(Found::is_absent);
        let doubted = is_absent
            && match &self.believed {
                Some(found) if found.is_absent() => false,
                Some(_) => emptiness.is_suspicious(consul, at).await,
                None => emptiness.hides_all(consul, at).await,
            };
        // What was read without rights is read again once there are some.
        let rests =
            is_absent && !doubted && self.again.is_some() && !std::mem::replace(&mut self.cleared, true);
        if doubted || rests {
            self.cleared &= !doubted;
            let is_news = self.again.replace(Instant::now() + DOUBT).is_none();
            let level = Level::new(self.believed.clone(), Some(Degraded::SuspiciousEmpty));
            return is_news.then_some(level);
        }
        (self.again, self.cleared) = (None, false);
        self.believed.clone_from(&read.value);
        Some(read.clone())
    }
}
