//! The endpoints of a name with what is known about each.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tower::load::Load;

use super::Hints;
use super::accrual::Accrual;
use super::accrual::Health;
use super::accrual::ReplicaState;
use super::alias::AliasTable;
use super::ewma::Ewma;
use crate::endpoint::Endpoint;
use crate::endpoint::EndpointKey;
use crate::endpoint::Metadata;
use crate::endpoint::Weight;
use crate::io::PeerStats;

/// The replicas of one name at one time. A clone is the same set.
///
/// What is known about a replica, its load above all, is shared with every other set that holds the same endpoint.
#[derive(Clone)]
pub struct ReplicaSet(Arc<Inner>);

struct Inner {
    replicas: Box<[Replica]>,
    alias: AliasTable,
}

impl ReplicaSet {
    pub(super) fn new(replicas: impl IntoIterator<Item = Replica>) -> Self {
        let replicas: Box<[Replica]> = replicas.into_iter().collect();
        let alias = AliasTable::new(replicas.iter().map(|replica| replica.endpoint.weight));
        Self(Arc::new(Inner { replicas, alias }))
    }

    /// Fresh replicas of these endpoints, for tests and benches of a balancer.
    pub fn from_endpoints(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let origin = Instant::now();
        Self::new(
            endpoints
                .into_iter()
                .map(|endpoint| Replica { stats: Stats::new(endpoint.addr, origin, 1), endpoint }),
        )
    }

    /// The replicas, in no particular order.
    pub fn replicas(&self) -> &[Replica] {
        &self.0.replicas
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.replicas.is_empty()
    }

    /// An index drawn in proportion to weight. O(1), no allocation. Panics if the set is empty.
    pub fn sample(&self, random: u64) -> usize {
        self.0.alias.sample(random)
    }

    /// Two different indices, each drawn in proportion to weight as far as that goes. `None` below two replicas.
    pub fn sample_two(&self) -> Option<(usize, usize)> {
        let n = self.0.replicas.len();
        if n < 2 {
            return None;
        }
        let first = self.sample(fastrand::u64(..));
        // A replica that has nearly all the weight would be drawn again and again.
        for _ in 0..4 {
            let second = self.sample(fastrand::u64(..));
            if second != first {
                return Some((first, second));
            }
        }
        Some((first, (first + fastrand::usize(1..n)) % n))
    }

    /// A [usable](Replica::usable) replica, for a balancer whose own choice is not: the first from a random start, replicas
    /// without weight last.
    pub fn any_usable(&self, hints: &Hints<'_>) -> Option<&Replica> {
        self.scan(|replica| replica.usable(hints))
    }

    /// Where none is usable, one that is closed for its failures and may be tried all the same.
    pub(super) fn last_resort(&self, hints: &Hints<'_>) -> Option<&Replica> {
        if self.replicas().iter().any(|replica| replica.usable(hints)) {
            return None;
        }
        self.scan(|replica| replica.last_resort(hints))
    }

    fn scan(&self, usable: impl Fn(&Replica) -> bool) -> Option<&Replica> {
        let replicas = self.replicas();
        let start = if replicas.is_empty() { 0 } else { fastrand::usize(..replicas.len()) };
        let from_start =
            || replicas[start..].iter().chain(&replicas[..start]).filter(|replica| usable(replica));
        from_start().find(|replica| replica.endpoint.weight > Weight::ZERO).or_else(|| from_start().next())
    }

    /// The replicas that pass, with their statistics and an order of draws of their own.
    #[must_use]
    pub fn subset(&self, mut keep: impl FnMut(&Replica) -> bool) -> Self {
        Self::new(self.replicas().iter().filter(|replica| keep(replica)).cloned())
    }
}

impl fmt::Debug for ReplicaSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.replicas()).finish()
    }
}

/// An endpoint with what is known about it.
#[derive(Clone)]
pub struct Replica {
    endpoint: Endpoint,
    stats: Arc<Stats>,
}

