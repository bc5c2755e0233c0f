//! Percentiles in bounded memory.
//!
//! Values are counted in buckets whose width grows with the value: 32 to each doubling. That is the idea of
//! [HdrHistogram](http://hdrhistogram.org/), taken here straight from the bits of a floating-point number:
//! the exponent and the first five bits of the fraction are the number of the bucket.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::atomic::{AtomicF64, recordable};
use super::window::{Slot, Window};

/// Mean, deviation and percentiles of observations. Clones share the counts.
///
/// The count covers the whole life of the series. All other statistics cover the
/// [window](super::RegistryOptions::window) and are absent while nothing was observed in it, so an idle
/// series prints its count alone.
///
/// Mean, minimum and maximum are exact. A percentile is within 3.2 % of a value that was observed (within
/// 1.6 % from 64 up; whole numbers below 64 are exact) for values from one millionth to 1.7e13; beyond
/// those it is the minimum or maximum. Memory is at most 25 KiB a series, taken when values arrive.
#[derive(Clone)]
pub struct Distribution(Arc<Shared>);

struct Shared {
    count: AtomicU64,
    recent: Window<Epoch>,
}

struct Epoch {
    /// Allocated by the first value, so that names without traffic cost nothing.
    buckets: OnceLock<Box<[AtomicU32]>>,
    sum: AtomicF64,
    squares: AtomicF64,
    min: AtomicF64,
    max: AtomicF64,
}

/// Statistics of the recent past.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    pub(super) mean: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) stddev: f64,
    /// In the order of [`PERCENTILES`].
    pub(super) percentiles: [f64; PERCENTILES.len()],
}

/// Names of the percentiles that are printed, and their parts of ten thousand.
pub(super) const PERCENTILES: [(&str, u64); 6] =
    [("p50", 5000), ("p90", 9000), ("p95", 9500), ("p99", 9900), ("p999", 9990), ("p9999", 9999)];

impl Distribution {
    pub(super) fn new(window: Duration) -> Self {
        Self(Arc::new(Shared { count: AtomicU64::new(0), recent: Window::new(window) }))
    }

    /// Records a value: O(1), no lock; the first one of a window may allocate.
    ///
    /// A value below zero counts as zero, one that is not finite is ignored.
    pub fn observe(&self, value: f64) {
        let Some(value) = recordable(value) else { return };
        self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.recent.current().observe(value);
    }

    /// Records a whole number.
    pub fn observe_u64(&self, value: u64) {
        self.observe(value as f64);
    }

    /// How many values were recorded since the series was made.
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// The value below which `percent` of the recent values lie, to a hundredth of a percent, or `None`
    /// without any.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        // A cast from a float saturates, and takes NaN as zero.
        let [value] = self.percentiles([(percent * 100.0).round() as u64])?;
        Some(value)
    }

    pub(super) fn summary(&self) -> Option<Summary> {
        let percentiles = self.percentiles(PERCENTILES.map(|(_, parts)| parts))?;
        let recent = self.0.recent.recent();
        let (min, max) = extremes(recent)?;
        let count = count(recent) as f64;
        let mean = recent.iter().map(|epoch| epoch.sum.get()).sum::<f64>() / count;
        let squares = recent.iter().map(|epoch| epoch.squares.get()).sum::<f64>() / count;
        // Rounding may leave a little less than zero where all values are equal.
        let stddev = (squares - mean * mean).max(0.0).sqrt();
        Some(Summary { mean: mean.clamp(min, max), min, max, stddev, percentiles })
    }

    /// Values at ascending ranks given in parts of ten thousand. Two passes over the buckets, no copy of
    /// them.
    fn percentiles<const N: usize>(&self, parts: [u64; N]) -> Option<[f64; N]> {
        let recent = self.0.recent.recent();
        let (min, max) = extremes(recent)?;
        let total = count(recent);
        let (mut seen, mut bucket) = (0, 0);
        let percentiles = parts.map(|parts| {
            // The smallest value that so many are not above; in whole numbers, as 0.999 has no exact
            // double.
            let rank = (total * parts.min(10_000)).div_ceil(10_000).max(1);
            while seen < rank && bucket < BUCKETS {
                seen += recent.iter().map(|epoch| epoch.bucket(bucket)).sum::<u64>();
                bucket += 1;
            }
            match bucket {
                BUCKETS => max,
                _ => representative(bucket.saturating_sub(1)).clamp(min, max),
            }
        });
        Some(percentiles)
    }
}

