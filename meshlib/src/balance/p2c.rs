//! Of two random replicas, the better one.
//!
//! Both draws follow the weights, so that shares hold when nothing is busy; the comparison divides by the weight, so
//! that they hold when everything is. A tie goes to the first draw, which is the weighted one.

use tower::load::Load;

use super::Balancer;
use super::Hints;
use super::Picker;
use super::set::Replica;
use super::set::ReplicaSet;

/// The less loaded of two, where load is work in flight divided by weight. The default balancer.
///
/// With one replica open the shares of weights 1, 1 and 0.1 are exact; in between idle and busy, light replicas fall
/// short of theirs. Where exact splits matter put [`WeightClasses`](super::WeightClasses) around it. O(1) per pick, no
/// allocation.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LeastLoaded {}

impl LeastLoaded {
    /// There are no options.
    pub const fn new() -> Self {
        Self {}
    }
}

impl Balancer for LeastLoaded {
    fn prepare(&self, replicas: &ReplicaSet) -> Box<dyn Picker> {
        Box::new(P2c { replicas: replicas.clone(), prefers: |a: &Replica, b: &Replica| a.load() <= b.load() })
    }
}

/// The one of two that is expected to answer sooner: average time to an answer, times work in flight plus one, divided
/// by weight.
///
/// Keeps the slowest answers fast where one endpoint of many turns slow, which a count of connections does not see. The
/// average rises at once and falls by a tenth of the difference per answer; it halves in 7 s of silence, so that a slow
/// endpoint is tried again; one that was never tried comes first. The time is the one from a request's head to its answer's
/// head for HTTP, and for TCP from the first byte of the client to the first byte of the server in each turn of the
/// conversation, each of which is measured: it is meant for protocols where the client speaks first. Any answer counts, so
/// that an endpoint which answers 503 at once is a quick one.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct PeakEwma {}

impl PeakEwma {
    /// There are no options.
    pub const fn new() -> Self {
        Self {}
    }
}

impl Balancer for PeakEwma {
    fn prepare(&self, replicas: &ReplicaSet) -> Box<dyn Picker> {
        Box::new(P2c { replicas: replicas.clone(), prefers: sooner })
    }

    fn wants_answer_times(&self) -> bool {
        true
    }
}

/// Whether `a` is expected to answer no later than `b`.
fn sooner(a: &Replica, b: &Replica) -> bool {
    // Reading the clock is a third of a pick, so both are judged at one time.
    let now = a.now();
    a.expected(now) <= b.expected(now)
}

struct P2c<F> {
    replicas: ReplicaSet,
    /// Whether the first of two is to be taken.
    prefers: F,
}

impl<F> Picker for P2c<F>
where
    F: Fn(&Replica, &Replica) -> bool + Send + Sync + 'static,
{
    fn pick(&self, hints: &Hints<'_>) -> Option<&Replica> {
        let all = self.replicas.replicas();
        let Some((a, b)) = self.replicas.sample_two() else {
            return self.replicas.any_usable(hints);
        };
        let (a, b) = (&all[a], &all[b]);
        let (first, second) = if (self.prefers)(a, b) { (a, b) } else { (b, a) };
        [first, second]
            .into_iter()
            .find(|replica| replica.usable(hints))
            .or_else(|| self.replicas.any_usable(hints))
    }
}
