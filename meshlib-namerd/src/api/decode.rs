//! Reading JSON without falling over what is odd in it.

use serde_json::Map;
use serde_json::Value;

/// Why an answer cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is not JSON, or nested deeper than any answer of namerd.
    #[error("not JSON")]
    Json(#[from] serde_json::Error),
    /// It lacks something, or has something else in its place.
    #[error("{at} is not {expected}")]
    Shape {
        /// Where: a key, or `the answer`.
        at: &'static str,
        /// What should be there.
        expected: &'static str,
    },
    /// It is of a type that answers of this kind do not have.
    #[error("unknown type {0:?}")]
    Type(String),
    /// A tree is nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    #[error("the tree is nested too deeply")]
    TooDeep,
}

/// What was left out of an answer because it could not be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// How many addresses were left out, or changed to be usable.
    pub count: usize,
    /// What was wrong with the first of them.
    pub first: Option<String>,
}

impl Skipped {
    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Counts one. Only the first reason is kept, so that a hostile answer cannot fill the memory with reasons.
    pub(super) fn note(&mut self, reason: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.is_none() {
            self.first = Some(reason());
        }
    }
}

/// The members of an object.
pub(super) fn object(value: Value, at: &'static str) -> Result<Map<String, Value>, DecodeError> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(DecodeError::Shape { at, expected: "an object" }),
    }
}

/// Takes a list out of an object. Absent or null is empty.
pub(super) fn list(members: &mut Map<String, Value>, key: &'static str) -> Result<Vec<Value>, DecodeError> {
    match members.remove(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(DecodeError::Shape { at: key, expected: "a list" }),
    }
}

/// Takes a text out of an object.
pub(super) fn text(members: &mut Map<String, Value>, key: &'static str) -> Result<String, DecodeError> {
    match members.remove(key) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(DecodeError::Shape { at: key, expected: "a text" }),
    }
}

/// A number, or a text that is one: some namers write weights as text.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Cuts a text of a peer to what fits a log line.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}
