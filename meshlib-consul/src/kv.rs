//! The key-value store.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use futures::stream::BoxStream;
use http::Method;
use serde_json::json;

use crate::api;
use crate::api::KvPair;
use crate::api::TxnErrors;
use crate::api::TxnProblem;
use crate::ask::Ask;
use crate::ask::Consistency;
use crate::client::Answer;
use crate::client::Consul;
use crate::client::failure;
use crate::error::ConsulError;
use crate::watch::Level;
use crate::watch::Watch;

/// Operations that one transaction may have.
pub const MAX_TXN: usize = 64;

/// The condition and the company of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutOptions {
    /// Writes only if the key still has this index; 0: if there is no such key. Default: whatever is there.
    pub cas: Option<u64>,
    /// Writes and takes the key as a lock for this session, if nobody else holds it. Default: no lock.
    pub acquire: Option<Arc<str>>,
    /// Writes and gives the lock of this session back. Default: no lock.
    pub release: Option<Arc<str>>,
    /// A number that is kept with the value. Default 0.
    pub flags: u64,
}

impl PutOptions {
    /// Writes whatever is there.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes only if the key still has this index; 0: if there is no such key.
    #[must_use]
    pub fn with_cas(mut self, index: u64) -> Self {
        self.cas = Some(index);
        self
    }

    /// Takes the key as a lock for a session.
    #[must_use]
    pub fn with_acquire(mut self, session: impl Into<Arc<str>>) -> Self {
        self.acquire = Some(session.into());
        self
    }

    /// Gives the lock of a session back.
    #[must_use]
    pub fn with_release(mut self, session: impl Into<Arc<str>>) -> Self {
        self.release = Some(session.into());
        self
    }

    /// Sets the number that is kept with the value.
    #[must_use]
    pub fn with_flags(mut self, flags: u64) -> Self {
        self.flags = flags;
        self
    }
}

/// One operation of a transaction.
#[derive(Clone)]
#[non_exhaustive]
pub enum TxnOp {
    /// Writes a value.
    Set {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
    },
    /// Writes a value if the key still has this index; 0: if there is no such key.
    Cas {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
        /// The index.
        index: u64,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Removes a key if it still has this index.
    DeleteCas {
        /// The key.
        key: String,
        /// The index.
        index: u64,
    },
    /// Goes on only if the session holds the key.
    CheckSession {
        /// The key.
        key: String,
        /// The session.
        session: Arc<str>,
    },
    /// Writes a value and takes the key as a lock for the session.
    Lock {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
        /// The session.
        session: Arc<str>,
    },
}

impl TxnOp {
    fn key(&self) -> &str {
        match self {
            Self::Set { key, .. }
            | Self::Cas { key, .. }
            | Self::Delete { key }
            | Self::DeleteCas { key, .. }
            | Self::CheckSession { key, .. }
            | Self::Lock { key, .. } => key,
        }
    }

    fn to_json(&self) -> serde_json::Value {
        let key = self.key();
        let operation = match self {
            Self::Set { value, .. } => json!({"Verb": "set", "Key": key, "Value": STANDARD.encode(value)}),
            Self::Cas { value, index, .. } => {
                json!({"Verb": "cas", "Key": key, "Value": STANDARD.encode(value), "Index": index})
            }
            Self::Delete { .. } => json!({"Verb": "delete", "Key": key}),
            Self::DeleteCas { index, .. } => json!({"Verb": "delete-cas", "Key": key, "Index": index}),
            Self::CheckSession { session, .. } => {
                json!({"Verb": "check-session", "Key": key, "Session": &**session})
            }
            Self::Lock { value, session, .. } => {
                json!({"Verb": "lock", "Key": key, "Value": STANDARD.encode(value), "Session": &**session})
            }
        };
        json!({ "KV": operation })
    }
}

/// Shows no value: it may be a private key.
impl std::fmt::Debug for TxnOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Set { .. } => "Set",
            Self::Cas { .. } => "Cas",
            Self::Delete { .. } => "Delete",
            Self::DeleteCas { .. } => "DeleteCas",
            Self::CheckSession { .. } => "CheckSession",
            Self::Lock { .. } => "Lock",
        };
        f.debug_tuple(name).field(&self.key()).finish()
    }
}

/// The key-value store. Keys are as Consul has them: no slash at the beginning, and `/` is nothing special otherwise.
impl Consul {
    /// The value of a key with what is known about it.
    ///
    /// # Errors
    ///
    /// If Consul cannot be asked, denies it, or the key cannot be one.
    pub async fn kv_get(&self, key: &str, consistency: Consistency) -> Result<Option<KvPair>, ConsulError> {
        let ask = self.kv(Ask::get(KV).segments(checked(key)?)).consistency(consistency);
        Ok(self.kv_read(ask).await?.into_iter().next())
    }