impl fmt::Debug for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distribution").field("count", &self.count()).finish()
    }
}

impl Epoch {
    fn observe(&self, value: f64) {
        let buckets = self.buckets.get_or_init(|| (0..BUCKETS).map(|_| AtomicU32::new(0)).collect());
        self.sum.add(value);
        self.squares.add(value * value);
        self.max.raise(value);
        self.min.lower(value);
        // Release pairs with the acquire in `bucket`: a reader that counts the value has its extremes as
        // well. A bucket wraps after four thousand million values in one window, an hour of a million a
        // second.
        buckets[index(value)].fetch_add(1, Ordering::Release);
    }

    fn bucket(&self, index: usize) -> u64 {
        self.buckets.get().map_or(0, |buckets| buckets[index].load(Ordering::Acquire).into())
    }
}

impl Default for Epoch {
    fn default() -> Self {
        let [sum, squares, max] = [0.0; 3].map(AtomicF64::new);
        Self { buckets: OnceLock::new(), sum, squares, min: AtomicF64::new(f64::INFINITY), max }
    }
}

impl Slot for Epoch {
    fn clear(&self) {
        for bucket in self.buckets.get().into_iter().flatten() {
            bucket.store(0, Ordering::Relaxed);
        }
        self.min.set(f64::INFINITY);
        for number in [&self.sum, &self.squares, &self.max] {
            number.set(0.0);
        }
    }
}

fn count(recent: [&Epoch; 2]) -> u64 {
    recent.iter().map(|epoch| (0..BUCKETS).map(|index| epoch.bucket(index)).sum::<u64>()).sum()
}

/// `None` without values, also if a slot is caught between two writes.
fn extremes(recent: [&Epoch; 2]) -> Option<(f64, f64)> {
    let min = recent[0].min.get().min(recent[1].min.get());
    let max = recent[0].max.get().max(recent[1].max.get());
    (min <= max && count(recent) > 0).then_some((min, max))
}

/// The bucket of a value that is zero or above: the first holds everything below [`LOWEST`], the last
/// everything from the end of the range.
fn index(value: f64) -> usize {
    if value < LOWEST {
        return 0;
    }
    let step = (value.to_bits() >> FRACTION_BITS) - (LOWEST.to_bits() >> FRACTION_BITS);
    usize::try_from(step).unwrap_or(usize::MAX).saturating_add(1).min(BUCKETS - 1)
}

/// What a bucket stands for: its middle, or its lower end while buckets are no wider than one, which keeps
/// whole numbers whole.
fn representative(bucket: usize) -> f64 {
    let Some(step) = bucket.checked_sub(1) else {
        return 0.0;
    };
    let end =
        |step: usize| f64::from_bits(((LOWEST.to_bits() >> FRACTION_BITS) + step as u64) << FRACTION_BITS);
    let (low, high) = (end(step), end(step + 1));
    if high - low <= 1.0 { low } else { low.midpoint(high) }
}

