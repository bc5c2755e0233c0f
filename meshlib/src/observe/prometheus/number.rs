//! Handles of plain numbers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A number that only goes up. Clones share the number.
///
/// The default is a counter that belongs to no registry, for callers that do not measure.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one. One atomic operation.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`. Wraps at 2^64, which scrapers take for a restart.
    pub fn add(&self, n: u64) {
        // Relaxed, as everywhere in this file: the numbers order nothing else.
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number as it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down. Clones share the number.
///
/// It is signed: subtracting more than was added shows as a number below zero, not as a huge one. Prefer
/// [`Gauge::track`], which cannot forget to subtract. The default belongs to no registry.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Replaces the number.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds `n`.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Subtracts `n`.
    pub fn sub(&self, n: i64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The number as it is.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds one until the guard is dropped.
    ///
    /// ```
    /// let active = meshlib::observe::prometheus::Gauge::default();
    /// let guard = active.track();
    /// assert_eq!(active.get(), 1);
    /// drop(guard);
    /// assert_eq!(active.get(), 0);
    /// ```
    pub fn track(&self) -> Tracked {
        self.add(1);
        Tracked(self.clone())
    }
}

/// One unit of a [`Gauge`], given back when dropped.
#[derive(Debug)]
#[must_use = "dropping it at once subtracts at once"]
pub struct Tracked(Gauge);

impl Drop for Tracked {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

/// A value computed when rendered.
#[derive(Clone)]
pub(super) struct ValueFn(Arc<dyn Fn() -> f64 + Send + Sync>);

impl ValueFn {
    pub(super) fn new(value: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(value))
    }

    pub(super) fn call(&self) -> f64 {
        (self.0)()
    }
}

impl fmt::Debug for ValueFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ValueFn")
    }
}
