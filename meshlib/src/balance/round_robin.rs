//! Turns, in proportion to weight.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::Balancer;
use super::Hints;
use super::Picker;
use super::set::Replica;
use super::set::ReplicaSet;

/// Replicas take turns, heavier ones more often and spread evenly (smooth weighted round robin).
///
/// The order of turns is worked out once per set, for up to 4096 turns; weights are rounded to that. O(1) per pick, no
/// allocation. An update of the set begins at a random turn, so that many processes do not march in step.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RoundRobin {}

impl RoundRobin {
    /// There are no options.
    pub const fn new() -> Self {
        Self {}
    }
}

/// Most turns that are worked out.
const MAX_TURNS: usize = 4096;

impl Balancer for RoundRobin {
    fn prepare(&self, replicas: &ReplicaSet) -> Box<dyn Picker> {
        let turns = turns(replicas);
        let start = if turns.is_empty() { 0 } else { fastrand::usize(..turns.len()) };
        Box::new(Turns { replicas: replicas.clone(), turns, next: AtomicUsize::new(start) })
    }
}

struct Turns {
    replicas: ReplicaSet,
    turns: Box<[u32]>,
    next: AtomicUsize,
}

impl Picker for Turns {
    fn pick(&self, hints: &Hints<'_>) -> Option<&Replica> {
        if self.turns.is_empty() {
            return None;
        }
        let all = self.replicas.replicas();
        for _ in 0..all.len().min(self.turns.len()) {
            // Relaxed: turns need no order beyond their own.
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.turns.len();
            let replica = &all[self.turns[turn] as usize];
            if replica.usable(hints) {
                return Some(replica);
            }
        }
        self.replicas.any_usable(hints)
    }
}

/// One period of the schedule: everyone's turns are equally far apart, and due times decide the order.
fn turns(replicas: &ReplicaSet) -> Box<[u32]> {
    let weights = || replicas.replicas().iter().map(|replica| replica.endpoint().weight.get());
    let heaviest = weights().fold(0.0, f64::max);
    // Where nobody has weight all are equal.
    let relative = |weight: f64| if heaviest == 0.0 { 1.0 } else { weight / heaviest };
    let equal = weights().all(|weight| relative(weight) == 1.0);
    let length = if equal { replicas.replicas().len() } else { MAX_TURNS.max(replicas.replicas().len()) };

    // Due times as whole numbers, in small parts of the heaviest one's distance: sums of fractions would drift.
    const DISTANCE: f64 = (1_u64 << 32) as f64;
    let mut due: BinaryHeap<Reverse<(u64, u32, u64)>> = weights()
        .zip(0..)
        .filter(|&(weight, _)| relative(weight) > 0.0)
        .map(|(weight, index)| {
            let distance = (DISTANCE / relative(weight)) as u64;
            Reverse((distance / 2, index, distance))
        })
        .collect();
    let next = || {
        let mut first = due.peek_mut()?;
        let Reverse((at, index, distance)) = *first;
        *first = Reverse((at.saturating_add(distance), index, distance));
        Some(index)
    };
    std::iter::from_fn(next).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::endpoint::Weight;

    fn counts(weights: &[f64], picks: usize) -> Vec<usize> {
        let endpoints = weights.iter().enumerate().map(|(port, &weight)| {
            Endpoint::new(([127, 0, 0, 1], port as u16).into()).with_weight(Weight::new(weight).unwrap())
        });
        let picker = RoundRobin::new().prepare(&ReplicaSet::from_endpoints(endpoints));
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            counts[usize::from(picker.pick(&Hints::default()).unwrap().endpoint().addr.port())] += 1;
        }
        counts
    }

    #[test]
    fn equal_replicas_take_turns() {
        assert_eq!(counts(&[1.0, 1.0, 1.0], 30), [10, 10, 10]);
    }

    #[test]
    fn heavier_replicas_take_more_turns() {
        let counts = counts(&[3.0, 1.0, 0.0], 4096);

        assert_eq!(counts, [3072, 1024, 0]);
    }
}
