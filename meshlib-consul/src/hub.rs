//! One watch per service, however many listen.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time;

use crate::client::Consul;
use crate::emptiness::Emptiness;
use crate::follow::Follow;
use crate::follow::Found;
use crate::follow::Name;
use crate::sweep::Sweep;
use crate::watch::Level;

/// What is followed by anybody.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    pub(crate) emptiness: Emptiness,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<Name, Entry>,
    /// While there are more services than watches: the task that reads what has changed.
    sweep: Option<Sweep>,
}

#[derive(Debug)]
struct Entry {
    levels: Arc<watch::Sender<Level<Found>>>,
    listeners: usize,
    /// Its own watch, unless it is swept.
    task: Option<AbortHandle>,
    /// Who wants to be told of names instead of listening to each.
    taps: Vec<Arc<Changed>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Names that have changed since somebody looked.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    names: Mutex<HashSet<Arc<str>>>,
    some: Notify,
}

impl Changed {
    fn add(&self, name: &Arc<str>) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(name));
        self.some.notify_one();
    }

    /// Waits until there are some. Cancel-safe.
    pub(crate) async fn wait(&self) {
        self.some.notified().await;
    }

    pub(crate) fn take(&self) -> HashSet<Arc<str>> {
        std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Somebody's interest in a service. It is followed until the last of these is dropped.
pub(crate) struct Subscription {
    consul: Consul,
    name: Name,
    tap: Option<Arc<Changed>>,
    levels: watch::Receiver<Level<Found>>,
}

impl Subscription {
    /// `delay` is how long the first request may be put off.
    pub(crate) fn new(consul: &Consul, name: Name, tap: Option<Arc<Changed>>, delay: Duration) -> Self {
        let mut state = consul.shared.hub.state();
        let entry = state.names.entry(name.clone()).or_insert_with(|| Entry {
            levels: Arc::new(watch::channel(Level::new(None, None)).0),
            listeners: 0,
            task: None,
            taps: Vec::new(),
        });
        entry.listeners += 1;
        let mut levels = entry.levels.subscribe();
        levels.mark_changed();
        if let Some(tap) = &tap {
            entry.taps.push(Arc::clone(tap));
            tap.add(&name.service);
        }
        let is_new = entry.listeners == 1;
        if is_new {
            state.join(consul, &name, delay);
        }
        drop(state);
        Self { consul: consul.clone(), name, tap, levels }
    }

    /// What is known now.
    pub(crate) fn level(&self) -> Level<Found> {
        self.levels.borrow().clone()
    }

    /// What is known, as soon as something is, and after each change. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Level<Found> {
        loop {
            if self.levels.changed().await.is_err() {
                // The hub outlives its subscriptions.
                std::future::pending::<()>().await;
            }
            let level = self.levels.borrow_and_update().clone();
            if level.value.is_some() || level.degraded.is_some() {
                return level;
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.consul.shared.hub.state();
        let Some(entry) = state.names.get_mut(&self.name) else { return };
        entry.listeners -= 1;
        if let Some(tap) = &self.tap {
            entry.taps.retain(|other| !Arc::ptr_eq(other, tap));
        }
        if entry.listeners == 0 {
            let gone = state.names.remove(&self.name);
            state.left(&self.consul, &self.name);
            drop(state);
            drop(gone);
        }
    }
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who listens to a service. Nothing happens if that is nobody any more.
    pub(crate) fn publish(&self, name: &Name, level: Level<Found>) {
        let state = self.state();
        let Some(entry) = state.names.get(name) else { return };
        entry.levels.send_replace(level);
        for tap in &entry.taps {
            tap.add(&name.service);
        }
    }

    /// What is known of a service.
    pub(crate) fn found(&self, name: &Name) -> Option<Found> {
        self.state().names.get(name).and_then(|entry| entry.levels.borrow().value.clone())
    }

    /// Whether anybody listens to a service.
    pub(crate) fn is_followed(&self, name: &Name) -> bool {
        self.state().names.contains_key(name)
    }

    /// All that are followed by sweeping.
    pub(crate) fn swept(&self) -> Vec<Name> {
        self.state().names.keys().filter(|name| Sweep::takes(name)).cloned().collect()
    }
}

impl State {
    /// A name has come.
    fn join(&mut self, consul: &Consul, name: &Name, delay: Duration) {
        if Sweep::takes(name) {
            if let Some(sweep) = &self.sweep {
                sweep.read(name);
                return;
            }
            if self.names.len() > most_watches(consul) {
                for (_, entry) in self.names.iter_mut().filter(|(name, _)| Sweep::takes(name)) {
                    if let Some(task) = entry.task.take() {
                        task.abort();
                    }
                }
                tracing::info!(
                    services = self.names.len(),
                    "more services than connections to consul: reading what changes instead of watching each"
                );
                self.sweep = Some(Sweep::start(consul));
                return;
            }
        }
        if let Some(entry) = self.names.get_mut(name) {
            entry.task = Some(tokio::spawn(follow(consul.clone(), name.clone(), delay)).abort_handle());
        }
    }

    /// A name has gone.
    fn left(&mut self, consul: &Consul, _: &Name) {
        // Well below the number that began it, so that it does not come and go.
        if self.sweep.is_some() && self.names.len() <= most_watches(consul) * 4 / 5 {
            tracing::info!(services = self.names.len(), "few enough services to watch each");
            self.sweep = None;
            for (name, entry) in self.names.iter_mut().filter(|(_, entry)| entry.task.is_none()) {
                let task = tokio::spawn(follow(consul.clone(), name.clone(), Duration::ZERO));
                entry.task = Some(task.abort_handle());
            }
        }
    }
}

/// How many services are watched one by one: some requests are left for other watches.
fn most_watches(consul: &Consul) -> usize {
    let lanes = consul.shared.watches.allowed();
    lanes - (lanes / 8).max(2).min(lanes / 2)
}

/// Follows one service until it is aborted, when nobody listens any more.
async fn follow(consul: Consul, name: Name, delay: Duration) {
    time::sleep(delay.mul_f64(fastrand::f64())).await;
    let mut follow = Follow::new(&consul, name.clone());
    loop {
        let level = follow.next().await;
        consul.shared.hub.publish(&name, level);
    }
}
