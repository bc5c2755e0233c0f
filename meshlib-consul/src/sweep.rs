//! Following more services than there may be connections.
//!
//! Two watches say that something has changed: `catalog/services` moves with every registration and shows names and tags,
//! `health/state/any` shows the checks. What they name is read once, without waiting, some at a time. What they do not
//! name, such as another port under the same tags, is found by reading all of them after the catalog has moved, and once
//! in a while.

use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::Instant;

use crate::api;
use crate::api::Check;
use crate::api::ServiceTags;
use crate::ask::Ask;
use crate::ask::Consistency;
use crate::client::Answer;
use crate::client::Consul;
use crate::client::failure;
use crate::error::ConsulError;
use crate::follow::Decoder;
use crate::follow::Found;
use crate::follow::Guard;
use crate::follow::Name;
use crate::follow::is_same;
use crate::follow::warn;
use crate::instance::Skipped;
use crate::pump::pump;
use crate::watch::Degraded;
use crate::watch::Level;
use crate::watch::Watch;
use crate::watch::same_health;

/// Services that are read at a time.
const AT_A_TIME: usize = 32;
/// Time between two reads of what is the same for all.
const TICK: Duration = Duration::from_secs(1);
/// Time between two times of reading everything after the catalog has moved, at least, and so many times what reading it
/// took.
const SETTLE: (Duration, u32) = (Duration::from_secs(5), 10);
/// Time between two times of reading everything while nothing moves, at least, and so many times what it took.
const ROUND: (Duration, u32) = (Duration::from_secs(60), 50);
/// Pause before what failed is read again.
const RETRY: Duration = Duration::from_secs(1);

/// The task that follows all services together; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Sweep {
    task: AbortHandle,
    asked: Arc<Asked>,
}

/// Names somebody has begun to listen to.
#[derive(Debug, Default)]
struct Asked {
    /// With the time when that was.
    names: Mutex<HashMap<Name, Instant>>,
    some: Notify,
}

impl Sweep {
    /// Whether a name is one that can be followed so.
    pub(crate) fn takes(name: &Name) -> bool {
        name.datacenter.is_none() && name.consistency == Consistency::Stale
    }

    pub(crate) fn start(consul: &Consul) -> Self {
        let asked = Arc::new(Asked::default());
        let task = tokio::spawn(run(consul.clone(), Arc::clone(&asked))).abort_handle();
        Self { task, asked }
    }

    /// Reads a name that has come.
    pub(crate) fn read(&self, name: &Name) {
        self.asked.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), Instant::now());
        self.asked.some.notify_one();
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What `catalog/services` shows. Equal only if nothing was registered in between.
#[derive(Clone, PartialEq)]
struct Names {
    index: Option<u64>,
    tags: Arc<ServiceTags>,
}

/// What `health/state/any` shows, in short: a number for each service and for each node.
#[derive(Clone, Default, PartialEq)]
struct Checks {
    services: Arc<HashMap<Arc<str>, u64>>,
    nodes: Arc<HashMap<String, u64>>,
}

impl Checks {
    fn decode(answer: &Answer) -> Result<Self, tower::BoxError> {
        let (checks, _) = api::list::<Check>(&answer.body)?;
        let (mut services, mut nodes) = (HashMap::new(), HashMap::new());
        for check in &checks {
            let mut hasher = DefaultHasher::new();
            // The output is of no interest, and all that changes most of the time.
            (&check.node, &check.check_id, &check.service_id, &check.status).hash(&mut hasher);
            let digest = match check.service_name.is_empty() {
                true => nodes.entry(check.node.clone()).or_insert(0_u64),
                false => services.entry(Arc::clone(&check.service_name)).or_insert(0_u64),
            };
            // A sum, since Consul gives no order.
            *digest = digest.wrapping_add(hasher.finish());
        }
        Ok(Self { services: Arc::new(services), nodes: Arc::new(nodes) })
    }
}

/// The keys whose values differ.
fn differences<K: Clone + Eq + Hash>(old: &HashMap<K, u64>, new: &HashMap<K, u64>) -> Vec<K> {
    let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(*value)).map(|(key, _)| key.clone());
    let gone = old.keys().filter(|key| !new.contains_key(*key)).cloned();
    changed.chain(gone).collect()
}

/// What is known about one service.
struct Swept {
    /// When it was first read.
    since: Instant,
    decoder: Decoder,
    guard: Guard,
    told: Option<Level<Found>>,
    warned: Arc<[Skipped]>,
}

struct Sweeper {
    consul: Consul,
    known: HashMap<Name, Swept>,
    dirty: HashSet<Name>,
    /// What failed, to be read again then.
    failed: HashSet<Name>,
    retry_at: Option<Instant>,
    /// When all are read next.
    all_at: Instant,
    /// Whether what is dirty is all there is.
    reads_all: bool,
    read_all: Instant,
    took: Duration,
    degraded: Option<Degraded>,
}