/// How often an endpoint that breaks one connection after the other is logged, in ms.
const PAUSE_MS: u64 = 10_000;

/// What is known about an endpoint. Outlives the endpoint's absence as long as connections to it live.
pub(super) struct Stats {
    addr: SocketAddr,
    origin: Instant,
    in_flight: AtomicU32,
    connecting: AtomicU32,
    picked: AtomicU64,
    failed: AtomicU64,
    broken: AtomicU64,
    unanswered: AtomicU64,
    /// Of these, how many there were since the last answer.
    silent: AtomicU32,
    /// When that was logged last; zero for never.
    told_broken: AtomicU64,
    pub(super) ewma: Ewma,
    /// Of how many answers of a connection one is measured.
    one_in: u32,
    health: Health,
}

impl Stats {
    fn new(addr: SocketAddr, origin: Instant, one_in: u32) -> Arc<Self> {
        Arc::new(Self {
            addr,
            origin,
            in_flight: AtomicU32::new(0),
            connecting: AtomicU32::new(0),
            picked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            silent: AtomicU32::new(0),
            told_broken: AtomicU64::new(0),
            ewma: Ewma::default(),
            one_in,
            health: Health::default(),
        })
    }

    /// Milliseconds since the balancer was made, from one up: zero stands for "never" in what is kept.
    fn now(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64 + 1
    }
}

impl PeerStats for Stats {
    fn answered(&self, took: Duration) {
        if self.silent.load(Ordering::Relaxed) > 0 {
            self.silent.store(0, Ordering::Relaxed);
        }
        self.ewma.record(took, self.now());
    }

    fn broke(&self, error: &io::Error) {
        let broken = self.broken.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let (now, told) = (self.now(), self.told_broken.load(Ordering::Relaxed));
        let is_time = told == 0 || now.saturating_sub(told) >= PAUSE_MS;
        // Of several at a time one tells.
        if is_time
            && self.told_broken.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            tracing::info!(endpoint = %self.addr, broken, %error, "endpoint broke a connection");
        }
    }

    fn unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        self.silent.fetch_add(1, Ordering::Relaxed);
    }

    fn one_in(&self) -> u32 {
        self.one_in
    }
}

impl Replica {
    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Work that was started and has not ended: requests, or connections open and being opened.
    pub fn in_flight(&self) -> u32 {
        // Relaxed, here and below: these are counts that no other memory depends on.
        self.stats.in_flight.load(Ordering::Relaxed)
    }

    /// The part of [`in_flight`](Self::in_flight) that waits for its answer.
    pub fn connecting(&self) -> u32 {
        self.stats.connecting.load(Ordering::Relaxed)
    }

    /// How often it was picked in all.
    pub fn picked(&self) -> u64 {
        self.stats.picked.load(Ordering::Relaxed)
    }

    /// How often it failed in all.
    pub fn failed(&self) -> u64 {
        self.stats.failed.load(Ordering::Relaxed)
    }

    /// How often it broke a connection that was in use, in all. This does not eject it.
    pub fn broken(&self) -> u64 {
        self.stats.broken.load(Ordering::Relaxed)
    }

    /// How often it was asked and has sent no byte, in all: over a connection, as
    /// [`Event::Unanswered`](crate::observe::Event::Unanswered) is told, or until whoever asked went away, a second later or
    /// more. This does not eject it: there are protocols without answers, and impatient clients.
    pub fn unanswered(&self) -> u64 {
        self.stats.unanswered.load(Ordering::Relaxed)
    }

    /// How often in a row, since its last answer.
    pub fn unanswered_in_a_row(&self) -> u32 {
        self.stats.silent.load(Ordering::Relaxed)
    }

    /// How often it failed since its last success.
    pub fn failures_in_a_row(&self) -> u32 {
        self.stats.health.failures()
    }

