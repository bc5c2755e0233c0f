//! Metrics in the Prometheus text format.
//!
//! A [`Registry`] belongs to whoever made it: there is no global one. It hands out handles that are updated
//! with single atomic operations and renders every series on demand as Prometheus text, OpenMetrics or
//! JSON. Names are printed exactly as registered, so that programs with dashboards of their own keep them:
//! nothing is prefixed, renamed or given a suffix, and `:` is allowed.
//!
//! Start with [`Registry::counter`] and [`Registry::render`]. A series goes away only through
//! [`Registry::forget`] or [`Registry::remove`]; handles that are still held keep working, unseen.
//!
//! ```
//! use meshlib::observe::prometheus::{Format, Registry};
//!
//! let registry = Registry::new();
//! let accepts = registry.counter("l5d:srv:accepts", "Connections accepted.", &[("rt", "web")]);
//! let active = registry.gauge("l5d:srv:active", "Connections open.", &[("rt", "web")]);
//!
//! accepts.inc();
//! let _open = active.track();
//!
//! let text = registry.render(Format::Text004);
//! assert!(text.contains("l5d:srv:accepts{rt=\"web\"} 1\n"));
//! assert!(text.contains("l5d:srv:active{rt=\"web\"} 1\n"));
//! ```
//!
//! # Cost
//!
//! Registering takes a lock and is meant for once per name or endpoint. Updating a [`Counter`] or [`Gauge`]
//! is one atomic addition; a [`Histogram`] or [`Distribution`] adds a clock reading and a handful more.
//! Rendering copies the list of series under the lock and formats outside it, so a function given to
//! [`Registry::gauge_fn`] may use the registry.
//!
//! # Mistakes
//!
//! A name that is not valid, a name registered as two kinds, or bounds out of order are mistakes of the
//! program: they panic where debug assertions are on, and otherwise are logged and answered with a handle
//! that works and is not rendered. The same handle, without the panic, comes back when
//! [`RegistryOptions::max_series`] is reached.

mod atomic;
mod distribution;
mod families;
mod format;
mod histogram;
mod json;
mod labels;
mod number;
mod process;
mod sample;
mod text;
mod window;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

pub use self::distribution::Distribution;
pub use self::format::{Format, content_type};
pub use self::histogram::{BYTES, Histogram, MICROSECONDS, MILLISECONDS, SECONDS};
pub use self::labels::{Labels, is_valid_label, is_valid_name};
pub use self::number::{Counter, Gauge, Tracked};
pub use self::process::{build_info, process_metrics};

use self::families::{Families, Kind, Series};
use self::labels::MetricError;
use self::number::ValueFn;

/// A set of metrics. Clones share the same set.
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Inner>,
}

/// Limits of a [`Registry`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// How long an observation counts for minima, maxima and percentiles: at least this long and less than
    /// twice as long. Default 60 s; from 1 s to 1 h, other values are taken as the nearer end.
    pub window: Duration,
    /// How many series may exist at once. Further ones get handles that are not rendered. Default 100,000,
    /// which is about 10 MB of text and a sign of a label without a bound.
    pub max_series: usize,
}

#[derive(Default)]
struct Inner {
    options: RegistryOptions,
    families: Mutex<Families>,
    /// The name that is rendered first.
    first: OnceLock<Arc<str>>,
    rejected: AtomicU64,
}

impl RegistryOptions {
    /// Sets [`window`](Self::window).
    #[must_use]
    pub fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets [`max_series`](Self::max_series).
    #[must_use]
    pub fn with_max_series(mut self, max_series: usize) -> Self {
        self.max_series = max_series;
        self
    }
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self { window: Duration::from_secs(60), max_series: 100_000 }
    }
}

impl Registry {
    /// An empty registry with default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty registry with the given options.
    pub fn with_options(options: RegistryOptions) -> Self {
        let window = options.window.clamp(Duration::from_secs(1), Duration::from_secs(3600));
        let options = options.with_window(window);
        Self { inner: Arc::new(Inner { options, ..Inner::default() }) }
    }

