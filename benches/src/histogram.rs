//! Latencies counted in buckets whose width grows with the value.
//!
//! Each power of two is cut into 128 buckets, so a percentile is off by less than one percent, and recording
//! a value costs one addition.

use tokio::time::Duration;

/// Counts durations in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum: u128,
}

impl Histogram {
    /// An empty histogram that can hold any `u64` of nanoseconds.
    pub fn new() -> Self {
        Self { counts: vec![0; index(u64::MAX) + 1], total: 0, sum: 0 }
    }

    /// Adds one duration.
    pub fn record(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.counts[index(nanos)] += 1;
        self.total += 1;
        self.sum += u128::from(nanos);
    }

    /// The smallest recorded duration, in nanoseconds, that at least the share `q` of all does not exceed.
    /// Zero if nothing was recorded.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = ((q * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(i);
            }
        }
        0.0
    }

    /// The mean in nanoseconds, exact; zero if nothing was recorded.
    pub fn mean(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.sum as f64 / self.total as f64 }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Values below 128 have a bucket each; above, the seven bits after the leading one choose it.
fn index(value: u64) -> usize {
    let top = value.max(1).ilog2();
    if top < BITS {
        return value as usize;
    }
    let shift = top - BITS;
    ((shift as usize) << BITS) + (value >> shift) as usize
}

/// The middle of a bucket.
fn middle(index: usize) -> f64 {
    let per_octave = 1 << BITS;
    if index < 2 * per_octave {
        return index as f64;
    }
    let shift = index / per_octave - 1;
    let low = (index % per_octave + per_octave) as f64 * 2f64.powi(shift as i32);
    low + 2f64.powi(shift as i32) / 2.0
}

/// Buckets per power of two, as a power of two.
const BITS: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_cover_everything() {
        let mut last = index(0);
        for value in 1..100_000 {
            let next = index(value);

            assert!(next == last || next == last + 1, "{value}: {last} then {next}");
            last = next;
        }
        assert_eq!(index(u64::MAX), Histogram::new().counts.len() - 1);
    }

    #[test]
    fn middle_is_within_one_percent() {
        for value in [1_u64, 127, 128, 255, 256, 1_000, 123_456, 7_000_000, 1 << 40] {
            let found = middle(index(value));

            assert!((found - value as f64).abs() <= value as f64 / 100.0, "{value} became {found}");
        }
    }

    #[test]
    fn quantiles_of_a_known_series() {
        let mut histogram = Histogram::new();
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }

        for (q, expected) in [(0.0, 1e3), (0.5, 500e3), (0.99, 990e3), (0.999, 999e3), (1.0, 1000e3)] {
            let found = histogram.quantile(q);
            assert!((found / expected - 1.0).abs() < 0.01, "{q}: {found}");
        }
        assert_eq!(histogram.total, 1000);
        assert!((histogram.mean() - 500_500.0).abs() < 1.0);
    }

    #[test]
    fn empty_is_zero() {
        assert_eq!(Histogram::new().quantile(0.5), 0.0);
        assert_eq!(Histogram::new().mean(), 0.0);
    }
}