    /// The value of a key alone.
    ///
    /// # Errors
    ///
    /// As [`kv_get`](Self::kv_get).
    pub async fn kv_get_raw(
        &self,
        key: &str,
        consistency: Consistency,
    ) -> Result<Option<Bytes>, ConsulError> {
        let ask = self.kv(Ask::get(KV).segments(checked(key)?)).consistency(consistency).flag("raw");
        let what = Arc::clone(&ask.what);
        let answer = self.ask(ask).await?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            404 => Ok(None),
            _ => Err(failure(&what, &answer)),
        }
    }

    /// All keys that begin with a prefix, with their values, in the order of the keys.
    ///
    /// # Errors
    ///
    /// As [`kv_get`](Self::kv_get).
    pub async fn kv_list(&self, prefix: &str, consistency: Consistency) -> Result<Vec<KvPair>, ConsulError> {
        let ask = self.kv(Ask::get(KV).segments(checked_prefix(prefix)?)).consistency(consistency);
        self.kv_read(ask.flag("recurse")).await
    }

    /// All keys that begin with a prefix, in order. With a separator each is cut off after the first one beyond the
    /// prefix, and named once.
    ///
    /// # Errors
    ///
    /// As [`kv_get`](Self::kv_get).
    pub async fn kv_keys(
        &self,
        prefix: &str,
        separator: Option<&str>,
        consistency: Consistency,
    ) -> Result<Vec<Arc<str>>, ConsulError> {
        let ask =
            self.kv(Ask::get(KV).segments(checked_prefix(prefix)?)).consistency(consistency).flag("keys");
        let ask = match separator {
            Some(separator) => ask.param("separator", separator),
            None => ask,
        };
        let what = Arc::clone(&ask.what);
        let answer = self.ask(ask).await?;
        match answer.status {
            200 => {
                let keys = serde_json::from_slice::<Option<Vec<Arc<str>>>>(&answer.body);
                let mut keys = keys.map_err(|error| ConsulError::decode(&what, error))?.unwrap_or_default();
                keys.sort_unstable();
                Ok(keys)
            }
            404 => Ok(Vec::new()),
            _ => Err(failure(&what, &answer)),
        }
    }

    /// Writes a value of at most 512 KiB. False if the condition does not hold.
    ///
    /// # Errors
    ///
    /// If Consul cannot be asked, denies it, the key cannot be one, the value is too large, or a session is gone.
    pub async fn kv_put(&self, key: &str, value: Bytes, options: PutOptions) -> Result<bool, ConsulError> {
        let mut ask = self.kv(Ask::put(KV, value).segments(checked(key)?));
        if options.flags != 0 {
            ask = ask.param("flags", options.flags.to_string());
        }
        if let Some(index) = options.cas {
            ask = ask.param("cas", index.to_string());
        }
        if let Some(session) = options.acquire {
            ask = ask.param("acquire", session);
        }
        if let Some(session) = options.release {
            ask = ask.param("release", session);
        }
        self.yes(ask, key).await
    }

    /// Removes a key, if it still has the index where one is given. True if it is not there any more.
    ///
    /// # Errors
    ///
    /// As [`kv_put`](Self::kv_put).
    pub async fn kv_delete(&self, key: &str, cas: Option<u64>) -> Result<bool, ConsulError> {
        let ask = self.kv(Ask::new(Method::DELETE, KV).segments(checked(key)?));
        let ask = match cas {
            Some(index) => ask.param("cas", index.to_string()),
            None => ask,
        };
        self.yes(ask, key).await
    }

    /// Removes all keys that begin with a prefix, which must not be empty.
    ///
    /// # Errors
    ///
    /// As [`kv_put`](Self::kv_put).
    pub async fn kv_delete_prefix(&self, prefix: &str) -> Result<(), ConsulError> {
        if prefix.is_empty() {
            return Err(unfit(prefix, "it would be every key"));
        }
        let ask = self.kv(Ask::new(Method::DELETE, KV).segments(checked_prefix(prefix)?)).flag("recurse");
        self.yes(ask, prefix).await.map(drop)
    }

    /// Does all of these operations or none. If one is refused: which, and why.
    ///
    /// # Errors
    ///
    /// If Consul cannot be asked or denies it, there are more than [`MAX_TXN`], or a key cannot be one.
    pub async fn txn(&self, operations: &[TxnOp]) -> Result<Result<(), Vec<TxnProblem>>, ConsulError> {
        for operation in operations {
            checked(operation.key())?;
        }
        let body: Vec<_> = operations.iter().map(TxnOp::to_json).collect();
        let ask = self.kv(Ask::put("/v1/txn", serde_json::Value::Array(body).to_string()));
        let what = Arc::clone(&ask.what);
        let answer = self.ask(ask).await?;
        match answer.status {
            200 => Ok(Ok(())),
            409 => {
                let errors = serde_json::from_slice::<TxnErrors>(&answer.body);
                Ok(Err(errors.map_err(|error| ConsulError::decode(&what, error))?.errors))
            }
            413 => {
                let key = operations.first().map(|operation| operation.key().to_owned());
                Err(ConsulError::ValueTooLarge { key: key.unwrap_or_default() })
            }
            _ => Err(failure(&what, &answer)),
        }
    }

    /// A key as it changes. `None` as value: it is not there.
    ///
    /// The stream has no end. It must be polled inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the key cannot be one.
    pub fn kv_watch(&self, key: &str) -> Result<BoxStream<'static, Level<Option<KvPair>>>, ConsulError> {
        let ask = self.kv(Ask::get(KV).segments(checked(key)?)).consistency(Consistency::Stale);
        let decode = |answer: &Answer| Ok(pairs(answer)?.into_iter().next());
        Ok(levels(self.clone(), ask, decode))
    }

    /// All keys that begin with a prefix as they change: each time all of them, in the order of the keys.
    ///
    /// The stream has no end. It must be polled inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the key cannot be one.
    pub fn kv_watch_prefix(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Level<Arc<[KvPair]>>>, ConsulError> {
        let ask = self.kv(Ask::get(KV).segments(checked_prefix(prefix)?)).consistency(Consistency::Stale);
        Ok(levels(self.clone(), ask.flag("recurse"), |answer| Ok(pairs(answer)?.into())))
    }

    /// Adds what requests about keys and sessions have in common.
    pub(crate) fn kv(&self, ask: Ask) -> Ask {
        ask.datacenter(self.shared.config.datacenter.as_deref())
    }

    async fn kv_read(&self, ask: Ask) -> Result<Vec<KvPair>, ConsulError> {
        let what = Arc::clone(&ask.what);
        let answer = self.ask(ask).await?;
        match answer.status {
            200 | 404 => pairs(&answer).map_err(|error| ConsulError::decode(&what, error)),
            _ => Err(failure(&what, &answer)),
        }
    }

    /// A write that is answered with `true` or `false`.
    pub(crate) async fn yes(&self, ask: Ask, key: &str) -> Result<bool, ConsulError> {
        let what = Arc::clone(&ask.what);
        let answer = self.ask(ask).await?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map_err(|error| ConsulError::decode(&what, error)),
            413 => Err(ConsulError::ValueTooLarge { key: key.to_owned() }),
            _ => Err(failure(&what, &answer)),
        }
    }
}

