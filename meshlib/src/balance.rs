//! Choosing one of the endpoints of a name.
//!
//! [`BalanceLayer`] follows a [resolution](crate::resolve) and gives each request the endpoint that a [`Balancer`]
//! picks. It has no task on the request's path and takes no lock there: the current set is a snapshot, and the policy is
//! asked once per set to [prepare](Balancer::prepare) what makes a [pick](Picker::pick) cheap.
//!
//! | Balancer | Chooses | For |
//! |---|---|---|
//! | [`LeastLoaded`] (default) | the less loaded of two weighted draws | connections; requests to endpoints that are equally fast |
//! | [`PeakEwma`] | the one of two that will answer sooner | requests and answers: HTTP |
//! | [`RoundRobin`] | in turns | even spreading, tests |
//! | [`Tiered`] | inside the first tier that has a usable endpoint | zones, priorities |
//! | [`WeightClasses`] | a class of equal weights by share, then inside it | exact splits |
//! | [`from_fn`] | as a closure says | everything else |
//!
//! # Examples
//!
//! A balancer of one's own: always the lowest address that can be used. (As a type it would implement [`Balancer`], whose
//! picker keeps a clone of the set.)
//!
//! ```
//! use meshlib::balance::{self, Hints, ReplicaSet};
//! use meshlib::{BalanceLayer, Static};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lowest = balance::from_fn(|set: &ReplicaSet, hints: &Hints<'_>| {
//!     let usable = set.replicas().iter().enumerate().filter(|(_, replica)| replica.usable(hints));
//!     usable.min_by_key(|(_, replica)| replica.endpoint().addr).map(|(index, _)| index)
//! });
//! let layer = BalanceLayer::new(Static::new(["10.0.0.1:80".parse()?]), "web").balancer(lowest);
//! # let _ = layer;
//! # Ok(())
//! # }
//! ```

use std::fmt;

use crate::endpoint::Endpoint;
use crate::endpoint::EndpointKey;

mod accrual;
mod alias;
mod attempts;
mod budget;
mod by;
mod classes;
mod ewma;
mod future;
mod layer;
mod p2c;
mod round_robin;
mod service;
mod set;
mod shared;
mod tiered;
mod tower;
mod track;
mod wait;

pub use self::tower::Changes;
pub use self::tower::Discovered;
pub use self::tower::Weighted;
pub use self::tower::from_discover;
pub use accrual::Accrual;
pub use accrual::Policy;
pub use accrual::ReplicaState;
pub use attempts::Attempts;
pub use attempts::Replay;
pub use budget::Budget;
pub use by::BalanceBy;
pub use by::BalanceByLayer;
pub use classes::WeightClasses;
pub use future::BalanceFuture;
pub use layer::BalanceLayer;
pub use p2c::LeastLoaded;
pub use p2c::PeakEwma;
pub use round_robin::RoundRobin;
pub use service::Balance;
pub use set::Cost;
pub use set::InFlight;
pub use set::Replica;
pub use set::ReplicaSet;
pub use shared::View;
pub use shared::ViewState;
pub use tiered::Tiered;
pub use track::UntilEnd;
pub use wait::CrowdGate;
pub use wait::Waiting;

/// How to choose among replicas. Asked once per set, off the request's path.
///
/// # Examples
///
/// The fewest pieces of work in flight, whatever the weights:
///
/// ```
/// use meshlib::balance::{Balancer, Hints, Picker, Replica, ReplicaSet};
///
/// struct Fewest;
///
/// impl Balancer for Fewest {
///     fn prepare(&self, replicas: &ReplicaSet) -> Box<dyn Picker> {
///         Box::new(Pick(replicas.clone()))
///     }
/// }
///
/// struct Pick(ReplicaSet);
///
/// impl Picker for Pick {
///     fn pick(&self, hints: &Hints<'_>) -> Option<&Replica> {
///         let usable = self.0.replicas().iter().filter(|replica| replica.usable(hints));
///         usable.min_by_key(|replica| (replica.in_flight(), replica.endpoint().addr))
///     }
/// }
/// ```
pub trait Balancer: Send + Sync + 'static {
    /// Prepares whatever makes picking from this set cheap: tiers, classes, a schedule.
    ///
    /// Called for each update of discovery, not when replicas fail or recover: that a picker sees in
    /// [`Replica::usable`].
    fn prepare(&self, replicas: &ReplicaSet) -> Box<dyn Picker>;

    /// Whether each answer of a connection must be measured. Default: no. What [`Replica::answer_time`] says is then a
    /// sample: the first answer of each connection and one in sixteen after it. Answers that are one to a request are all
    /// measured.
    fn wants_answer_times(&self) -> bool {
        false
    }
}

/// Chooses one replica of the set it was prepared for.
///
/// A pure decision, called once per attempt: no waiting, no I/O, no lock. Several may be made at a time, before the work of
/// any is counted.
pub trait Picker: Send + Sync + 'static {
    /// The chosen replica, or `None` if nothing may be used. If no replica at all is [usable](Replica::usable) because
    /// all have failed, one of these is tried nevertheless.
    fn pick(&self, hints: &Hints<'_>) -> Option<&Replica>;
}

impl<B: Balancer + ?Sized> Balancer for Box<B> {
    fn prepare(&self, replicas: &ReplicaSet) -> Box<dyn Picker> {
        (**self).prepare(replicas)
    }

    fn wants_answer_times(&self) -> bool {
        (**self).wants_answer_times()
    }
}

/// What a caller has to say about a choice.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Hints<'a> {
    /// Endpoints that were tried for this request already.
    pub exclude: &'a [EndpointKey],
    /// The request's [affinity](Replay::affinity), for balancers that keep equal requests together.
    pub hash: Option<u64>,
}

impl<'a> Hints<'a> {
    /// Says what was tried already.
    #[must_use]
    pub fn excluding(exclude: &'a [EndpointKey]) -> Self {
        Self { exclude, hash: None }
    }

    fn excludes(&self, endpoint: &Endpoint) -> bool {
        self.exclude.iter().any(|key| key.addr == endpoint.addr && key.instance == endpoint.instance)
    }
}

/// A balancer from a closure that gives the index of the chosen replica, or nothing.
///
/// An index beyond the set counts as nothing.
pub fn from_fn<F>(choose: F) -> FromFn<F>
where
    F: Fn(&ReplicaSet, &Hints<'_>) -> Option<usize> + Clone + Send + Sync + 'static,
{
    FromFn { choose }
}

/// A balancer made by [`from_fn`].
#[derive(Clone)]
pub struct FromFn<F> {
    choose: F,
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").finish_non_exhaustive()
    }
}

impl<F> Balancer for FromFn<F>
where
    F: Fn(&ReplicaSet, &Hints<'_>) -> Option<usize> + Clone + Send + Sync + 'static,
{
    fn prepare(&self, replicas: &ReplicaSet) -> Box<dyn Picker> {
        Box::new(Chosen { replicas: replicas.clone(), choose: self.choose.clone() })
    }
}

struct Chosen<F> {
    replicas: ReplicaSet,
    choose: F,
}

impl<F> Picker for Chosen<F>
where
    F: Fn(&ReplicaSet, &Hints<'_>) -> Option<usize> + Send + Sync + 'static,
{
    fn pick(&self, hints: &Hints<'_>) -> Option<&Replica> {
        self.replicas.replicas().get((self.choose)(&self.replicas, hints)?)
    }
}
