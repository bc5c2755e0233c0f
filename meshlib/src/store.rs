//! Small values that a fleet shares: certificates, accounts, who is doing what.
//!
//! [`KvStore`] is a map from keys to bytes with conditional writes, watches and locks. It is asked a few times a day, so
//! its futures are boxed and any store can be plugged in.
//!
//! | Store | Shared by | Kept |
//! |---|---|---|
//! | [`MemoryStore`] | the clones of one value | until the last of them is dropped |
//! | `DirStore` | the processes of a machine (Linux) | in files |
//! | `meshlib_consul::ConsulKv` | a Consul cluster | by its servers |
//!
//! # Examples
//!
//! One of many does the work, and nobody overwrites it with an older result:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), meshlib::store::StoreError> {
//! use std::time::Duration;
//! use meshlib::store::{KvStore, LockOptions, MemoryStore, Read, When};
//!
//! let store = MemoryStore::new();
//! if let Some(lock) = store.lock("report.lock", &LockOptions::new("node-1")).await? {
//!     store.put("report", "all is well".into(), When::Held(&lock)).await?;
//!     lock.release().await;
//! }
//! assert_eq!(store.get("report", Read::Latest).await?.unwrap().value, "all is well");
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tower::BoxError;

#[cfg(test)]
mod behaviour;
#[cfg(target_os = "linux")]
mod dir;
mod lock;
mod memory;

#[cfg(target_os = "linux")]
pub use dir::DirStore;
pub use lock::Lock;
pub use lock::Loss;
pub use memory::MemoryStore;

/// A map from keys to bytes that several processes may share.
///
/// Keys are UTF-8 with `/` between their parts, without one at either end. Each write of a key gives it a version that
/// it never had before.
pub trait KvStore: Send + Sync + 'static {
    /// The value of a key, if it has one.
    fn get<'a>(&'a self, key: &'a str, read: Read) -> BoxFuture<'a, Result<Option<Entry>, StoreError>>;

    /// The keys that begin with `prefix`, in order.
    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>>;

    /// Writes a value. False if the condition does not hold; then nothing has changed.
    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        when: When<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Writes a value that lives no longer than the lock: it goes when the lock is released or lost. False if the lock
    /// was lost already.
    fn put_ephemeral<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        lock: &'a Lock,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Removes a key. True if it is not there any more, false if the condition does not hold.
    fn delete<'a>(&'a self, key: &'a str, when: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// All entries whose keys begin with `prefix`, in the order of their keys: now, and all of them again after each
    /// change. Changes that follow each other quickly may be seen as one. An error means that the last answer may be out
    /// of date; the stream goes on by itself and ends when the store does.
    fn watch(&self, prefix: &str) -> BoxStream<'static, Result<Arc<[Entry]>, StoreError>>;

    /// Takes the lock of this name, or nothing if somebody holds it. Does not wait.
    fn lock<'a>(
        &'a self,
        key: &'a str,
        options: &'a LockOptions,
    ) -> BoxFuture<'a, Result<Option<Lock>, StoreError>>;
}

/// A key with its value.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub key: Arc<str>,
    /// The value.
    pub value: Bytes,
    /// Tells one writing of this key from another.
    pub version: u64,
}

impl Entry {
    /// Puts the parts together.
    pub fn new(key: impl Into<Arc<str>>, value: impl Into<Bytes>, version: u64) -> Self {
        Self { key: key.into(), value: value.into(), version }
    }
}

/// Shows no value: it may be a private key.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("bytes", &self.value.len())
            .field("version", &self.version)
            .finish()
    }
}

/// How sure a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Read {
    /// Any copy will do: quick, answered even while the store has no leader, and perhaps a moment old.
    Stale,
    /// Whatever was written before this is seen.
    Latest,
}

/// When a write takes place.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum When<'a> {
    /// Whatever is there.
    Always,
    /// If the key has no value.
    Absent,
    /// If the key still has the value of this version.
    Version(u64),
    /// If this lock is still held.
    Held(&'a Lock),
}

/// How a lock is taken.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LockOptions {
    /// Who holds it: the value of the lock's key, for people.
    pub holder: String,
    /// How long the lock outlives a holder that died, at least. Some stores take up to twice as long. Default 60 s.
    pub ttl: Duration,
}

impl LockOptions {
    /// For a holder of this name.
    pub fn new(holder: impl Into<String>) -> Self {
        Self { holder: holder.into(), ttl: Duration::from_secs(60) }
    }

    /// Sets how long the lock outlives its holder.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }
}

/// Why a store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached, or does not answer.
    #[error("the store is out of reach")]
    Unreachable(#[source] BoxError),
    /// The store does not let us.
    #[error("the store denies {what}")]
    Denied {
        /// What was asked for.
        what: String,
    },
    /// The store cannot keep such a key or value.
    #[error("the store cannot keep {key}: {reason}")]
    Unfit {
        /// The key.
        key: String,
        /// Why not.
        reason: String,
    },
    /// The store answered what makes no sense.
    #[error("the store's answer makes no sense")]
    Garbled(#[source] BoxError),
}
