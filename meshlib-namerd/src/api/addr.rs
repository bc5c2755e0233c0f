//! The addresses of one name.

use meshlib::Endpoint;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use super::Address;
use super::DecodeError;
use super::Meta;
use super::Skipped;
use super::decode;

/// What is known about the addresses of a name: the answer of `resolve` and `addr`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Addr {
    /// The name has these addresses, perhaps none.
    Bound {
        /// The addresses, in no order.
        addrs: Vec<Address>,
        /// Facts about all of them.
        meta: Meta,
    },
    /// There is no such name.
    Neg,
    /// Not known yet.
    Pending,
    /// Looking it up failed.
    Failed {
        /// Why, if that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
    },
}

impl Addr {
    /// A name that has these addresses.
    pub fn bound<A: Into<Address>>(addrs: impl IntoIterator<Item = A>) -> Self {
        Self::Bound { addrs: addrs.into_iter().map(Into::into).collect(), meta: Meta::new() }
    }

    /// A name whose lookup failed.
    pub fn failed(cause: impl Into<String>) -> Self {
        Self::Failed { cause: Some(cause.into()) }
    }

    /// Sets what is known about all addresses. Nothing happens to a name that has none.
    #[must_use]
    pub fn with_meta(mut self, facts: Meta) -> Self {
        if let Self::Bound { meta, .. } = &mut self {
            *meta = facts;
        }
        self
    }

    /// Reads an answer.
    ///
    /// Unknown keys are ignored, missing `addrs` and `meta` are empty, and an address that cannot be used is skipped.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the answer is not JSON, no object, or of no type named here.
    pub fn from_json(json: &[u8], skipped: &mut Skipped) -> Result<Self, DecodeError> {
        let value = serde_json::from_slice(json)?;
        Self::decode(decode::object(value, "the answer")?, skipped)
    }

    pub(super) fn decode(
        mut members: Map<String, Value>,
        skipped: &mut Skipped,
    ) -> Result<Self, DecodeError> {
        let kind = decode::text(&mut members, "type")?;
        match kind.as_str() {
            "bound" => {
                let addrs = decode::list(&mut members, "addrs")?;
                Ok(Self::Bound {
                    addrs: addrs
                        .into_iter()
                        .filter_map(|address| Address::decode(address, skipped))
                        .collect(),
                    meta: Meta::from_value(members.remove("meta")),
                })
            }
            "neg" => Ok(Self::Neg),
            "pending" => Ok(Self::Pending),
            "failed" => Ok(Self::Failed { cause: decode::text(&mut members, "cause").ok() }),
            other => Err(DecodeError::Type(decode::excerpt(other))),
        }
    }

    /// The compact JSON that namerd writes, without the newline that ends it there.
    pub fn to_json(&self) -> String {
        // Keys are texts and no writer is involved, so this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The endpoints; none unless the name is bound.
    ///
    /// A weight that is none (negative, not finite, not a number) counts as 1.0. `nodeName` becomes the node; all other
    /// facts, the set's and then the address's own, become labels.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let Self::Bound { addrs, meta } = self else {
            return Vec::new();
        };
        addrs.iter().map(|address| address.endpoint(meta)).collect()
    }
}
