//! Floating-point numbers updated by many threads.

use std::sync::atomic::{AtomicU64, Ordering};

/// An `f64` kept as its bits.
#[derive(Debug, Default)]
pub(super) struct AtomicF64(AtomicU64);

impl AtomicF64 {
    pub(super) fn new(value: f64) -> Self {
        Self(AtomicU64::new(value.to_bits()))
    }

    pub(super) fn get(&self) -> f64 {
        // All orderings here are relaxed: each number stands alone, and readers bear one that is a moment
        // older.
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds without a lock; repeats only when another thread changed the number in between.
    pub(super) fn add(&self, value: f64) {
        let sum = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // The closure never declines, so there is no failure to handle.
        let _previous = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
    }

    /// Lowers the number to `value`. Both must be zero or above: only there do bits sort like the numbers.
    pub(super) fn lower(&self, value: f64) {
        self.0.fetch_min(value.to_bits(), Ordering::Relaxed);
    }

    /// Raises the number to `value`, under the same condition.
    pub(super) fn raise(&self, value: f64) {
        self.0.fetch_max(value.to_bits(), Ordering::Relaxed);
    }
}

/// What a histogram records for `value`: nothing for values that are not finite, zero for those below zero.
///
/// A sum must not go down, or a scraper takes it for a restart.
pub(super) fn recordable(value: f64) -> Option<f64> {
    // The comparison also turns -0.0, whose bits sort last, into 0.0.
    value.is_finite().then_some(if value > 0.0 { value } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_and_highest_stay() {
        let (low, high) = (AtomicF64::new(f64::INFINITY), AtomicF64::default());

        for value in [2.5, 0.25, 1e12, 3.0] {
            low.lower(value);
            high.raise(value);
        }

        assert_eq!((low.get(), high.get()), (0.25, 1e12));
    }

    #[test]
    fn odd_values_are_made_recordable() {
        assert_eq!(recordable(f64::NAN), None);
        assert_eq!(recordable(f64::INFINITY), None);
        assert_eq!(recordable(-3.0), Some(0.0));
        assert_eq!(recordable(-0.0).map(f64::to_bits), Some(0));
    }
}
