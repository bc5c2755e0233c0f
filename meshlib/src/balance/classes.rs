//! Exact shares between weights.

use super::Balancer;
use super::Hints;
use super::Picker;
use super::alias::AliasTable;
use super::set::Replica;
use super::set::ReplicaSet;
use crate::endpoint::Weight;

/// Splits traffic exactly by weight: draws a class of replicas of equal weight, by its share, and lets another balancer
/// choose inside it. Load counts only inside a class.
///
/// For canaries and the like, where one percent means one percent. Where weights say how much a machine can take,
/// [`LeastLoaded`](super::LeastLoaded) alone keeps answers faster.
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightClasses<B> {
    inner: B,
}

impl<B> WeightClasses<B> {
    /// Exact shares between classes, `inner` inside each.
    pub const fn new(inner: B) -> Self {
        Self { inner }
    }
}

impl<B: Balancer> Balancer for WeightClasses<B> {
    fn prepare(&self, replicas: &ReplicaSet) -> Box<dyn Picker> {
        let mut weights: Vec<Weight> =
            replicas.replicas().iter().map(|replica| replica.endpoint().weight).collect();
        weights.sort_by(|a, b| a.get().total_cmp(&b.get()));
        weights.dedup();
        let (mut classes, mut shares) = (Vec::new(), Vec::new());
        for weight in weights {
            let members = replicas.subset(|replica| replica.endpoint().weight == weight);
            // Finite: a weight is, and what is lost above the largest number does not matter.
            let share = weight.get() * members.replicas().len() as f64;
            shares.push(Weight::new(share).unwrap_or(weight));
            classes.push(self.inner.prepare(&members));
        }
        let table = (!shares.is_empty()).then(|| AliasTable::new(shares.into_iter()));
        Box::new(Classes { classes: classes.into(), table, all: replicas.clone() })
    }

    fn wants_answer_times(&self) -> bool {
        self.inner.wants_answer_times()
    }
}

struct Classes {
    classes: Box<[Box<dyn Picker>]>,
    table: Option<AliasTable>,
    all: ReplicaSet,
}

impl Picker for Classes {
    fn pick(&self, hints: &Hints<'_>) -> Option<&Replica> {
        let class = self.table.as_ref()?.sample(fastrand::u64(..));
        self.classes[class]
            .pick(hints)
            .filter(|replica| replica.usable(hints))
            .or_else(|| self.all.any_usable(hints))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::LeastLoaded;
    use crate::endpoint::Endpoint;

    #[test]
    fn the_split_is_exact_however_busy_a_class_is() {
        let endpoint = |port, weight| {
            Endpoint::new(([127, 0, 0, 1], port).into()).with_weight(Weight::new(weight).unwrap())
        };
        let set = ReplicaSet::from_endpoints([endpoint(1, 1.0), endpoint(2, 1.0), endpoint(3, 0.1)]);
        let picker = WeightClasses::new(LeastLoaded::new()).prepare(&set);

        let picks: Vec<_> = (0..20_000).map(|_| picker.pick(&Hints::default()).unwrap().begin()).collect();

        let light = f64::from(set.replicas()[2].in_flight()) / picks.len() as f64;
        assert!((light - 0.0476).abs() < 0.006, "{light}");
    }
}