/// Ends when it is aborted.
async fn run(consul: Consul, asked: Arc<Asked>) {
    let mut tasks = JoinSet::new();
    let names = consul.catalog(Ask::get("/v1/catalog/services"), None, Consistency::Stale);
    let names = Watch::new(&consul, names, |answer: &Answer| {
        Ok(Names { index: answer.index(), tags: Arc::new(serde_json::from_slice(&answer.body)?) })
    });
    let mut names = pump(&mut tasks, names.pause(TICK));
    let checks = consul.catalog(Ask::get("/v1/health/state/any"), None, Consistency::Stale);
    let mut checks = pump(&mut tasks, Watch::new(&consul, checks, Checks::decode).pause(TICK));
    let mut last_tags: Option<Arc<ServiceTags>> = None;
    let mut last_checks: Option<Checks> = None;
    let now = Instant::now();
    let dirty = consul.shared.hub.swept().into_iter().collect();
    let mut sweeper = Sweeper {
        consul,
        known: HashMap::new(),
        dirty,
        failed: HashSet::new(),
        retry_at: None,
        all_at: now + ROUND.0,
        reads_all: false,
        read_all: now,
        took: Duration::ZERO,
        degraded: None,
    };
    loop {
        // What changes after it was read is heard of only by who has listened before.
        if is_answered(&names) && is_answered(&checks) {
            sweeper.read_dirty().await;
        }
        let due = sweeper.due();
        tokio::select! {
            () = asked.some.notified() => {
                let names = std::mem::take(&mut *asked.names.lock().unwrap_or_else(PoisonError::into_inner));
                sweeper.asked(names);
            }
            Ok(()) = names.changed() => {
                let level = names.borrow_and_update().clone();
                sweeper.set_degraded(level.degraded);
                if let Some(now) = level.value {
                    sweeper.renamed(last_tags.as_deref(), &now.tags);
                    last_tags = Some(now.tags);
                }
            }
            Ok(()) = checks.changed() => {
                let level = checks.borrow_and_update().clone();
                if let Some(now) = level.value
                    && let Some(old) = last_checks.replace(now.clone())
                {
                    sweeper.checked(&old, &now);
                }
            }
            () = time::sleep_until(due) => sweeper.fall_due(),
        }
    }
}

impl Sweeper {
    fn due(&self) -> Instant {
        let doubts = self.known.values().filter_map(|swept| swept.guard.again_at());
        doubts.chain(self.retry_at).chain([self.all_at]).min().unwrap_or(self.all_at)
    }