    /// How long it takes to answer: an average that believes bad news at once and good news by a tenth. After silence less
    /// bad news is enough: what is compared with a new time halves in 7 s. `None` if it has not answered yet.
    ///
    /// The time from asking to the first byte of the answer, of requests and of what is forwarded over connections. A sample
    /// of the latter, unless the balancer [wants](super::Balancer::wants_answer_times) all.
    pub fn answer_time(&self) -> Option<Duration> {
        self.stats.ewma.measured()
    }

    /// Whether it is used.
    pub fn state(&self) -> ReplicaState {
        if self.stats.health.is_well() {
            return ReplicaState::Ready;
        }
        self.stats.health.state(self.stats.now())
    }

    /// How long until it is tried again. Zero for one that is in use.
    pub fn closed_for(&self) -> Duration {
        Duration::from_millis(self.stats.health.closed_until().saturating_sub(self.stats.now()))
    }

    /// How long until it may be tried, be it as a last resort.
    pub(super) fn opens_in(&self) -> Duration {
        if self.stats.health.is_well() {
            return Duration::ZERO;
        }
        Duration::from_millis(self.stats.health.opens_at().saturating_sub(self.stats.now()))
    }

    /// Neither excluded by the caller nor closed for having failed. One atomic load for a replica that is well.
    pub fn usable(&self, hints: &Hints<'_>) -> bool {
        (self.stats.health.is_well() || self.stats.health.closed_until() <= self.stats.now())
            && !hints.excludes(&self.endpoint)
    }

    /// Not excluded, and not known to have failed a moment ago: fit to be tried when nothing is usable.
    fn last_resort(&self, hints: &Hints<'_>) -> bool {
        self.stats.health.is_last_resort(self.stats.now()) && !hints.excludes(&self.endpoint)
    }

    /// The time, as all replicas of a set count it.
    pub(super) fn now(&self) -> u64 {
        self.stats.now()
    }

    /// Its load in the sense of [`PeakEwma`](super::PeakEwma): expected time to an answer, divided by the weight.
    pub(super) fn expected(&self, now: u64) -> f64 {
        per_weight(self.stats.ewma.expected(self.in_flight(), now), self.endpoint.weight)
    }

    /// Takes the right to use it. Of those who find a replica whose time to be tried again has come, one gets it.
    pub(super) fn claim(&self, accrual: &Accrual) -> bool {
        self.stats.health.is_well() || self.stats.health.claim(self.stats.now(), accrual)
    }

    /// Starts a piece of work.
    pub(super) fn begin(&self) -> InFlight {
        self.stats.in_flight.fetch_add(1, Ordering::Relaxed);
        self.stats.connecting.fetch_add(1, Ordering::Relaxed);
        self.stats.picked.fetch_add(1, Ordering::Relaxed);
        self.stats.ewma.begin(|| self.stats.now());
        InFlight { stats: Arc::clone(&self.stats), connecting: true, took: None }
    }

    /// Notes a success.
    pub(super) fn succeeded(&self, accrual: &Accrual) -> Recovery {
        let health = &self.stats.health;
        let (out, early) = (health.is_out(), health.is_early());
        match health.succeeded(|| self.stats.now(), accrual) {
            false => Recovery::None,
            true if out => Recovery::Back { early },
            true => Recovery::CooledDown,
        }
    }

    /// Whether it failed so often that it is or was left alone, and has not been well since.
    pub(super) fn is_out(&self) -> bool {
        self.stats.health.is_out()
    }

    /// Lets it be tried at once though its time is not over. False if that was done, or cannot be.
    pub(super) fn allow_early(&self) -> bool {
        self.endpoint.weight != Weight::ZERO && self.stats.health.allow_early(self.stats.now())
    }

    /// Whoever asked has gone without an answer.
    pub(super) fn unanswered_now(&self) {
        self.stats.unanswered();
    }

