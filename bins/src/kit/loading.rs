//! How the configuration was loaded: what metrics, pages and the service manager say about it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::SystemTime;

use meshlib::observe::prometheus::Gauge;
use meshlib::observe::prometheus::Registry;

use crate::kit::manager;
use crate::kit::state::Reload;
use crate::kit::state::unix_ms;

/// Keeps what came of the last attempt to load the configuration. A clone is the same.
#[derive(Clone, Debug)]
pub struct Loading(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    successful: Gauge,
    success_at: Gauge,
    state: Mutex<Reload>,
}

impl Loading {
    /// After the first successful one. `source` is what was loaded: a file, or nothing for arguments.
    pub fn new(registry: &Registry, source: Option<String>) -> Self {
        let successful = registry.gauge(
            "config_last_reload_successful",
            "Whether the configuration was good when it was last loaded.",
            &[],
        );
        let success_at = registry.gauge(
            "config_last_reload_success_timestamp_seconds",
            "When a good configuration was last loaded.",
            &[],
        );
        let loading = Self(Arc::new(Inner {
            successful,
            success_at,
            state: Mutex::new(Reload { source, ..Reload::default() }),
        }));
        loading.good();
        loading
    }

    /// What came of the last attempt.
    pub fn state(&self) -> Reload {
        self.lock().clone()
    }

    /// Begins an attempt, of which the service manager is told.
    pub fn begin(&self) {
        manager::reloading();
    }

    /// It was successful, and this is served now.
    pub fn succeeded(&self, serving: &str) {
        self.good();
        manager::ready(serving);
    }

    /// There was nothing to load, and this is served as before.
    pub fn unchanged(&self, serving: &str) {
        manager::ready(serving);
    }

    /// It was not, and nothing has changed: this is served as before.
    pub fn failed(&self, error: &str, serving: &str) {
        self.0.successful.set(0);
        let mut state = self.lock();
        (state.successful, state.error) = (false, Some(error.to_owned()));
        state.failed_ms = unix_ms(SystemTime::now());
        drop(state);
        let first = error.lines().next().unwrap_or_default();
        manager::ready(&format!("{serving}; not reloaded: {first}"));
    }

    fn good(&self) {
        let now = unix_ms(SystemTime::now());
        self.0.successful.set(1);
        self.0.success_at.set(i64::try_from(now / 1000).unwrap_or(i64::MAX));
        let mut state = self.lock();
        (state.successful, state.success_ms) = (true, now);
        (state.error, state.failed_ms) = (None, 0);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reload> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
