//! Consul's key-value store as a store of meshlib.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream;
use futures::stream::BoxStream;
use meshlib::store::Entry;
use meshlib::store::KvStore;
use meshlib::store::Lock;
use meshlib::store::LockOptions;
use meshlib::store::Read;
use meshlib::store::StoreError;
use meshlib::store::When;

use crate::api::KvPair;
use crate::api::TxnProblem;
use crate::ask::Consistency;
use crate::client::Consul;
use crate::error::ConsulError;
use crate::kv::PutOptions;
use crate::kv::TxnOp;
use crate::watch::Degraded;
use crate::watch::Level;

/// The keys of Consul below a prefix, as a [`KvStore`].
///
/// Versions are the indices of Consul. A clone shares the client. A value is at most 512 KiB. Locks take up to twice their
/// time to live and 15 s more until somebody else gets them after their holder has died.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use meshlib::store::{KvStore, Read, When};
/// use meshlib_consul::{Config, Consul, ConsulKv};
///
/// let store = ConsulKv::new(Consul::new(Config::default())?, "edge/");
/// store.put("motd", "hello".into(), When::Absent).await?;
/// assert!(store.get("motd", Read::Latest).await?.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ConsulKv {
    consul: Consul,
    prefix: Arc<str>,
}

impl ConsulKv {
    /// The keys that begin with `prefix`, which is put in front of each as it is: `tricot/` with its slash.
    pub fn new(consul: Consul, prefix: impl Into<Arc<str>>) -> Self {
        Self { consul, prefix: prefix.into() }
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn write(&self, key: &str, value: Bytes, when: When<'_>) -> Result<bool, ConsulError> {
        let full = self.full(key);
        let cas = match when {
            When::Always => return self.consul.kv_put(&full, value, PutOptions::new()).await,
            When::Absent => 0,
            // No value has it, and Consul would take it for absence.
            When::Version(0) => return Ok(false),
            When::Version(version) => version,
            When::Held(lock) => return self.fenced(lock, TxnOp::Set { key: full, value }).await,
            _ => return Ok(false),
        };
        self.consul.kv_put(&full, value, PutOptions::new().with_cas(cas)).await
    }

    async fn remove(&self, key: &str, when: When<'_>) -> Result<bool, ConsulError> {
        let full = self.full(key);
        match when {
            When::Always => self.consul.kv_delete(&full, None).await,
            When::Absent => Ok(self.consul.kv_get(&full, Consistency::Leader).await?.is_none()),
            When::Version(0) => Ok(false),
            When::Version(version) => self.remove_version(&full, version).await,
            When::Held(lock) => self.fenced(lock, TxnOp::Delete { key: full }).await,
            _ => Ok(false),
        }
    }

    /// Consul says true to removing what is not there, whatever the version.
    async fn remove_version(&self, full: &str, version: u64) -> Result<bool, ConsulError> {
        let operation = TxnOp::DeleteCas { key: full.to_owned(), index: version };
        if self.consul.kv_get(full, Consistency::Leader).await?.is_none() {
            return Ok(false);
        }
        Ok(self.consul.txn(&[operation]).await?.is_ok())
    }

    /// Does it if the lock is held.
    async fn fenced(&self, lock: &Lock, operation: TxnOp) -> Result<bool, ConsulError> {
        if lock.is_lost() {
            return Ok(false);
        }
        let fence = TxnOp::CheckSession { key: self.full(lock.key()), session: lock.token().into() };
        match self.consul.txn(&[fence, operation]).await? {
            Ok(()) => Ok(true),
            Err(problems) => {
                if let Some(TxnProblem { reason, .. }) = problems.first() {
                    tracing::debug!(key = lock.key(), reason, "a write that needs a lock was refused");
                }
                Ok(false)
            }
        }
    }

    fn entry(prefix: &str, pair: KvPair) -> Entry {
        let key = pair.key.strip_prefix(prefix).unwrap_or(&pair.key);
        Entry::new(key, pair.value, pair.modify_index)
    }
}

impl KvStore for ConsulKv {
    fn get<'a>(&'a self, key: &'a str, read: Read) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        let consistency = match read {
            Read::Stale => Consistency::Stale,
            _ => Consistency::Consistent,
        };
        async move {
            let pair = self.consul.kv_get(&self.full(key), consistency).await?;
            Ok(pair.map(|pair| Self::entry(&self.prefix, pair)))
        }
        .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>> {
        async move {
            let keys = self.consul.kv_keys(&self.full(prefix), None, Consistency::Leader).await?;
            let below = |key: &Arc<str>| key.strip_prefix(&*self.prefix).map(Arc::from);
            Ok(keys.iter().filter_map(below).collect())
        }
        .boxed()
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        when: When<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move { Ok(self.write(key, value, when).await?) }.boxed()
    }

    fn put_ephemeral<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        lock: &'a Lock,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            if lock.is_lost() {
                return Ok(false);
            }
            let put = PutOptions::new().with_acquire(lock.token());
            match self.consul.kv_put(&self.full(key), value, put).await {
                // So Consul says that the session is gone.
                Err(ConsulError::Status { status: 500, reason, .. })
                    if reason.contains("invalid session") =>
                {
                    Ok(false)
                }
                result => Ok(result?),
            }
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str, when: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move { Ok(self.remove(key, when).await?) }.boxed()
    }

    fn watch(&self, prefix: &str) -> BoxStream<'static, Result<Arc<[Entry]>, StoreError>> {
        let own = Arc::clone(&self.prefix);
        let levels = match self.consul.kv_watch_prefix(&self.full(prefix)) {
            Ok(levels) => levels,
            Err(error) => return stream::iter([Err(error.into())]).boxed(),
        };
        let items = levels.scan(None, move |told: &mut Option<Arc<[KvPair]>>, level| {
            let Level { value, degraded } = level;
            let error = match degraded {
                Some(Degraded::Failing(error)) => Some(Err(error.into())),
                _ => None,
            };
            let is_news = value.is_some() && value != *told;
            let entries = value.filter(|_| is_news || error.is_none()).map(|pairs| {
                let entries = pairs.iter().map(|pair| Self::entry(&own, pair.clone())).collect();
                *told = Some(pairs);
                Ok(entries)
            });
            std::future::ready(Some(stream::iter(entries.into_iter().chain(error))))
        });
        items.flatten().boxed()
    }

    fn lock<'a>(
        &'a self,
        key: &'a str,
        options: &'a LockOptions,
    ) -> BoxFuture<'a, Result<Option<Lock>, StoreError>> {
        async move { Ok(self.consul.take_lock(&self.full(key), key, options).await?) }.boxed()
    }
}

impl fmt::Debug for ConsulKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulKv").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
