//! Weighted draws in constant time.
//!
//! An alias table (Walker 1974, Vose 1991) costs O(n) to build, off the request path, and one random word per draw.

use crate::endpoint::Weight;

/// Draws indices in proportion to their weights.
#[derive(Clone, Debug)]
pub(crate) struct AliasTable {
    /// Chance to keep the column, scaled to `u32::MAX`, and the index taken otherwise.
    columns: Box<[(u32, u32)]>,
}

impl AliasTable {
    /// Builds a table. If every weight is zero all indices are equally likely.
    pub(crate) fn new(weights: impl ExactSizeIterator<Item = Weight>) -> Self {
        let n = weights.len();
        let weights: Vec<f64> = weights.map(Weight::get).collect();
        // Scaled by the largest first, so that a sum of huge weights stays finite.
        let largest = weights.iter().copied().fold(0.0, f64::max);
        let total: f64 = weights.iter().map(|weight| weight / largest).sum();
        if largest == 0.0 {
            return Self { columns: (0..n).map(|index| (u32::MAX, index as u32)).collect() };
        }

        let mut shares: Vec<f64> = weights.iter().map(|weight| weight / largest / total * n as f64).collect();
        let mut columns: Vec<(u32, u32)> = (0..n).map(|index| (u32::MAX, index as u32)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|&index| shares[index] < 1.0);
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            columns[poor] = ((shares[poor] * f64::from(u32::MAX)) as u32, rich as u32);
            shares[rich] -= 1.0 - shares[poor];
            if shares[rich] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        // Rounding may leave a column without a partner. Its share is one, unless its weight is zero.
        let heaviest = weights.iter().position(|&weight| weight == largest).unwrap_or_default();
        for index in small.into_iter().filter(|&index| weights[index] == 0.0) {
            columns[index] = (0, heaviest as u32);
        }
        Self { columns: columns.into() }
    }

    /// Maps one uniformly random word to an index. Panics if the table is empty.
    pub(crate) fn sample(&self, random: u64) -> usize {
        let column = (((random >> 32) * self.columns.len() as u64) >> 32) as usize;
        let (keep, other) = self.columns[column];
        // At most: a column with no chance of its own is never kept by a coin of zero, and a full one always is.
        let coin = random as u32;
        if coin < keep || keep == u32::MAX { column } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(weights: &[f64], draws: u64) -> Vec<f64> {
        let table = AliasTable::new(weights.iter().map(|&weight| Weight::new(weight).unwrap()));
        let mut counts = vec![0_u64; weights.len()];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..draws {
            counts[table.sample(random.u64(..))] += 1;
        }
        counts.into_iter().map(|count| count as f64 / draws as f64).collect()
    }

    proptest! {
        #[test]
        fn shares_follow_weights(weights in proptest::collection::vec(0.0..100.0_f64, 1..40)) {
            let total: f64 = weights.iter().sum();
            prop_assume!(total > 0.0);

            for (share, weight) in shares(&weights, 40_000).into_iter().zip(&weights) {
                prop_assert!((share - weight / total).abs() < 0.015, "{share} for {weight} of {total}");
            }
        }
    }

    #[test]
    fn a_weight_of_zero_is_never_drawn_beside_others() {
        assert_eq!(shares(&[0.0, 1.0, 0.0], 100_000), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn zeros_alone_are_drawn_evenly() {
        for share in shares(&[0.0, 0.0], 100_000) {
            assert!((share - 0.5).abs() < 0.01);
        }
    }

    #[test]
    fn huge_weights_do_not_overflow() {
        for share in shares(&[f64::MAX, f64::MAX], 100_000) {
            assert!((share - 0.5).abs() < 0.01);
        }
    }
}
