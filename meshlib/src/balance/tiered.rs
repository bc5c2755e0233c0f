//! Tiers: use the near, the preferred, the cheap first.

use std::collections::BTreeMap;
use std::fmt;

use super::Balancer;
use super::Hints;
use super::Picker;
use super::set::Replica;
use super::set::ReplicaSet;
use crate::endpoint::Endpoint;

/// Uses a tier only when nothing in the tiers before it is usable.
///
/// A function of the endpoint gives its tier; lower comes first. Inside a tier another balancer chooses.
///
/// # Examples
///
/// ```
/// use meshlib::balance::{LeastLoaded, Tiered};
///
/// let near_first = Tiered::new(LeastLoaded::new(), |endpoint| {
///     u32::from(endpoint.metadata.zone.as_deref() != Some("paris"))
/// });
/// # let _ = near_first;
/// ```
pub struct Tiered<B> {
    inner: B,
    tier: Box<dyn Fn(&Endpoint) -> u32 + Send + Sync>,
}

impl<B> Tiered<B> {
    /// Tiers by a function of the endpoint, `inner` inside each.
    pub fn new(inner: B, tier: impl Fn(&Endpoint) -> u32 + Send + Sync + 'static) -> Self {
        Self { inner, tier: Box::new(tier) }
    }
}

impl<B: Balancer> Balancer for Tiered<B> {
    fn prepare(&self, replicas: &ReplicaSet) -> Box<dyn Picker> {
        let mut tiers = BTreeMap::new();
        for replica in replicas.replicas() {
            tiers.entry((self.tier)(replica.endpoint())).or_insert(());
        }
        let tiers = tiers.into_keys().map(|tier| {
            let members = replicas.subset(|replica| (self.tier)(replica.endpoint()) == tier);
            (self.inner.prepare(&members), members)
        });
        Box::new(Tiers { tiers: tiers.collect(), all: replicas.clone() })
    }

    fn wants_answer_times(&self) -> bool {
        self.inner.wants_answer_times()
    }
}

impl<B: fmt::Debug> fmt::Debug for Tiered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered").field("inner", &self.inner).finish_non_exhaustive()
    }
}

struct Tiers {
    tiers: Box<[(Box<dyn Picker>, ReplicaSet)]>,
    all: ReplicaSet,
}

impl Picker for Tiers {
    fn pick(&self, hints: &Hints<'_>) -> Option<&Replica> {
        let usable = |replica: &&Replica| replica.usable(hints);
        self.tiers
            .iter()
            // What a tier offers as its last resort is worse than what the next one has.
            .find_map(|(picker, _)| picker.pick(hints).filter(usable))
            .or_else(|| self.all.any_usable(hints))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::LeastLoaded;

    #[test]
    fn a_tier_is_left_only_when_nothing_in_it_is_usable() {
        let endpoint = |port| Endpoint::new(([127, 0, 0, 1], port).into());
        let set = ReplicaSet::from_endpoints([1, 2, 3].map(endpoint));
        let picker =
            Tiered::new(LeastLoaded::new(), |endpoint| u32::from(endpoint.addr.port() == 3)).prepare(&set);

        let first = [endpoint(1).key()];
        assert_eq!(picker.pick(&Hints::excluding(&first)).unwrap().endpoint().addr.port(), 2);
        let near = [endpoint(1).key(), endpoint(2).key()];
        assert_eq!(picker.pick(&Hints::excluding(&near)).unwrap().endpoint().addr.port(), 3);
    }
}
