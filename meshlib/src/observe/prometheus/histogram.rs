//! Histograms with fixed buckets.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::atomic::{AtomicF64, recordable};
use super::window::{Slot, Window};

/// Bounds for durations counted in milliseconds, 0.5 ms to 60 s.
pub const MILLISECONDS: &[f64] =
    &[0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 10e3, 20e3, 60e3];

/// Bounds for durations counted in microseconds, 50 µs to 60 s.
pub const MICROSECONDS: &[f64] = &[
    50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 10e3, 20e3, 50e3, 100e3, 200e3, 500e3, 1e6, 2e6, 5e6, 10e6,
    20e6, 60e6,
];

/// Bounds for durations counted in seconds, 0.5 ms to 60 s.
pub const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0];

/// Bounds for sizes counted in bytes, 64 B to 16 GiB in steps of four.
pub const BYTES: &[f64] = &[
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
    17_179_869_184.0,
];

/// Counts observations by size. Clones share the counts.
///
/// Buckets, sum and count cover the whole life of the series; the smallest and largest value cover the
/// [window](super::RegistryOptions::window) and are absent while nothing was observed in it. An empty
/// histogram prints `name_count 0` and nothing else.
#[derive(Clone)]
pub struct Histogram(Arc<Shared>);

struct Shared {
    bounds: &'static [f64],
    /// Not cumulative; one more than bounds.
    buckets: Box<[AtomicU64]>,
    sum: AtomicF64,
    recent: Window<Extremes>,
}

/// The smallest and largest value of one epoch; the smallest is infinite while there is none.
#[derive(Debug)]
struct Extremes {
    min: AtomicF64,
    max: AtomicF64,
}

/// One consistent reading.
#[derive(Debug)]
pub(super) struct Reading {
    /// Upper bound, the last one infinite, and the number of observations up to it.
    pub(super) cumulative: Vec<(f64, u64)>,
    pub(super) sum: f64,
    pub(super) count: u64,
    pub(super) extremes: Option<(f64, f64)>,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64], window: Duration) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Shared { bounds, buckets, sum: AtomicF64::default(), recent: Window::new(window) }))
    }

    /// Records a value: O(log buckets), no allocation, no lock.
    ///
    /// A value below zero counts as zero, one that is not finite is ignored.
    pub fn observe(&self, value: f64) {
        let Some(value) = recordable(value) else { return };
        // A bound includes its own value.
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.sum.add(value);
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.recent.current().observe(value);
    }

    /// Records a whole number; exact up to 2^53.
    pub fn observe_u64(&self, value: u64) {
        self.observe(value as f64);
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.0.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The sum of the recorded values.
    pub fn sum(&self) -> f64 {
        self.0.sum.get()
    }

    /// Reads each bucket once, so that the last bucket and the count always agree.
    pub(super) fn read(&self) -> Reading {
        let mut count = 0;
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let cumulative = bounds
            .zip(&self.0.buckets)
            .map(|(bound, bucket)| {
                count += bucket.load(Ordering::Relaxed);
                (bound, count)
            })
            .collect();
        let [before, current] = self.0.recent.recent();
        let (min, max) = (before.min.get().min(current.min.get()), before.max.get().max(current.max.get()));
        // A maximum below the minimum is a slot caught between two writes.
        let extremes = min.is_finite().then_some((min, max.max(min)));
        Reading { cumulative, sum: self.sum(), count, extremes }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").field("count", &self.count()).field("sum", &self.sum()).finish()
    }
}

impl Extremes {
    fn observe(&self, value: f64) {
        self.max.raise(value);
        self.min.lower(value);
    }
}

impl Default for Extremes {
    fn default() -> Self {
        Self { min: AtomicF64::new(f64::INFINITY), max: AtomicF64::default() }
    }
}

impl Slot for Extremes {
    fn clear(&self) {
        self.min.set(f64::INFINITY);
        self.max.set(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn bounds_are_inclusive_and_counts_cumulative() {
        let histogram = Histogram::new(&[1.0, 10.0], WINDOW);

        for value in [0.5, 1.0, 1.5, 10.0, 11.0] {
            histogram.observe(value);
        }

        let reading = histogram.read();
        assert_eq!(reading.cumulative, [(1.0, 2), (10.0, 4), (f64::INFINITY, 5)]);
        assert_eq!((reading.count, reading.sum), (5, 24.0));
        assert_eq!(reading.extremes, Some((0.5, 11.0)));
    }

    #[test]
    fn values_without_meaning_change_nothing() {
        let histogram = Histogram::new(MILLISECONDS, WINDOW);

        histogram.observe(f64::NAN);
        histogram.observe(f64::INFINITY);

        assert_eq!(histogram.count(), 0);
        assert_eq!(histogram.read().extremes, None);
    }

    #[tokio::test(start_paused = true)]
    async fn extremes_end_with_the_window_and_totals_stay() {
        let histogram = Histogram::new(MILLISECONDS, WINDOW);
        histogram.observe_u64(900);

        tokio::time::advance(WINDOW).await;
        histogram.observe_u64(3);
        assert_eq!(histogram.read().extremes, Some((3.0, 900.0)));

        tokio::time::advance(WINDOW).await;
        assert_eq!(histogram.read().extremes, Some((3.0, 3.0)));
        tokio::time::advance(WINDOW).await;
        assert_eq!(histogram.read().extremes, None);
        assert_eq!((histogram.count(), histogram.sum()), (2, 903.0));
    }
}
