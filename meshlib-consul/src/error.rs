//! Why Consul did not do what it was asked to.

use std::sync::Arc;
use std::time::Duration;

use meshlib::resolve::ResolveError;
use meshlib::store::StoreError;

/// Why a request to Consul failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsulError {
    /// No connection to Consul came about, or it broke.
    #[error("consul at {authority} unreachable")]
    Unreachable {
        /// Whom we asked.
        authority: Arc<str>,
        /// What happened.
        source: Arc<meshlib::Error>,
    },
    /// It took too long.
    #[error("consul at {authority} did not answer within {after:?}")]
    Timeout {
        /// Whom we asked.
        authority: Arc<str>,
        /// The limit.
        after: Duration,
    },
    /// The token is unknown (`ACL not found`) or lacks the right.
    #[error("consul denies {what}: {reason}")]
    Denied {
        /// What was asked for.
        what: Arc<str>,
        /// In Consul's words.
        reason: String,
    },
    /// The agent has as many connections of ours as it allows.
    #[error("consul takes no more connections from here")]
    Busy,
    /// It answered with something else than success.
    #[error("consul answered {status} for {what}: {reason}")]
    Status {
        /// What was asked for.
        what: Arc<str>,
        /// The status code.
        status: u16,
        /// The beginning of the body.
        reason: String,
    },
    /// Its answer could not be understood.
    #[error("unexpected answer for {what}")]
    Decode {
        /// What was asked for.
        what: Arc<str>,
        /// What is wrong with the answer.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Its answer is larger than what is read.
    #[error("the answer for {what} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        what: Arc<str>,
        /// The limit.
        limit: usize,
    },
    /// The answer cannot be watched: it has no index.
    #[error("the answer for {what} has no index")]
    NoIndex {
        /// What was asked for.
        what: Arc<str>,
    },
    /// Consul cannot keep a value under such a key.
    #[error("{key:?} cannot be a key: {reason}")]
    Key {
        /// The key.
        key: String,
        /// Why not.
        reason: &'static str,
    },
    /// Consul keeps no value as large.
    #[error("the value of {key:?} is larger than consul takes")]
    ValueTooLarge {
        /// The key.
        key: String,
    },
}

impl ConsulError {
    /// Whether it may help to ask again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Busy => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// Whether Consul knows no way to the datacenter that was asked about.
    pub fn is_unknown_datacenter(&self) -> bool {
        matches!(self, Self::Status { status: 500, reason, .. } if reason.contains("No path to datacenter"))
    }

    /// Whether Consul has lost its leader.
    pub fn is_leaderless(&self) -> bool {
        matches!(self, Self::Status { status: 500, reason, .. } if reason.contains("No cluster leader"))
    }

    /// Whether this says something about the token.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    pub(crate) fn decode(
        what: &Arc<str>,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Decode { what: Arc::clone(what), source: Arc::from(error.into()) }
    }
}

impl From<ConsulError> for ResolveError {
    fn from(error: ConsulError) -> Self {
        match error {
            ConsulError::Timeout { authority, after } => Self::Timeout { authority, after },
            ConsulError::Decode { what, source } => Self::Decode { name: what, source },
            ConsulError::Status { what, reason, status: 500.. } => Self::Undecided { name: what, reason },
            ConsulError::Status { what, status, .. } => Self::Status { name: what, status },
            error => Self::other(error),
        }
    }
}

impl From<ConsulError> for StoreError {
    fn from(error: ConsulError) -> Self {
        match error {
            ConsulError::Denied { what, .. } => Self::Denied { what: what.to_string() },
            ConsulError::Key { key, reason } => Self::Unfit { key, reason: reason.to_owned() },
            ConsulError::ValueTooLarge { key } => {
                Self::Unfit { key, reason: "the value is larger than 512 KiB".to_owned() }
            }
            error if error.is_transient() => Self::Unreachable(error.into()),
            error => Self::Garbled(error.into()),
        }
    }
}

/// Prints an error with its causes.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// The beginning of a body that says what went wrong, on one line.
pub(crate) fn reason(body: &[u8]) -> String {
    /// Longer texts are no sentences of Consul's.
    const MOST: usize = 300;
    let text = String::from_utf8_lossy(&body[..body.len().min(MOST)]);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(reason(b"No cluster\nleader\r\n"), "No cluster leader");
        assert!(reason(&[0xFF; 100_000]).len() < 1000);
    }

    #[test]
    fn errors_say_whether_to_ask_again() {
        let status = |status, reason: &str| ConsulError::Status {
            what: "web".into(),
            status,
            reason: reason.to_owned(),
        };

        assert!(status(500, "No path to datacenter").is_unknown_datacenter());
        assert!(status(500, "No cluster leader").is_leaderless());
        assert!(status(503, "").is_transient() && !status(400, "").is_transient());
        assert!(ConsulError::Busy.is_transient());
    }
}