/// 2^-20, about one millionth: a microsecond counted in seconds.
const LOWEST: f64 = 1.0 / 1_048_576.0;
/// Doublings covered from [`LOWEST`]: up to 2^44, which is 16 TiB in bytes and half a year in microseconds.
const DOUBLINGS: usize = 64;
/// Bits of a fraction that do not choose the bucket: 52 but five.
const FRACTION_BITS: u32 = 47;
const BUCKETS: usize = DOUBLINGS * 32 + 2;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn exact(sorted: &[f64], parts: u64) -> f64 {
        let rank = (sorted.len() as u64 * parts).div_ceil(10_000).max(1);
        sorted[rank as usize - 1]
    }

    proptest! {
        #[test]
        fn percentiles_are_near_the_true_ones(
            mut values in vec(prop_oneof![0.000_001..1.0, 1.0..1e4, 1.0..1.7e13], 1..400)
        ) {
            let distribution = Distribution::new(WINDOW);
            for value in &values {
                distribution.observe(*value);
            }
            values.sort_by(f64::total_cmp);

            let summary = distribution.summary().unwrap();

            for ((name, parts), got) in PERCENTILES.iter().zip(summary.percentiles) {
                let want = exact(&values, *parts);
                prop_assert!((got - want).abs() <= want * 0.032, "{name}: {got} for {want}");
            }
            prop_assert!(summary.percentiles.is_sorted());
            prop_assert_eq!(summary.min, values[0]);
            prop_assert_eq!(summary.max, values[values.len() - 1]);
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            prop_assert!((summary.mean - mean).abs() <= mean * 1e-9);
        }

        #[test]
        fn whole_numbers_below_64_are_exact(mut values in vec(0_u64..64, 1..100)) {
            let distribution = Distribution::new(WINDOW);
            for value in &values {
                distribution.observe_u64(*value);
            }
            values.sort_unstable();
            let floats: Vec<_> = values.iter().map(|value| *value as f64).collect();

            let got = distribution.percentile(90.0);

            prop_assert_eq!(got, Some(exact(&floats, 9000)));
        }

        #[test]
        fn any_float_has_a_bucket(value: f64) {
            if let Some(value) = recordable(value) {
                prop_assert!(index(value) < BUCKETS);
            }
        }
    }

    #[test]
    fn buckets_cover_the_range_without_gaps() {
        assert_eq!(index(0.0), 0);
        assert_eq!(index(LOWEST), 1);
        assert_eq!(index(2_f64.powi(44) * 0.999_999), BUCKETS - 2);
        assert_eq!(index(2_f64.powi(44)), BUCKETS - 1);
        for bucket in 1..BUCKETS - 1 {
            assert_eq!(index(representative(bucket)), bucket);
        }
    }

    #[test]
    fn memory_does_not_grow_with_observations() {
        let distribution = Distribution::new(WINDOW);

        for value in 0..100_000_u64 {
            distribution.observe_u64(value * value);
        }

        let slots = 3 * (size_of::<Epoch>() + BUCKETS * size_of::<AtomicU32>());
        assert!(slots + size_of::<Shared>() <= 25 * 1024, "{slots}");
        let lengths = distribution.0.recent.recent().map(|epoch| epoch.buckets.get().map_or(0, |b| b.len()));
        // Nothing was observed in the epoch before, so nothing is allocated for it.
        assert_eq!(lengths, [0, BUCKETS]);
    }

    #[test]
    fn deviation_of_known_values() {
        let distribution = Distribution::new(WINDOW);

        for value in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            distribution.observe(value);
        }

        let summary = distribution.summary().unwrap();
        assert_eq!((summary.mean, summary.stddev), (5.0, 2.0));
    }

    #[test]
    fn beyond_the_range_extremes_answer() {
        let distribution = Distribution::new(WINDOW);

        distribution.observe(1e-9);
        distribution.observe(1e300);

        assert_eq!(distribution.percentile(0.0), Some(1e-9));
        assert_eq!(distribution.percentile(100.0), Some(1e300));
        assert_eq!(distribution.percentile(f64::NAN), Some(1e-9));
    }

    #[tokio::test(start_paused = true)]
    async fn percentiles_forget_and_the_count_does_not() {
        let distribution = Distribution::new(WINDOW);
        distribution.observe_u64(10);

        tokio::time::advance(WINDOW * 2).await;

        assert!(distribution.summary().is_none());
        assert_eq!((distribution.percentile(50.0), distribution.count()), (None, 1));
    }
}
