//! Reading what another node has just written, on behalf of strangers.
//!
//! Whoever connects can cause such a read: so there are only so many at a time, each has a limit, and what is not there
//! is remembered as such for a moment.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time;
use tokio::time::Instant;

use crate::store::KvStore;
use crate::store::Read;

/// Most reads at a time.
const MAX_READS: usize = 50;
/// How long one may take, waiting for its turn included.
const WITHIN: Duration = Duration::from_secs(2);
/// Most keys that are remembered not to be there.
const MAX_MISSING: usize = 10_000;

/// Reads single keys.
pub(super) struct Lookup {
    store: Arc<dyn KvStore>,
    reads: Semaphore,
    /// Until when a key counts as not there.
    missing: Mutex<HashMap<Box<str>, Instant>>,
    missing_for: Duration,
    /// Most reads in a second.
    most: usize,
    /// The second that is counted, and how many reads it has seen.
    rate: Mutex<Option<(Instant, usize)>>,
    /// What this node has written itself.
    own: Mutex<HashMap<Box<str>, Bytes>>,
}

impl Lookup {
    pub(super) fn new(store: Arc<dyn KvStore>, missing_for: Duration) -> Self {
        Self {
            store,
            reads: Semaphore::new(MAX_READS),
            missing: Mutex::default(),
            missing_for,
            most: usize::MAX,
            rate: Mutex::default(),
            own: Mutex::default(),
        }
    }

    /// Reads at most so many keys in a second; for what is beyond them there is no value.
    pub(super) fn with_most_per_second(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// The value of a key. Nothing if it has none, or the store does not say in time.
    pub(super) async fn value(&self, key: &str) -> Option<Bytes> {
        if let Some(value) = lock(&self.own).get(key) {
            return Some(value.clone());
        }
        if self.is_missing(key) || !self.may_read() {
            return None;
        }
        match time::timeout(WITHIN, self.read(key)).await {
            Ok(Ok(Some(value))) => Some(value),
            Ok(Ok(None)) => {
                self.remember_missing(key);
                None
            }
            Ok(Err(error)) => {
                tracing::debug!(key, error = %crate::error::Chain(&error), "cannot read the store");
                None
            }
            Err(_) => {
                tracing::debug!(key, "the store did not answer in time");
                None
            }
        }
    }

    /// A copy that is sometimes old, then one that is not: the writer may be ahead of the server that was asked.
    async fn read(&self, key: &str) -> Result<Option<Bytes>, crate::store::StoreError> {
        let Ok(_turn) = self.reads.acquire().await else { return Ok(None) };
        // Others may have found out while this one waited.
        if self.is_missing(key) {
            return Ok(None);
        }
        if let Ok(Some(entry)) = self.store.get(key, Read::Stale).await {
            return Ok(Some(entry.value));
        }
        Ok(self.store.get(key, Read::Latest).await?.map(|entry| entry.value))
    }

    fn may_read(&self) -> bool {
        let now = Instant::now();
        let mut rate = lock(&self.rate);
        let (_, reads) = match &mut *rate {
            Some(counted) if now.duration_since(counted.0) < Duration::from_secs(1) => counted,
            other => other.insert((now, 0)),
        };
        *reads = reads.saturating_add(1);
        *reads <= self.most
    }

    /// Whether the key was not there a moment ago.
    pub(super) fn is_missing(&self, key: &str) -> bool {
        lock(&self.missing).get(key).is_some_and(|until| Instant::now() < *until)
    }

    /// Forgets that a key was not there.
    pub(super) fn appeared(&self, key: &str) {
        lock(&self.missing).remove(key);
    }

    /// Answers with a value that this node writes, until the guard is dropped.
    pub(super) fn answer_with(self: &Arc<Self>, key: &str, value: Bytes) -> Own {
        lock(&self.own).insert(key.into(), value);
        self.appeared(key);
        Own { lookup: Arc::clone(self), key: key.into() }
    }

    fn remember_missing(&self, key: &str) {
        let mut missing = lock(&self.missing);
        let now = Instant::now();
        if missing.len() >= MAX_MISSING {
            missing.retain(|_, until| now < *until);
        }
        if missing.len() >= MAX_MISSING {
            missing.clear();
        }
        missing.insert(key.into(), now + self.missing_for);
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("missing", &lock(&self.missing).len()).finish_non_exhaustive()
    }
}

/// A value that is answered with until this is dropped.
#[derive(Debug)]
pub(super) struct Own {
    lookup: Arc<Lookup>,
    key: Box<str>,
}

impl Drop for Own {
    fn drop(&mut self) {
        lock(&self.lookup.own).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
