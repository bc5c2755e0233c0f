//! Headers that are added to the answers of an instance.

use http::HeaderName;
use http::HeaderValue;

use super::BLANKS;
use super::problem::TagError;
use super::problem::shown;
use super::word;

/// A header of every answer of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AddHeader {
    /// Its name; never one that is about the connection or the length of a message.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
}

pub(super) fn parse(rest: &str) -> Result<AddHeader, TagError> {
    let (text, value) = word(rest);
    let value = value.trim_end_matches(BLANKS);
    if text.is_empty() || value.is_empty() {
        return Err(TagError::NoHeader);
    }
    let name: HeaderName = text.parse().map_err(|_| TagError::HeaderName { name: shown(text) })?;
    if is_reserved(name.as_str()) {
        return Err(TagError::HeaderReserved { name: name.as_str().into() });
    }
    // Not `from_str`, which takes ASCII only.
    match HeaderValue::from_bytes(value.as_bytes()) {
        Ok(value) => Ok(AddHeader { name, value }),
        Err(_) => Err(TagError::HeaderValue { name: shown(name.as_str()) }),
    }
}

/// RFC 9110 section 7.6.1 and what is like it: a value from a tag would break the framing of messages.
fn is_reserved(name: &str) -> bool {
    const NAMES: [&str; 7] =
        ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];
    NAMES.contains(&name) || name.starts_with("proxy-")
}
