//! What all clones of a balancer share: the current set and the task that follows the resolution.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Balancer;
use super::Hints;
use super::Picker;
use super::accrual::Accrual;
use super::accrual::ReplicaState;
use super::set::Carry;
use super::set::Recovery;
use super::set::Replica;
use super::set::ReplicaSet;
use super::set::Setback;
use crate::error::Error;
use crate::error::Unavailable;
use crate::observe::Event;
use crate::observe::Observer;
use crate::resolve::Resolution;
use crate::resolve::ResolveError;
use crate::resolve::Update;

/// Of how many answers over one connection one is measured for a balancer that does not choose by them.
const SAMPLED: u32 = 16;

/// The state behind a balancer.
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    balancer: Arc<dyn Balancer>,
    pub(super) accrual: Accrual,
    pub(super) observer: Arc<dyn Observer>,
    snapshot: ArcSwap<Snapshot>,
    carry: Mutex<Carry>,
    /// Tells those who wait that there may be something to pick.
    pub(super) changed: Notify,
    /// Tells gates that a caller no longer waits.
    pub(super) left: Notify,
    /// Those who wait are served in turn: one at a time looks for a replica.
    pub(super) turn: Arc<Semaphore>,
    pub(super) waiters: AtomicUsize,
    resolution: Mutex<Option<Resolution>>,
    /// Why discovery ended before it said anything, if it did and said why.
    failure: OnceLock<ResolveError>,
    /// Why discovery fails since its last answer, if it does.
    failing: Mutex<Option<Arc<str>>>,
    task: OnceLock<AbortHandle>,
}

/// One update, prepared for picking.
pub(super) struct Snapshot {
    state: State,
    set: ReplicaSet,
    picker: Box<dyn Picker>,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is known yet.
    Pending,
    Known,
    NotFound,
    /// The resolution ended before it said anything.
    Ended,
}

impl State {
    fn nothing(self) -> Option<Nothing> {
        match self {
            Self::Known => None,
            Self::Pending => Some(Nothing::Pending),
            Self::NotFound => Some(Nothing::Unavailable(Unavailable::NotFound)),
            Self::Ended => Some(Nothing::Unavailable(Unavailable::Unresolved)),
        }
    }
}

/// Why nothing was picked.
pub(super) enum Nothing {
    /// The first update has not come.
    Pending,
    Unavailable(Unavailable),
}

impl Shared {
    pub(super) fn new(
        name: Arc<str>,
        resolution: Resolution,
        balancer: Arc<dyn Balancer>,
        accrual: Accrual,
        observer: Arc<dyn Observer>,
    ) -> Arc<Self> {
        let set = ReplicaSet::new([]);
        let picker = balancer.prepare(&set);
        let every = balancer.wants_answer_times();
        Arc::new(Self {
            name,
            balancer,
            accrual,
            observer,
            snapshot: ArcSwap::from_pointee(Snapshot {
                state: State::Pending,
                set,
                picker,
                at: Instant::now(),
            }),
            carry: Mutex::new(Carry::new(if every { 1 } else { SAMPLED })),
            changed: Notify::new(),
            left: Notify::new(),
            turn: Arc::new(Semaphore::new(1)),
            waiters: AtomicUsize::new(0),
            resolution: Mutex::new(Some(resolution)),
            failure: OnceLock::new(),
            failing: Mutex::default(),
            task: OnceLock::new(),
        })
    }

    /// Starts following the resolution, once. Must be called in a runtime.
    pub(super) fn start(self: &Arc<Self>) {
        self.task.get_or_init(|| {
            let resolution = self.resolution.lock().unwrap_or_else(PoisonError::into_inner).take();
            tokio::spawn(follow(Arc::downgrade(self), resolution)).abort_handle()
        });
    }

