//! Connections that wait for the next request.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use tokio::time;
use tokio::time::Instant;

/// How connections are kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolOptions {
    /// Most idle connections per endpoint. Default 32.
    pub max_idle: usize,
    /// How long a connection may be idle. Default 30 s: less than what servers usually allow, so that few requests meet
    /// a connection that is being closed.
    pub idle_timeout: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { max_idle: 32, idle_timeout: Duration::from_secs(30) }
    }
}

impl PoolOptions {
    /// Sets how many idle connections are kept per endpoint.
    #[must_use]
    pub fn with_max_idle(mut self, n: usize) -> Self {
        self.max_idle = n;
        self
    }

    /// Sets how long a connection may be idle.
    #[must_use]
    pub fn with_idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = limit;
        self
    }
}

/// Idle values by key, the one used last given out first.
pub(super) struct Pool<K, V> {
    options: PoolOptions,
    idle: Mutex<Idle<K, V>>,
}

struct Idle<K, V> {
    by_key: HashMap<K, Vec<(V, Instant)>>,
    sweeping: bool,
}

impl<K, V> Pool<K, V>
where
    K: Eq + Hash + Send + 'static,
    V: Send + 'static,
{
    pub(super) fn new(options: PoolOptions) -> Arc<Self> {
        Arc::new(Self { options, idle: Mutex::new(Idle { by_key: HashMap::new(), sweeping: false }) })
    }

    /// An idle value that passes; those above it that do not are dropped.
    pub(super) fn take(&self, key: &K, usable: impl Fn(&V) -> bool) -> Option<V> {
        let mut idle = self.lock();
        let values = idle.by_key.get_mut(key)?;
        while let Some((value, since)) = values.pop() {
            if since.elapsed() < self.options.idle_timeout && usable(&value) {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn put(self: &Arc<Self>, key: K, value: V) {
        let mut idle = self.lock();
        let values = idle.by_key.entry(key).or_default();
        if values.len() < self.options.max_idle {
            values.push((value, Instant::now()));
        }
        if !std::mem::replace(&mut idle.sweeping, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.options.idle_timeout));
        }
    }

    /// Drops what was idle for too long. True if nothing is left.
    fn expire(&self) -> bool {
        let mut idle = self.lock();
        for values in idle.by_key.values_mut() {
            values.retain(|(_, since)| since.elapsed() < self.options.idle_timeout);
        }
        idle.by_key.retain(|_, values| !values.is_empty());
        idle.sweeping = !idle.by_key.is_empty();
        !idle.sweeping
    }

    fn lock(&self) -> MutexGuard<'_, Idle<K, V>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> fmt::Debug for Pool<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Ends when the pool is empty or gone.
async fn sweep<K, V>(pool: Weak<Pool<K, V>>, every: Duration)
where
    K: Eq + Hash + Send + 'static,
    V: Send + 'static,
{
    loop {
        time::sleep(every.max(Duration::from_millis(10))).await;
        let Some(pool) = pool.upgrade() else { return };
        if pool.expire() {
            return;
        }
    }
}