    /// The counter of this name and these labels, made with value 0 if it is not there yet.
    ///
    /// The help text of the first registration of a name stays. The order of labels does not matter.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        let fresh = Counter::default();
        match self.register(Kind::Counter, name, help, labels, Series::Counter(fresh.clone())) {
            Some(Series::Counter(counter)) => counter,
            _ => fresh,
        }
    }

    /// A counter whose value is read by calling `value` at each rendering.
    ///
    /// Rules as for [`Registry::gauge_fn`]; the function must not go down except when its source starts
    /// again.
    pub fn counter_fn(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.register(Kind::Counter, name, help, labels, Series::Function(ValueFn::new(value)));
    }

    /// The gauge of this name and these labels, made with value 0 if it is not there yet.
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        let fresh = Gauge::default();
        match self.register(Kind::Gauge, name, help, labels, Series::Gauge(fresh.clone())) {
            Some(Series::Gauge(gauge)) => gauge,
            _ => fresh,
        }
    }

    /// A gauge whose value is read by calling `value` at each rendering.
    ///
    /// `NaN` means that there is no value: the series is left out of that rendering. Registering the same
    /// series again replaces the function. The function should be quick, and should hold what it reads
    /// weakly if that in turn holds this registry.
    pub fn gauge_fn(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.register(Kind::Gauge, name, help, labels, Series::Function(ValueFn::new(value)));
    }

    /// A gauge that tells how many series the registry holds, itself included. It is rendered before all others.
    ///
    /// A histogram or distribution is one series here, however many lines it prints.
    pub fn series_gauge(&self, name: &str, help: &str) {
        // Weak, because the registry holds the function.
        let inner = Arc::downgrade(&self.inner);
        self.inner.first.get_or_init(|| name.into());
        self.gauge_fn(name, help, &[], move || {
            inner.upgrade().map_or(f64::NAN, |inner| inner.families().len() as f64)
        });
    }

    /// The histogram of this name and these labels, made empty if it is not there yet.
    ///
    /// `bounds` are the inclusive upper ends of the buckets, finite and ascending, the same for all series
    /// of a name; a last bucket without an end is always there. [`MILLISECONDS`] and its neighbours fit
    /// most uses. The name also takes `name_bucket`, `name_sum`, `name_count`, `name_min` and `name_max`.
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        bounds: &'static [f64],
    ) -> Histogram {
        let fresh = Histogram::new(bounds, self.inner.options.window);
        match self.register(Kind::Histogram(bounds), name, help, labels, Series::Histogram(fresh.clone())) {
            Some(Series::Histogram(histogram)) => histogram,
            _ => fresh,
        }
    }

    /// The distribution of this name and these labels, made empty if it is not there yet.
    ///
    /// It prints one line per statistic, `name{stat="p99", ..}`: see [`Distribution`].
    pub fn stats(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Distribution {
        let fresh = Distribution::new(self.inner.options.window);
        match self.register(Kind::Distribution, name, help, labels, Series::Distribution(fresh.clone())) {
            Some(Series::Distribution(distribution)) => distribution,
            _ => fresh,
        }
    }

    /// Removes one series and tells whether it was there.
    pub fn remove(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        let Ok(labels) = Labels::new(labels) else {
            return false;
        };
        self.forget(|other, other_labels| other == name && *other_labels == labels) > 0
    }

    /// Removes every series for which `gone` answers true and returns how many those were.
    ///
    /// Meant for endpoints and names that have left. Handles still held keep working but are not rendered;
    /// a later registration starts from zero. O(series); `gone` runs under the registry's lock and must not
    /// use the registry.
    ///
    /// ```
    /// # let registry = meshlib::observe::prometheus::Registry::new();
    /// # registry.gauge("pending", "", &[("dst", "/svc/web")]);
    /// let forgotten = registry.forget(|_name, labels| labels.get("dst") == Some("/svc/web"));
    /// assert_eq!(forgotten, 1);
    /// ```
    pub fn forget(&self, gone: impl FnMut(&str, &Labels) -> bool) -> usize {
        let removed = self.inner.families().forget(gone);
        // Functions go only here, after the lock: what they own may use the registry as it is dropped.
        removed.len()
    }

    /// The sum of the counters and gauges of a name whose labels pass; 0 if there are none. O(series of the name).
    ///
    /// For what a program shows of itself beside its metrics: the numbers are the same then.
    ///
    /// ```
    /// # let registry = meshlib::observe::prometheus::Registry::new();
    /// registry.counter("requests_total", "", &[("code", "200")]).add(3);
    /// registry.counter("requests_total", "", &[("code", "503")]).add(1);
    ///
    /// assert_eq!(registry.sum("requests_total", |_| true), 4.0);
    /// assert_eq!(registry.sum("requests_total", |labels| labels.get("code") == Some("503")), 1.0);
    /// ```
    pub fn sum(&self, name: &str, passes: impl Fn(&Labels) -> bool) -> f64 {
        let series = self.inner.families().of(name, passes);
        // Functions are called after the lock.
        let values = series.iter().map(|series| match series {
            Series::Counter(counter) => counter.get() as f64,
            Series::Gauge(gauge) => gauge.get() as f64,
            Series::Function(function) => function.call(),
            Series::Histogram(_) | Series::Distribution(_) => 0.0,
        });
        values.filter(|value| value.is_finite()).sum()
    }

    /// How many observations of the histograms of a name whose labels pass lie at or below each bound, the last of which is
    /// infinite; nothing if there are none. O(series of the name).
    pub fn buckets(&self, name: &str, passes: impl Fn(&Labels) -> bool) -> Vec<(f64, u64)> {
        let series = self.inner.families().of(name, passes);
        let mut all: Vec<(f64, u64)> = Vec::new();
        for series in &series {
            let Series::Histogram(histogram) = series else { continue };
            let read = histogram.read().cumulative;
            if all.is_empty() {
                all = read;
            } else {
                // Histograms of one name have the same bounds.
                all.iter_mut().zip(read).for_each(|((_, all), (_, more))| *all += more);
            }
        }
        all
    }

    /// How many series are registered.
    pub fn len(&self) -> usize {
        self.inner.families().len()
    }

    /// Whether no series is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many registrations were answered with a handle that is not rendered.
    pub fn rejected(&self) -> u64 {
        self.inner.rejected.load(Ordering::Relaxed)
    }

    /// All series as text.
    ///
    /// [`Format`] tells the shapes. Families and the series in them come in the order of their names and
    /// labels, so two renderings of the same state are equal.
    pub fn render(&self, format: Format) -> String {
        // Bound first, so that the lock is released before functions are called.
        let families = self.inner.families().snapshot();
        text::render(&families, format, self.inner.first.get())
    }

    /// All series as one flat JSON object from `name{key="value"}` to number.
    ///
    /// Keys are those of [`Format::Text004`]. What JSON has no number for is `null`.
    pub fn render_json(&self) -> String {
        let families = self.inner.families().snapshot();
        json::render(&families)
    }

    fn register(
        &self,
        kind: Kind,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        fresh: Series,
    ) -> Option<Series> {
        match self.inner.try_register(kind, name, help, labels, fresh) {
            Ok(series) => Some(series),
            Err(error) => {
                debug_assert!(!error.is_mistake(), "{error}");
                // Once for each power of two: a full registry is asked again for every new endpoint.
                if self.inner.rejected.fetch_add(1, Ordering::Relaxed).wrapping_add(1).is_power_of_two() {
                    tracing::error!(%error, "metric not registered");
                }
                None
            }
        }
    }
}

impl Inner {
    // The map is whole between any two statements, so a panic elsewhere under the lock harms nothing.
    fn families(&self) -> MutexGuard<'_, Families> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_register(
        &self,
        kind: Kind,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        fresh: Series,
    ) -> Result<Series, MetricError> {
        let labels = Labels::new(labels)?;
        let max = self.options.max_series;
        let registered = self.families().register((name, kind), help, labels, &fresh, max)?;
        // The lock was released at the end of that statement.
        drop(registered.replaced);
        Ok(registered.series)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("options", &self.inner.options)
            .field("series", &self.len())
            .field("rejected", &self.rejected())
            .finish()
    }
}

#[cfg(test)]
mod tests;