    /// Picks a replica and takes the right to use it.
    pub(super) fn pick(&self, hints: &Hints<'_>) -> Result<Replica, Nothing> {
        let snapshot = self.snapshot.load();
        if let Some(nothing) = snapshot.state.nothing() {
            return Err(nothing);
        }
        // Whoever loses a replica on probation to another caller looks again; few are on probation at a time.
        for _ in 0..=snapshot.set.replicas().len().min(8) {
            let picked = snapshot.picker.pick(hints).or_else(|| snapshot.set.last_resort(hints));
            let Some(replica) = picked else { break };
            if replica.claim(&self.accrual) {
                return Ok(replica.clone());
            }
        }
        Err(Nothing::Unavailable(match (snapshot.set.is_empty(), hints.exclude.is_empty()) {
            (true, _) => Unavailable::Empty,
            (false, true) => Unavailable::Ejected,
            (false, false) => Unavailable::Excluded,
        }))
    }

    /// Why there cannot be anything to pick, if discovery has not named any endpoints.
    pub(super) fn nothing(&self) -> Option<Nothing> {
        self.snapshot.load().state.nothing()
    }

    /// Whether discovery has named endpoints.
    pub(super) fn is_known(&self) -> bool {
        self.snapshot.load().state == State::Known
    }

    /// Whether there is work in flight.
    pub(super) fn is_in_use(&self) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.set.replicas().iter().any(|replica| replica.in_flight() > 0)
            || self.carry.lock().unwrap_or_else(PoisonError::into_inner).retired() > 0
    }

    /// How long until there may be something to pick without an update: the earliest a closed replica opens.
    pub(super) fn opens_in(&self) -> Option<Duration> {
        self.snapshot.load().set.replicas().iter().map(Replica::opens_in).min()
    }

    pub(super) fn error(&self, reason: Unavailable) -> Error {
        let name = Arc::clone(&self.name);
        match self.failure.get() {
            Some(source) if reason == Unavailable::Unresolved => {
                Error::Resolve { name, source: Box::new(source.clone()) }
            }
            _ => Error::Unavailable { name, reason },
        }
    }

    pub(super) fn succeeded(&self, replica: &Replica) {
        let recovery = replica.succeeded(&self.accrual);
        if recovery == Recovery::None {
            return;
        }
        self.observer.on(&Event::Restored { name: &self.name, endpoint: replica.endpoint() });
        if let Recovery::Back { early } = recovery
            && (early || self.is_first_back(replica))
        {
            self.try_early(2);
        }
        self.changed.notify_waiters();
    }

    pub(super) fn failed(&self, replica: &Replica, error: &Error) {
        match replica.failed_now(&self.accrual, self.may_eject()) {
            Setback::Noted => {}
            Setback::TriedEarly => self.try_early(1),
            Setback::Ejected(after) => {
                tracing::warn!(
                    name = %self.name, endpoint = %replica.endpoint().addr, ejected_for = ?after, error = %error.chain(),
                    "endpoint keeps failing; leaving it alone"
                );
                let endpoint = replica.endpoint();
                self.observer.on(&Event::Ejected { name: &self.name, endpoint, after });
            }
        }
    }

    /// Whether all others are out, so that this one would serve everybody until their times are over.
    fn is_first_back(&self, back: &Replica) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.set.replicas().iter().all(|replica| replica.is_out() || replica.is_same(back))
    }

    /// What has ended for one may have ended for others. A few at a time, so that callers meet few in vain if it has not.
    fn try_early(&self, most: usize) {
        let snapshot = self.snapshot.load();
        if snapshot.set.replicas().iter().filter(|replica| replica.allow_early()).take(most).count() > 0 {
            self.changed.notify_waiters();
        }
    }

    fn may_eject(&self) -> bool {
        if self.accrual.max_ejected >= 1.0 {
            return true;
        }
        let snapshot = self.snapshot.load();
        let replicas = snapshot.set.replicas();
        let ejected = replicas.iter().filter(|replica| replica.state() == ReplicaState::Ejected).count();
        (ejected + 1) as f64 <= replicas.len() as f64 * self.accrual.max_ejected
    }

    fn set_failing(&self, cause: Option<&str>) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = cause.map(Arc::from);
    }

    fn update(&self, update: &Update) {
        let (state, endpoints) = match update {
            Update::Endpoints(endpoints) => (State::Known, &**endpoints),
            Update::NotFound => (State::NotFound, [].as_slice()),
        };
        // Held until the set is in force, so that nobody sees an endpoint retired that is still picked.
        let mut carry = self.carry.lock().unwrap_or_else(PoisonError::into_inner);
        let set = carry.next(endpoints);
        let picker = self.balancer.prepare(&set);
        self.snapshot.store(Arc::new(Snapshot { state, set, picker, at: Instant::now() }));
        drop(carry);
        self.changed.notify_waiters();
        self.observer.on(&Event::Resolved { name: &self.name, result: Ok(endpoints.len()) });
    }

    /// The resolution said its last. What was known stays; if nothing was, nothing will be.
    fn ended(&self, error: Option<ResolveError>) {
        let snapshot = self.snapshot.load();
        if snapshot.state == State::Pending {
            if let Some(error) = error {
                self.failure.get_or_init(|| error);
            }
            let set = snapshot.set.clone();
            let picker = self.balancer.prepare(&set);
            self.snapshot.store(Arc::new(Snapshot { state: State::Ended, set, picker, at: Instant::now() }));
            self.changed.notify_waiters();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// Ends with the resolution or, by being aborted, with the last clone of the balancer.
async fn follow(shared: Weak<Shared>, resolution: Option<Resolution>) {
    let Some(mut resolution) = resolution else { return };
    let mut failing: Option<String> = None;
    let mut last = None;
    while let Some(item) = resolution.next().await {
        let Some(shared) = shared.upgrade() else { return };
        match item {
            Ok(update) => {
                shared.update(&update);
                if failing.take().is_some() {
                    shared.set_failing(None);
                    tracing::info!(name = %shared.name, "resolution works again");
                }
            }
            Err(error) => {
                // Once per change: a discovery service that is down says so every second.
                let cause = crate::error::Chain(&error).to_string();
                if failing.as_ref() == Some(&cause) {
                    tracing::debug!(name = %shared.name, error = cause, "resolution failed again");
                } else {
                    tracing::warn!(name = %shared.name, error = cause, "resolution failed; keeping what is known");
                    shared.set_failing(Some(&cause));
                    failing = Some(cause);
                }
                shared.observer.on(&Event::Resolved { name: &shared.name, result: Err(&error) });
                last = Some(error);
            }
        }
    }
    if let Some(shared) = shared.upgrade() {
        shared.ended(last);
    }
}

/// What a balancer knows, for people and metrics. Does not keep it alive.
#[derive(Clone)]
pub struct View {
    shared: Weak<Shared>,
}

impl View {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }

    /// The state now; `None` if the balancer is gone.
    pub fn state(&self) -> Option<ViewState> {
        let shared = self.shared.upgrade()?;
        let snapshot = shared.snapshot.load_full();
        Some(ViewState {
            name: Arc::clone(&shared.name),
            resolved: match snapshot.state {
                State::Pending | State::Ended => None,
                State::Known => Some(true),
                State::NotFound => Some(false),
            },
            age: snapshot.at.elapsed(),
            replicas: snapshot.set.clone(),
            retired: shared.carry.lock().unwrap_or_else(PoisonError::into_inner).retired(),
            waiters: shared.waiters.load(Ordering::Relaxed),
            failing: shared.failing.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        })
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("View").field(&self.state()).finish()
    }
}

/// What a balancer knew at one time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ViewState {
    /// The name it balances.
    pub name: Arc<str>,
    /// Whether the name exists. `None`: discovery has not answered yet.
    pub resolved: Option<bool>,
    /// How long ago discovery last said something new; if it never did, how long ago the balancer was made.
    pub age: Duration,
    /// The endpoints with their load and state.
    pub replicas: ReplicaSet,
    /// Endpoints that are gone from discovery while connections to them live.
    pub retired: usize,
    /// Callers that wait for an endpoint.
    pub waiters: usize,
    /// Why discovery has failed since its last answer. `None`: it has not. What it said before stays in force meanwhile.
    pub failing: Option<Arc<str>>,
}
