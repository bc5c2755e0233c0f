//! Copies of what the shared store has, on disk, for a start without it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use meshlib::store::DirStore;
use meshlib::store::Entry;
use meshlib::store::KvStore;
use meshlib::store::Lock;
use meshlib::store::LockOptions;
use meshlib::store::Read;
use meshlib::store::StoreError;
use meshlib::store::When;

/// A store whose certificates are also kept in a directory, and read from there while the store is out of reach.
///
/// Only certificates are: what decides who orders one must come from the store itself or not at all.
pub(super) struct Mirror {
    store: Arc<dyn KvStore>,
    copies: Arc<DirStore>,
}

impl Mirror {
    pub(super) fn new(store: Arc<dyn KvStore>, copies: DirStore) -> Self {
        Self { store, copies: Arc::new(copies) }
    }
}

/// Certificates and the announcements of them; see `meshlib::tls::acme`.
fn is_copied(key: &str) -> bool {
    key.starts_with("certs/") || key.starts_with("certs@") || key.starts_with("acme/certs")
}

/// Keeps a copy up to date. A copy that cannot be written is none: it is said, and the store goes on without.
async fn copy(copies: &DirStore, key: &str, value: Option<Bytes>) {
    let done = match value {
        Some(value) => copies.put(key, value, When::Always).await,
        None => copies.delete(key, When::Always).await,
    };
    if let Err(error) = done {
        tracing::warn!(target: "tricot", key, %error, "cannot keep a copy of a certificate");
    }
}