    fn fall_due(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = Some(now + RETRY).filter(|_| self.consul.shared.leader.all_fail());
        }
        if self.retry_at.is_none() {
            self.dirty.extend(std::mem::take(&mut self.failed));
        }
        let doubted =
            self.known.iter().filter(|(_, swept)| swept.guard.again_at().is_some_and(|at| at <= now));
        self.dirty.extend(doubted.map(|(name, _)| name.clone()));
        if self.all_at <= now {
            let all = self.consul.shared.hub.swept();
            let listened: HashSet<_> = all.iter().collect();
            self.known.retain(|name, _| listened.contains(name));
            self.dirty.extend(all);
            self.reads_all = true;
            self.all_at = now + ROUND.0;
        }
    }

    /// Reads names that have come, unless they were read since. What was told of them before was told to others.
    fn asked(&mut self, names: HashMap<Name, Instant>) {
        for (name, at) in names {
            if self.known.get(&name).is_none_or(|swept| swept.since < at) {
                self.known.remove(&name);
                self.dirty.insert(name);
            }
        }
    }

    /// The catalog has moved. What it shows of that is read at once, everything else soon.
    fn renamed(&mut self, old: Option<&ServiceTags>, new: &ServiceTags) {
        // Everything is read after that in the beginning.
        let Some(old) = old else { return };
        let settled = self.read_all + SETTLE.0.max(self.took * SETTLE.1);
        self.all_at = self.all_at.min(settled);
        let changed = new.iter().filter(|(name, tags)| old.get(*name) != Some(*tags)).map(|(name, _)| name);
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        let named: Vec<_> = changed.chain(gone).map(Arc::clone).collect();
        self.dirty.extend(named.into_iter().map(swept_name));
    }

    fn checked(&mut self, old: &Checks, new: &Checks) {
        self.dirty.extend(differences(&old.services, &new.services).into_iter().map(swept_name));
        let nodes: HashSet<_> = differences(&old.nodes, &new.nodes).into_iter().collect();
        if nodes.is_empty() {
            return;
        }
        let on_them = self.known.iter().filter(|(_, swept)| {
            let found = swept.told.as_ref().and_then(|level| level.value.as_ref());
            found.is_some_and(|found| found.instances.iter().any(|instance| nodes.contains(&*instance.node)))
        });
        self.dirty.extend(on_them.map(|(name, _)| name.clone()).collect::<Vec<_>>());
    }

    /// Whether what changes is heard of at all holds for each service.
    fn set_degraded(&mut self, degraded: Option<Degraded>) {
        if same_health(self.degraded.as_ref(), degraded.as_ref()) {
            return;
        }
        self.degraded = degraded;
        for (name, swept) in &mut self.known {
            if let Some(level) = &mut swept.told {
                level.degraded.clone_from(&self.degraded);
                self.consul.shared.hub.publish(name, level.clone());
            }
        }
    }

    async fn read_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        if dirty.is_empty() {
            return;
        }
        let began = Instant::now();
        let is_all = std::mem::take(&mut self.reads_all);
        dirty.retain(|name| self.consul.shared.hub.is_followed(name));
        let consul = self.consul.clone();
        let mut left = dirty.into_iter();
        // Where Consul is away one task asks for it. What is left is read when it is back.
        let names = std::iter::from_fn(|| if consul.shared.leader.all_fail() { None } else { left.next() });
        let reads = stream::iter(names).map(|name| read(consul.clone(), name)).buffer_unordered(AT_A_TIME);
        {
            let mut reads = std::pin::pin!(reads);
            while let Some((name, at, result)) = reads.next().await {
                self.take(name, at, result).await;
            }
        }
        let before = self.failed.len();
        self.failed.extend(left);
        if self.failed.len() > before {
            self.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
        } else if is_all {
            self.took = began.elapsed();
            self.read_all = Instant::now();
            self.all_at = self.read_all + ROUND.0.max(self.took * ROUND.1);
        }
    }

    async fn take(&mut self, name: Name, at: Instant, result: Result<Answer, ConsulError>) {
        let swept = self.known.entry(name.clone()).or_insert_with(|| Swept {
            since: Instant::now(),
            decoder: Decoder::new(&self.consul, &name),
            guard: Guard::new(self.consul.shared.hub.found(&name)),
            told: None,
            warned: Arc::default(),
        });
        let decoded = result.and_then(|answer| {
            let found = swept.decoder.decode(&answer);
            found.map_err(|error| ConsulError::decode(&Arc::clone(&name.service), error))
        });
        let level = match decoded {
            Ok(found) => {
                let read = Level::new(Some(found), self.degraded.clone());
                let Some(level) = swept.guard.pass(&self.consul, &read, at).await else { return };
                level
            }
            Err(error) => {
                if matches!(error, ConsulError::Busy) {
                    self.consul.shared.watches.refused();
                }
                self.consul.shared.doubt.failed(&error);
                self.failed.insert(name.clone());
                self.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
                let value = swept.told.as_ref().and_then(|level| level.value.clone());
                Level::new(value, Some(Degraded::Failing(error)))
            }
        };
        if let Some(found) = &level.value
            && swept.warned != found.skipped
        {
            warn(&name, &found.skipped);
            swept.warned = Arc::clone(&found.skipped);
        }
        if !swept.told.as_ref().is_some_and(|told| is_same(told, &level)) {
            swept.told = Some(level.clone());
            self.consul.shared.hub.publish(&name, level);
        }
    }
}

/// Whether a watch has told anything yet.
fn is_answered<T>(watch: &watch::Receiver<Level<T>>) -> bool {
    let level = watch.borrow();
    level.value.is_some() || level.degraded.is_some()
}

fn swept_name(service: Arc<str>) -> Name {
    Name { service, datacenter: None, consistency: Consistency::Stale }
}

/// Reads a service, and says when that was done.
async fn read(consul: Consul, name: Name) -> (Name, Instant, Result<Answer, ConsulError>) {
    let ask = name.ask(&consul);
    let what = Arc::clone(&ask.what);
    let _lane = consul.shared.watches.enter().await;
    let result = match consul.wait(ask).await {
        Ok(answer) if answer.status == 200 => Ok(answer),
        Ok(answer) => Err(failure(&what, &answer)),
        Err(error) => Err(error),
    };
    (name, Instant::now(), result)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn checks(body: &str) -> Checks {
        let answer = Answer { status: 200, headers: HeaderMap::new(), body: body.to_owned().into() };
        Checks::decode(&answer).unwrap()
    }

    #[test]
    fn a_digest_sees_states_and_neither_output_nor_order() {
        let one = r#"{"Node":"n","CheckID":"a","Status":"passing","Output":"1","ServiceID":"w","ServiceName":"web"}"#;
        let other = r#"{"Node":"n","CheckID":"b","Status":"passing","ServiceName":"web"}"#;
        let node = r#"{"Node":"n","CheckID":"c","Status":"passing","ServiceName":""}"#;

        let before = checks(&format!("[{one},{other},{node}]"));

        assert!(before == checks(&format!("[{node},{other},{}]", one.replace("\"1\"", "\"2\""))));
        let worse = checks(&format!("[{},{other},{node}]", one.replace("passing", "critical")));
        assert_eq!(differences(&before.services, &worse.services), [Arc::from("web")]);
        assert!(differences(&before.nodes, &worse.nodes).is_empty());
        let without = checks(&format!("[{one},{other}]"));
        assert_eq!(differences(&before.nodes, &without.nodes), ["n".to_owned()]);
    }
}