const KV: &str = "/v1/kv/";

/// The pairs of an answer in the order of their keys. Nothing there is no pairs.
fn pairs(answer: &Answer) -> Result<Vec<KvPair>, tower::BoxError> {
    if answer.status == 404 {
        return Ok(Vec::new());
    }
    let (mut pairs, left_out) = api::list::<KvPair>(&answer.body)?;
    if left_out > 0 {
        tracing::warn!(left_out, "some values of consul make no sense");
    }
    pairs.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(pairs)
}

/// The levels of a watch that is begun with the first poll.
fn levels<T: Clone + PartialEq + Send + Sync + 'static>(
    consul: Consul,
    ask: Ask,
    decode: fn(&Answer) -> Result<T, tower::BoxError>,
) -> BoxStream<'static, Level<T>> {
    stream::unfold((None, (consul, ask)), move |(watch, source)| async move {
        let (consul, ask) = &source;
        let watch: Option<Watch<T>> = watch;
        let mut watch = watch.unwrap_or_else(|| Watch::new(consul, ask.clone(), decode).missing_is_value());
        let level = watch.next().await;
        Some((level, (Some(watch), source)))
    })
    .boxed()
}

fn unfit(key: &str, reason: &'static str) -> ConsulError {
    ConsulError::Key { key: key.to_owned(), reason }
}

fn checked(key: &str) -> Result<&str, ConsulError> {
    if key.is_empty() {
        return Err(unfit(key, "it is empty"));
    }
    checked_prefix(key)
}

/// A path that Consul takes as it is, and does not tidy up.
fn checked_prefix(key: &str) -> Result<&str, ConsulError> {
    if key.starts_with('/') {
        return Err(unfit(key, "it begins with a slash"));
    }
    if key.contains("//") {
        return Err(unfit(key, "it has two slashes in a row"));
    }
    if key.split('/').any(|part| part == "." || part == "..") {
        return Err(unfit(key, "a part of it means another place"));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_consul_would_change_are_refused() {
        for bad in ["", "/a", "a//b", "a/../b", "."] {
            assert!(checked(bad).is_err(), "{bad}");
        }
        for good in ["a", "a/b", "a/", "..a", "certs@x/*.example.com", "a b?"] {
            assert!(checked(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn operations_are_what_consul_reads() {
        let fence = TxnOp::CheckSession { key: "lock".into(), session: "s".into() };
        let set = TxnOp::Set { key: "a".into(), value: "hello".into() };

        assert_eq!(fence.to_json(), json!({"KV": {"Verb": "check-session", "Key": "lock", "Session": "s"}}));
        assert_eq!(set.to_json(), json!({"KV": {"Verb": "set", "Key": "a", "Value": "aGVsbG8="}}));
        assert!(!format!("{set:?}").contains("hello"));
    }
}