    /// Whether this is the same endpoint, maybe of another update.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.stats, &other.stats)
    }

    /// Notes a failure.
    pub(super) fn failed_now(&self, accrual: &Accrual, may_eject: bool) -> Setback {
        self.stats.failed.fetch_add(1, Ordering::Relaxed);
        let (health, now) = (&self.stats.health, self.stats.now());
        let early = health.is_tried_early(now);
        match health.failed(now, accrual, may_eject) {
            Some(penalty) => Setback::Ejected(penalty),
            None if early => Setback::TriedEarly,
            None => Setback::Noted,
        }
    }
}

/// What a success has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Nothing.
    None,
    /// It was left alone for a moment.
    CooledDown,
    /// It was ejected, and may have been tried before its time was over.
    Back { early: bool },
}

/// What a failure has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setback {
    /// Nothing but counts.
    Noted,
    /// It was tried before its time was over, and has the rest of it.
    TriedEarly,
    /// It is left alone for so long.
    Ejected(Duration),
}

/// The load: work in flight divided by weight.
impl Load for Replica {
    type Metric = Cost;

    fn load(&self) -> Cost {
        Cost(per_weight(f64::from(self.in_flight()), self.endpoint.weight))
    }
}

fn per_weight(load: f64, weight: Weight) -> f64 {
    if weight == Weight::ZERO { f64::INFINITY } else { load / weight.get() }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("endpoint", &self.endpoint)
            .field("in_flight", &self.in_flight())
            .field("state", &self.state())
            .finish()
    }
}

/// How busy a replica is, relative to its weight. Infinite for a weight of zero.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Cost(f64);

impl Cost {
    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }

    pub(super) fn scaled(load: f64, weight: Weight) -> Self {
        Self(per_weight(load, weight))
    }
}

/// A piece of work on a replica. The work ends when this is dropped.
#[must_use = "the work ends when this is dropped"]
pub struct InFlight {
    stats: Arc<Stats>,
    connecting: bool,
    /// What the answer took in microseconds, once there is one. Small, for every connection has one.
    took: Option<NonZeroU32>,
}

