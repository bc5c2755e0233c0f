//! A store in the process's own memory.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::future::ready;
use futures::stream;
use futures::stream::BoxStream;
use tokio::sync::watch;

use super::Entry;
use super::KvStore;
use super::Lock;
use super::LockOptions;
use super::Read;
use super::StoreError;
use super::When;

/// Values in memory. A clone is the same store.
///
/// Locks do not expire: their holder cannot die without dropping them.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The last version given out.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    version: u64,
    entries: BTreeMap<Arc<str>, Value>,
    /// The token of each lock that is held.
    locks: BTreeMap<Arc<str>, Arc<str>>,
}

struct Value {
    bytes: Bytes,
    version: u64,
    /// The lock this lives by.
    token: Option<Arc<str>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    fn write(&self, key: &str, when: When<'_>, value: Option<(Bytes, Option<Arc<str>>)>) -> bool {
        let mut state = self.state();
        let holds = match when {
            When::Always => true,
            When::Absent => !state.entries.contains_key(key),
            When::Version(version) => state.entries.get(key).is_some_and(|value| value.version == version),
            When::Held(lock) => state.holds(lock),
        };
        if !holds {
            return false;
        }
        state.version += 1;
        let version = state.version;
        match value {
            Some((bytes, token)) => {
                state.entries.insert(key.into(), Value { bytes, version, token });
            }
            None => {
                state.entries.remove(key);
            }
        }
        drop(state);
        self.shared.changed.send_replace(version);
        true
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn below(&self, prefix: &str) -> Arc<[Entry]> {
        let state = self.state();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let found = state.entries.range::<str, _>(from).take_while(|(key, _)| key.starts_with(prefix));
        found.map(|(key, value)| Entry::new(Arc::clone(key), value.bytes.clone(), value.version)).collect()
    }

    fn release(&self, key: &str, token: &str) {
        let mut state = self.state();
        if state.locks.get(key).is_some_and(|held| &**held == token) {
            state.locks.remove(key);
        }
        state.entries.retain(|_, value| value.token.as_deref() != Some(token));
        state.version += 1;
        let version = state.version;
        drop(state);
        self.changed.send_replace(version);
    }
}

impl State {
    fn holds(&self, lock: &Lock) -> bool {
        self.locks.get(lock.key()).is_some_and(|token| &**token == lock.token())
    }
}

impl KvStore for MemoryStore {
    fn get<'a>(&'a self, key: &'a str, _: Read) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        let state = self.state();
        let entry = state.entries.get_key_value(key);
        let entry = entry.map(|(key, value)| Entry::new(Arc::clone(key), value.bytes.clone(), value.version));
        ready(Ok(entry)).boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>> {
        let keys = self.shared.below(prefix).iter().map(|entry| Arc::clone(&entry.key)).collect();
        ready(Ok(keys)).boxed()
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        when: When<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        ready(Ok(self.write(key, when, Some((value, None))))).boxed()
    }

    fn put_ephemeral<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        lock: &'a Lock,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let value = (value, Some(lock.token().into()));
        ready(Ok(self.write(key, When::Held(lock), Some(value)))).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str, when: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        ready(Ok(self.write(key, when, None))).boxed()
    }

    fn watch(&self, prefix: &str) -> BoxStream<'static, Result<Arc<[Entry]>, StoreError>> {
        let prefix: Arc<str> = prefix.into();
        let changes = self.shared.changed.subscribe();
        let shared = Arc::downgrade(&self.shared);
        let all = stream::unfold((changes, None::<Arc<[Entry]>>), move |(mut changes, last)| {
            let (shared, prefix) = (shared.clone(), Arc::clone(&prefix));
            async move {
                loop {
                    changes.borrow_and_update();
                    let now = shared.upgrade()?.below(&prefix);
                    if last.as_ref() != Some(&now) {
                        return Some((Ok(Arc::clone(&now)), (changes, Some(now))));
                    }
                    changes.changed().await.ok()?;
                }
            }
        });
        all.boxed()
    }

    fn lock<'a>(
        &'a self,
        key: &'a str,
        options: &'a LockOptions,
    ) -> BoxFuture<'a, Result<Option<Lock>, StoreError>> {
        let _ = &options.holder;
        let mut state = self.state();
        if state.locks.contains_key(key) {
            return ready(Ok(None)).boxed();
        }
        state.version += 1;
        let token: Arc<str> = state.version.to_string().into();
        state.locks.insert(key.into(), Arc::clone(&token));
        let (shared, released) = (Arc::downgrade(&self.shared), (Arc::<str>::from(key), Arc::clone(&token)));
        let lock = Lock::new(key, token, move || async move {
            if let Some(shared) = shared.upgrade() {
                shared.release(&released.0, &released.1);
            }
        });
        ready(Ok(Some(lock))).boxed()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryStore")
            .field("keys", &state.entries.keys())
            .field("locks", &state.locks.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_behaves_like_a_store() {
        crate::store::behaviour::check(MemoryStore::new()).await;
    }
}
