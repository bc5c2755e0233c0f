//! What Consul's answers look like.
//!
//! Everything that may be missing or `null` somewhere is taken as empty, unknown fields are ignored, and numbers are as
//! wide as JSON has them: what cannot be used is decided on later, entry by entry.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::DeserializeOwned;

/// The names of all services with their tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ServiceTags(BTreeMap<Arc<str>, Tags>);

impl Deref for ServiceTags {
    type Target = BTreeMap<Arc<str>, Tags>;

    fn deref(&self) -> &BTreeMap<Arc<str>, Tags> {
        &self.0
    }
}

/// The tags of a service: those of all its instances, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Tags(#[serde(deserialize_with = "sorted")] Vec<Arc<str>>);

impl Deref for Tags {
    type Target = [Arc<str>];

    fn deref(&self) -> &[Arc<str>] {
        &self.0
    }
}

/// An entry of `health/service/NAME`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HealthEntry {
    pub(crate) node: Node,
    pub(crate) service: Service,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Node {
    pub(crate) node: Arc<str>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) address: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) datacenter: Arc<str>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) tagged_addresses: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) meta: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) locality: Option<Locality>,
}

impl Node {
    /// Where it stands, by its metadata or else by what newer servers know.
    pub(crate) fn site(&self, key: &str) -> Option<Arc<str>> {
        let zone = self.locality.as_ref().map(|locality| &locality.zone).filter(|zone| !zone.is_empty());
        self.meta.get(key).or(zone).map(|site| site.as_str().into())
    }
}

/// Where a node stands, as newer servers say it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Locality {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) zone: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Service {
    #[serde(rename = "ID")]
    pub(crate) id: Arc<str>,
    pub(crate) service: Arc<str>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) tags: Vec<Arc<str>>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) address: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) meta: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) port: i64,
    #[serde(default)]
    pub(crate) weights: Option<WireWeights>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct WireWeights {
    pub(crate) passing: i64,
    pub(crate) warning: i64,
}

/// A check, as it comes with an instance and in `health/state/any`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Check {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) node: String,
    #[serde(rename = "CheckID", default, deserialize_with = "null_is_default")]
    pub(crate) check_id: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) status: String,
    #[serde(rename = "ServiceID", default, deserialize_with = "null_is_default")]
    pub(crate) service_id: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) service_name: Arc<str>,
}

/// `catalog/node/NAME`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CatalogNode {
    pub(crate) node: Node,
}

/// The parts of `agent/self` that are of use.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentSelf {
    pub(crate) config: AgentConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentConfig {
    pub(crate) node_name: Arc<str>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) datacenter: Arc<str>,
}

/// A value of the key-value store with what Consul knows about it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct KvPair {
    /// The key.
    pub key: Arc<str>,
    /// The value.
    #[serde(default, deserialize_with = "base64_bytes")]
    pub value: Bytes,
    /// A number that clients may keep with the value.
    #[serde(default)]
    pub flags: u64,
    /// The session that holds the key as a lock.
    #[serde(default)]
    pub session: Option<Arc<str>>,
    /// How often the key was taken as a lock.
    #[serde(default)]
    pub lock_index: u64,
    /// The index at which the key came to be.
    #[serde(default)]
    pub create_index: u64,
    /// The index at which the value was written.
    pub modify_index: u64,
}

/// Shows no value: it may be a private key.
impl fmt::Debug for KvPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvPair")
            .field("key", &self.key)
            .field("bytes", &self.value.len())
            .field("modify_index", &self.modify_index)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct SessionId {
    #[serde(rename = "ID")]
    pub(crate) id: Arc<str>,
}

/// Why a transaction was refused.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TxnErrors {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) errors: Vec<TxnProblem>,
}

/// Why one operation of a transaction was refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct TxnProblem {
    /// Which operation, from zero.
    #[serde(rename = "OpIndex", default)]
    pub operation: usize,
    /// In Consul's words.
    #[serde(rename = "What", default)]
    pub reason: String,
}

/// A list in which an entry that makes no sense is left out: the entries, and how many were left out. `null` is an empty
/// list.
pub(crate) fn list<T: DeserializeOwned>(body: &[u8]) -> Result<(Vec<T>, usize), serde_json::Error> {
    if let Ok(entries) = serde_json::from_slice::<Option<Vec<T>>>(body) {
        return Ok((entries.unwrap_or_default(), 0));
    }
    let entries: Vec<serde_json::Value> = serde_json::from_slice(body)?;
    let all = entries.len();
    let good: Vec<T> = entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect();
    let left_out = all - good.len();
    Ok((good, left_out))
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Consul gives the union of all tags in another order each time.
fn sorted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Arc<str>>, D::Error> {
    let mut tags: Vec<Arc<str>> = null_is_default(deserializer)?;
    tags.sort_unstable();
    Ok(tags)
}

fn base64_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_be_null_and_a_session_missing() {
        let body = br#"[{"LockIndex":0,"Key":"tricot/a","Flags":42,"Value":"aGVsbG8=","CreateIndex":37,"ModifyIndex":38},
            {"Key":"e","Value":null,"ModifyIndex":1,"Session":"s","New":[]}]"#;

        let (pairs, left_out) = list::<KvPair>(body).unwrap();

        assert_eq!(left_out, 0);
        assert_eq!((&*pairs[0].key, &pairs[0].value[..], pairs[0].flags), ("tricot/a", &b"hello"[..], 42));
        assert_eq!((pairs[0].modify_index, pairs[0].session.as_deref()), (38, None));
        assert!(pairs[1].value.is_empty());
        assert_eq!(pairs[1].session.as_deref(), Some("s"));
        assert!(!format!("{:?}", pairs[0]).contains("hello"));
    }

    #[test]
    fn an_entry_that_makes_no_sense_is_left_out_alone() {
        let body = br#"[{"Key":"a","ModifyIndex":1},{"Key":7},null,{"Key":"b","Value":"%","ModifyIndex":1},
            {"Key":"c","ModifyIndex":2}]"#;

        let (pairs, left_out) = list::<KvPair>(body).unwrap();

        assert_eq!(pairs.iter().map(|pair| &*pair.key).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(left_out, 3);
        assert!(list::<KvPair>(b"null").unwrap().0.is_empty());
        assert!(list::<KvPair>(br#"{"Key":"a"}"#).is_err());
        assert!(list::<KvPair>(br#"[{"Key""#).is_err());
    }

    #[test]
    fn tags_may_be_null_and_are_in_order() {
        let services: ServiceTags =
            serde_json::from_str(r#"{"consul":[],"web":["b","a"],"x":null}"#).unwrap();

        assert_eq!(services["web"][..], ["a".into(), "b".into()]);
        assert!(services["x"].is_empty());
    }
}