impl InFlight {
    /// The answer has come; the work goes on.
    pub(super) fn answered(&mut self, took: Duration) {
        self.took = NonZeroU32::new(u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1));
        self.end_connecting();
    }

    fn end_connecting(&mut self) {
        if std::mem::take(&mut self.connecting) {
            self.stats.connecting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Who is told how the endpoint does over a connection.
    pub fn peer_stats(&self) -> Arc<dyn PeerStats> {
        Arc::clone(&self.stats) as Arc<dyn PeerStats>
    }

    /// Records what the answer has taken that this is given with: for answers that are one to one request. Those of a
    /// connection are recorded by [`peer_stats`](Self::peer_stats) as they come.
    pub fn record_answer(&self) {
        if let Some(micros) = self.took {
            self.stats.answered(Duration::from_micros(micros.get().into()));
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.end_connecting();
        self.stats.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("connecting", &self.connecting).finish_non_exhaustive()
    }
}

/// Builds each set from the one before, so that what is known about an endpoint survives an update, and its absence too
/// while connections to it live.
pub(super) struct Carry {
    origin: Instant,
    one_in: u32,
    present: HashMap<EndpointKey, (Arc<Stats>, Arc<Metadata>)>,
    absent: HashMap<EndpointKey, Weak<Stats>>,
}

impl Carry {
    /// Of `one_in` answers of a connection one is measured.
    pub(super) fn new(one_in: u32) -> Self {
        Self { origin: Instant::now(), one_in, present: HashMap::new(), absent: HashMap::new() }
    }

    /// The set of these endpoints. O(n), off the request path.
    pub(super) fn next(&mut self, endpoints: &[Endpoint]) -> ReplicaSet {
        let mut merged: HashMap<EndpointKey, usize> = HashMap::with_capacity(endpoints.len());
        let mut replicas: Vec<Replica> = Vec::with_capacity(endpoints.len());
        let mut present = HashMap::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let key = endpoint.key();
            if let Some(&index) = merged.get(&key) {
                let first = &mut replicas[index].endpoint;
                first.weight = first.weight.saturating_add(endpoint.weight);
                continue;
            }
            let mut endpoint = endpoint.clone();
            let stats = match self.present.remove(&key) {
                Some((stats, metadata)) => {
                    // Most resolvers make metadata anew with each answer. By its place in memory others tell whether
                    // this is the registration they know.
                    if metadata == endpoint.metadata {
                        endpoint.metadata = metadata;
                    }
                    stats
                }
                None => {
                    let known = self.absent.remove(&key).as_ref().and_then(Weak::upgrade);
                    known.unwrap_or_else(|| Stats::new(endpoint.addr, self.origin, self.one_in))
                }
            };
            merged.insert(key.clone(), replicas.len());
            present.insert(key, (Arc::clone(&stats), Arc::clone(&endpoint.metadata)));
            replicas.push(Replica { endpoint, stats });
        }
        let gone = std::mem::replace(&mut self.present, present);
        self.absent.extend(gone.into_iter().map(|(key, (stats, _))| (key, Arc::downgrade(&stats))));
        self.absent.retain(|_, stats| {
            stats.upgrade().is_some_and(|stats| stats.in_flight.load(Ordering::Relaxed) > 0)
        });
        ReplicaSet::new(replicas)
    }

    /// Endpoints that left while connections to them live.
    pub(super) fn retired(&self) -> usize {
        self.absent
            .values()
            .filter_map(Weak::upgrade)
            .filter(|stats| stats.in_flight.load(Ordering::Relaxed) > 0)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn load_survives_an_update_of_weight() {
        let mut carry = Carry::new(1);
        let first = carry.next(&[endpoint(1)]);
        let _work = first.replicas()[0].begin();

        let second = carry.next(&[endpoint(1).with_weight(Weight::new(0.5).unwrap()), endpoint(2)]);

        assert_eq!(second.replicas()[0].in_flight(), 1);
        assert_eq!(second.replicas()[0].load().get(), 2.0);
        assert_eq!(second.replicas()[1].in_flight(), 0);
    }

    #[test]
    fn an_endpoint_that_returns_finds_its_load() {
        let mut carry = Carry::new(1);
        let work = carry.next(&[endpoint(1)]).replicas()[0].begin();

        carry.next(&[]);
        assert_eq!(carry.retired(), 1);
        assert_eq!(carry.next(&[endpoint(1)]).replicas()[0].in_flight(), 1);

        carry.next(&[]);
        drop(work);
        assert_eq!(carry.retired(), 0);
        assert_eq!(carry.next(&[endpoint(1)]).replicas()[0].in_flight(), 0);
    }

    #[test]
    fn metadata_that_says_the_same_is_the_same() {
        let labelled = |node: &str| endpoint(1).with_metadata(Metadata::new().with_node(node));
        let metadata = |set: &ReplicaSet| Arc::clone(&set.replicas()[0].endpoint.metadata);
        let mut carry = Carry::new(1);
        let first = metadata(&carry.next(&[labelled("a")]));

        let again = metadata(&carry.next(&[labelled("a")]));
        assert!(Arc::ptr_eq(&first, &again), "nothing is new about it");
        let other = metadata(&carry.next(&[labelled("b")]));
        assert_eq!(other.node.as_deref(), Some("b"));
        carry.next(&[]);
        let back = metadata(&carry.next(&[labelled("b")]));
        assert!(!Arc::ptr_eq(&other, &back), "it was gone and has registered anew");
    }

    #[test]
    fn an_address_named_twice_has_the_sum_of_the_weights() {
        let set = Carry::new(1).next(&[endpoint(1), endpoint(1).with_weight(Weight::new(2.0).unwrap())]);

        assert_eq!(set.replicas().len(), 1);
        assert_eq!(set.replicas()[0].endpoint().weight.get(), 3.0);
    }
}