impl KvStore for Mirror {
    fn get<'a>(&'a self, key: &'a str, read: Read) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(async move {
            let answer = self.store.get(key, read).await;
            if !is_copied(key) {
                return answer;
            }
            match answer {
                Ok(entry) => {
                    let value = entry.as_ref().map(|entry| entry.value.clone());
                    let known =
                        self.copies.get(key, Read::Stale).await.ok().flatten().map(|entry| entry.value);
                    if known != value {
                        copy(&self.copies, key, value).await;
                    }
                    Ok(entry)
                }
                // Under a lock nothing but the store itself will do.
                Err(StoreError::Unreachable(error)) if read == Read::Stale => {
                    let copied = self.copies.get(key, read).await?;
                    tracing::debug!(target: "tricot", key, %error, found = copied.is_some(), "read from a copy");
                    Ok(copied)
                }
                Err(error) => Err(error),
            }
        })
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>> {
        Box::pin(async move {
            match self.store.keys(prefix).await {
                Err(StoreError::Unreachable(_)) if is_copied(prefix) => self.copies.keys(prefix).await,
                keys => keys,
            }
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        when: When<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let written = self.store.put(key, value.clone(), when).await?;
            if written && is_copied(key) {
                copy(&self.copies, key, Some(value)).await;
            }
            Ok(written)
        })
    }

    fn put_ephemeral<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        lock: &'a Lock,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.store.put_ephemeral(key, value, lock)
    }

    fn delete<'a>(&'a self, key: &'a str, when: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let gone = self.store.delete(key, when).await?;
            if gone && is_copied(key) {
                copy(&self.copies, key, None).await;
            }
            Ok(gone)
        })
    }

    /// What the store says, and the copies until it says something.
    fn watch(&self, prefix: &str) -> BoxStream<'static, Result<Arc<[Entry]>, StoreError>> {
        let original = self.store.watch(prefix);
        if !is_copied(prefix) {
            return original;
        }
        let (copies, prefix) = (Arc::clone(&self.copies), prefix.to_owned());
        let first = async move {
            let mut entries = Vec::new();
            for key in copies.keys(&prefix).await? {
                entries.extend(copies.get(&key, Read::Stale).await?);
            }
            Ok(Arc::from(entries))
        };
        futures::stream::once(first).chain(original).boxed()
    }

    fn lock<'a>(
        &'a self,
        key: &'a str,
        options: &'a LockOptions,
    ) -> BoxFuture<'a, Result<Option<Lock>, StoreError>> {
        self.store.lock(key, options)
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("copies", &self.copies).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;

    use futures::FutureExt;
    use meshlib::store::MemoryStore;

    use super::*;

    /// A store that can be out of reach.
    #[derive(Default)]
    struct Away {
        store: MemoryStore,
        is_away: AtomicBool,
    }

    impl Away {
        fn reached(&self) -> Result<(), StoreError> {
            match self.is_away.load(Ordering::Relaxed) {
                true => Err(StoreError::Unreachable("the test says so".into())),
                false => Ok(()),
            }
        }
    }

    impl KvStore for Away {
        fn get<'a>(&'a self, key: &'a str, read: Read) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
            async move {
                self.reached()?;
                self.store.get(key, read).await
            }
            .boxed()
        }

        fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>> {
            async move {
                self.reached()?;
                self.store.keys(prefix).await
            }
            .boxed()
        }

        fn put<'a>(
            &'a self,
            key: &'a str,
            value: Bytes,
            when: When<'a>,
        ) -> BoxFuture<'a, Result<bool, StoreError>> {
            self.store.put(key, value, when)
        }

        fn put_ephemeral<'a>(
            &'a self,
            key: &'a str,
            value: Bytes,
            lock: &'a Lock,
        ) -> BoxFuture<'a, Result<bool, StoreError>> {
            self.store.put_ephemeral(key, value, lock)
        }

        fn delete<'a>(&'a self, key: &'a str, when: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
            self.store.delete(key, when)
        }

        fn watch(&self, prefix: &str) -> BoxStream<'static, Result<Arc<[Entry]>, StoreError>> {
            self.store.watch(prefix)
        }

        fn lock<'a>(
            &'a self,
            key: &'a str,
            options: &'a LockOptions,
        ) -> BoxFuture<'a, Result<Option<Lock>, StoreError>> {
            self.store.lock(key, options)
        }
    }

    #[tokio::test]
    async fn certificates_are_there_while_the_store_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let away = Arc::new(Away::default());
        let mirror = Mirror::new(away.clone(), DirStore::open(dir.path()).await.unwrap());
        mirror.put("certs/a.example", "mine".into(), When::Absent).await.unwrap();
        // Another node writes past this one.
        away.store.put("certs/b.example", "theirs".into(), When::Absent).await.unwrap();
        mirror.get("certs/b.example", Read::Stale).await.unwrap();
        mirror.put("acme/account.json", "secret".into(), When::Absent).await.unwrap();

        away.is_away.store(true, Ordering::Relaxed);

        let value = |entry: Option<Entry>| entry.unwrap().value;
        assert_eq!(value(mirror.get("certs/a.example", Read::Stale).await.unwrap()), "mine");
        assert_eq!(value(mirror.get("certs/b.example", Read::Stale).await.unwrap()), "theirs");
        assert_eq!(mirror.keys("certs/").await.unwrap().len(), 2);
        assert!(mirror.get("certs/a.example", Read::Latest).await.is_err(), "a decision needs the store");
        assert!(mirror.get("acme/account.json", Read::Stale).await.is_err(), "no other secret is copied");
    }

    #[tokio::test]
    async fn what_is_gone_from_the_store_is_gone_from_the_copies() {
        let dir = tempfile::tempdir().unwrap();
        let away = Arc::new(Away::default());
        let mirror = Mirror::new(away.clone(), DirStore::open(dir.path()).await.unwrap());
        mirror.put("certs/a.example", "mine".into(), When::Absent).await.unwrap();
        away.store.delete("certs/a.example", When::Always).await.unwrap();

        assert!(mirror.get("certs/a.example", Read::Stale).await.unwrap().is_none());
        away.is_away.store(true, Ordering::Relaxed);

        assert!(mirror.get("certs/a.example", Read::Stale).await.unwrap().is_none());
    }
}
