//! One request: what is asked for, and how sure the answer must be.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;

/// How sure a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Consistency {
    /// The leader answers, by its own belief to be one. What Consul calls its default mode.
    Leader,
    /// Any server answers, also while there is no leader. The default for watches.
    #[default]
    Stale,
    /// The leader answers, after a majority has confirmed that it is one.
    Consistent,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// The path without the query, for people.
    pub(crate) what: Arc<str>,
    /// Path and query, encoded, without the prefix of the address.
    pub(crate) uri: String,
    pub(crate) body: Bytes,
    /// How long the whole exchange may take. Unset: the client's limit for the kind of request.
    pub(crate) within: Option<Duration>,
}

impl Ask {
    pub(crate) fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn put(path: &str, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::new(Method::PUT, path) }
    }

    pub(crate) fn new(method: Method, path: &str) -> Self {
        Self { method, what: path.into(), uri: path.into(), body: Bytes::new(), within: None }
    }

    /// Adds the last part of the path, whatever is in it.
    pub(crate) fn segment(mut self, segment: &str) -> Self {
        encode(&mut self.uri, segment, b"");
        self.what = format!("{}{segment}", self.what).into();
        self
    }

    /// Adds the last parts of the path, with the slashes between them.
    pub(crate) fn segments(mut self, segments: &str) -> Self {
        encode(&mut self.uri, segments, b"/");
        self.what = format!("{}{segments}", self.what).into();
        self
    }

    pub(crate) fn param(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self = self.flag(name);
        self.uri.push('=');
        encode(&mut self.uri, value.as_ref(), b"");
        self
    }

    pub(crate) fn flag(mut self, name: &str) -> Self {
        let separator = if self.uri.contains('?') { '&' } else { '?' };
        let _ = write!(self.uri, "{separator}{name}");
        self
    }

    pub(crate) fn consistency(self, consistency: Consistency) -> Self {
        match consistency {
            Consistency::Leader => self,
            Consistency::Stale => self.flag("stale"),
            Consistency::Consistent => self.flag("consistent"),
        }
    }

    pub(crate) fn datacenter(self, datacenter: Option<&str>) -> Self {
        match datacenter {
            Some(datacenter) => self.param("dc", datacenter),
            None => self,
        }
    }

    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.within = Some(limit);
        self
    }
}

/// Appends text of which everything but unreserved characters (RFC 3986 section 2.3) and `also` is escaped.
fn encode(into: &mut String, text: &str, also: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.contains(&byte) {
            into.push(byte.into());
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_shown_as_they_are() {
        let ask = Ask::get("/v1/health/service/")
            .segment("a b/ü")
            .datacenter(Some("dc 1"))
            .consistency(Consistency::Stale)
            .param("index", "7");

        assert_eq!(ask.uri, "/v1/health/service/a%20b%2F%C3%BC?dc=dc%201&stale&index=7");
        assert_eq!(&*ask.what, "/v1/health/service/a b/ü");
        assert_eq!(Ask::get("/v1/kv/").segments("a*/b?").uri, "/v1/kv/a%2A/b%3F");
    }
}
