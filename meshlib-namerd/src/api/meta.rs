//! Facts about addresses, by key.

use serde::Serialize;
use serde::Serializer;
use serde::ser::SerializeMap;
use serde_json::Map;
use serde_json::Value;

use super::decode::number;

/// Facts that namerd passes on from a namer: any JSON by key.
///
/// Known are [`AUTHORITY`](Self::AUTHORITY), [`NODE_NAME`](Self::NODE_NAME) and [`WEIGHT`](Self::WEIGHT). They are
/// written first and in this order, as namerd does; the others follow sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta(Map<String, Value>);

impl Meta {
    /// Text: the authority that requests to the address carry.
    pub const AUTHORITY: &'static str = "authority";
    /// Text: the machine that the address is on.
    pub const NODE_NAME: &'static str = "nodeName";
    /// Number: the share of traffic, 1.0 where it is absent.
    pub const WEIGHT: &'static str = "endpoint_addr_weight";

    /// No facts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a text.
    #[must_use]
    pub fn with_text(mut self, key: impl Into<String>, text: impl Into<String>) -> Self {
        self.0.insert(key.into(), Value::String(text.into()));
        self
    }

    /// Sets a number. One that is not finite becomes null.
    #[must_use]
    pub fn with_number(mut self, key: impl Into<String>, number: f64) -> Self {
        self.0.insert(key.into(), number.into());
        self
    }

    /// Sets any JSON.
    ///
    /// # Errors
    ///
    /// [`DecodeError`](super::DecodeError) if the text is not JSON.
    pub fn with_json(mut self, key: impl Into<String>, json: &str) -> Result<Self, super::DecodeError> {
        self.0.insert(key.into(), serde_json::from_str(json)?);
        Ok(self)
    }

    /// Whether there are no facts.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A fact, if it is there and is a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// A fact, if it is there and is a number or a text that reads as one.
    pub fn number(&self, key: &str) -> Option<f64> {
        number(self.0.get(key)?)
    }

    /// All facts, those that are no text as JSON. Sorted by key.
    pub fn labels(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().map(|(key, value)| {
            let value = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (key.as_str(), value)
        })
    }

    /// Facts that are no object are none.
    pub(super) fn from_value(value: Option<Value>) -> Self {
        match value {
            Some(Value::Object(members)) => Self(members),
            _ => Self::default(),
        }
    }
}

impl Serialize for Meta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const FIRST: [&str; 3] = [Meta::AUTHORITY, Meta::NODE_NAME, Meta::WEIGHT];

        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for key in FIRST {
            if let Some(value) = self.0.get(key) {
                map.serialize_entry(key, value)?;
            }
        }
        for (key, value) in self.0.iter().filter(|(key, _)| !FIRST.contains(&key.as_str())) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}
