//! Why an order came to nothing, and how long that counts.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::store::StoreError;

/// The longest that a failure counts, unless the authority wants more.
const MOST: Duration = Duration::from_secs(24 * 3600);
/// How long an authority or a store that is out of reach is left alone at most.
const UNREACHABLE: Duration = Duration::from_secs(15 * 60);

/// Why an order came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The authority said no, and why.
    #[error("the authority says {kind}: {detail}")]
    Problem {
        /// The last part of the problem's type: `rejectedIdentifier`.
        kind: String,
        detail: String,
        retry_after: Option<Duration>,
    },
    /// The authority gave no answer that can be understood, or none at all.
    #[error("the authority is out of reach: {detail}")]
    Unreachable { detail: String, retry_after: Option<Duration> },
    #[error("the authority took longer than {0:?}")]
    TooSlow(Duration),
    #[error("the authority offers none of the allowed kinds of challenge")]
    NoChallenge,
    #[error("the authority asks for an external account, and the option `external_account` names none")]
    ExternalAccount,
    #[error("what was issued cannot be used")]
    Unusable(#[source] super::certificate::Unusable),
    #[error("no key can be made")]
    Key,
    #[error("the account in the store cannot be used: {0}")]
    Account(&'static str),
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// Nothing was asked for yet.
    #[error("the end has begun")]
    Ending,
    /// Another node has the lock by now, and will see to it.
    #[error("the lock was lost")]
    LockLost,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// All nodes leave the name alone for so long.
    Everyone(Duration),
    /// This node tries again after so long; another one may be better off.
    Here(Duration),
}

impl Failure {
    /// In one word, for metrics.
    pub(super) fn kind(&self) -> &str {
        match self {
            Self::Problem { kind, .. } => kind,
            Self::Unreachable { .. } => "unreachable",
            Self::TooSlow(_) => "timeout",
            Self::NoChallenge => "no_challenge",
            Self::ExternalAccount => "external_account",
            Self::Unusable(_) => "unusable",
            Self::Key => "key",
            Self::Account(_) => "account",
            Self::Store(_) => "store",
            Self::Ending => "ending",
            Self::LockLost => "lock_lost",
        }
    }

    /// What to do after so many failures in a row, this one included.
    pub(super) fn reaction(&self, failures: u32, first: Duration) -> Reaction {
        let doubled = |most| Backoff::new(first, most).exact().delay_after(failures.saturating_sub(1));
        match self {
            Self::Problem { kind, retry_after, .. } => Reaction::Everyone(match kind.as_str() {
                "rateLimited" => retry_after.unwrap_or(Duration::from_secs(3600)).max(first),
                // They are refused for what they are, or by their owner.
                "rejectedIdentifier" | "malformed" | "caa" => MOST,
                _ => doubled(MOST).max(retry_after.unwrap_or_default()),
            }),
            Self::Unreachable { retry_after, .. } => {
                Reaction::Here(doubled(UNREACHABLE).max(retry_after.unwrap_or_default()))
            }
            Self::Store(_) | Self::Key | Self::Account(_) => Reaction::Here(doubled(UNREACHABLE)),
            Self::Ending => Reaction::Here(Duration::ZERO),
            Self::LockLost => Reaction::Here(first.min(Duration::from_secs(10))),
            Self::TooSlow(_) | Self::NoChallenge | Self::ExternalAccount | Self::Unusable(_) => {
                Reaction::Everyone(doubled(MOST))
            }
        }
    }

    /// What an ACME call said. `seen` is what the answer's head said.
    pub(super) fn from_acme(error: instant_acme::Error, retry_after: Option<Duration>) -> Self {
        match error {
            instant_acme::Error::Api(problem) => Self::from_problem(&problem, retry_after),
            instant_acme::Error::KeyRejected => Self::Account("its key is not one for P-256"),
            error => {
                let error: tower::BoxError = error.into();
                Self::Unreachable { detail: crate::error::Chain(&*error).to_string(), retry_after }
            }
        }
    }

    pub(super) fn from_problem(problem: &instant_acme::Problem, retry_after: Option<Duration>) -> Self {
        let kind = problem.r#type.as_deref().unwrap_or("unknown").rsplit(':').next().unwrap_or("unknown");
        let kind = if problem.status == Some(429) { "rateLimited" } else { kind };
        let mut detail = problem.detail.clone().unwrap_or_default();
        for sub in &problem.subproblems {
            detail.push_str("; ");
            detail.push_str(sub.detail.as_deref().unwrap_or("no detail"));
        }
        // The authority chooses the word: it must be one.
        let kind = kind.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        Self::Problem { kind, detail: detail.chars().take(500).collect(), retry_after }
    }

    pub(super) fn is(&self, problem: &str) -> bool {
        matches!(self, Self::Problem { kind, .. } if kind == problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn problem(kind: &str, retry_after: Option<Duration>) -> Failure {
        let problem =
            serde_json::json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "d"});
        Failure::from_problem(&serde_json::from_value(problem).unwrap(), retry_after)
    }

    #[test]
    fn each_problem_has_its_pause() {
        for (kind, retry_after, failures, pause) in [
            ("rejectedIdentifier", None, 1, MOST),
            ("malformed", None, 1, MOST),
            ("caa", None, 1, MOST),
            ("connection", None, 1, MINUTE),
            ("connection", None, 3, 4 * MINUTE),
            ("unauthorized", None, 60, MOST),
            ("serverInternal", Some(10 * MINUTE), 1, 10 * MINUTE),
            ("rateLimited", None, 1, 60 * MINUTE),
            ("rateLimited", Some(7 * MINUTE), 1, 7 * MINUTE),
            ("somethingNew", None, 2, 2 * MINUTE),
        ] {
            let failure = problem(kind, retry_after);
            assert_eq!(failure.kind(), kind);
            assert_eq!(failure.reaction(failures, MINUTE), Reaction::Everyone(pause), "{kind}");
        }
    }

    #[test]
    fn what_is_wrong_here_alone_does_not_stop_the_others() {
        let unreachable = Failure::Unreachable { detail: String::new(), retry_after: None };

        assert_eq!(unreachable.reaction(1, MINUTE), Reaction::Here(MINUTE));
        assert_eq!(unreachable.reaction(30, MINUTE), Reaction::Here(UNREACHABLE));
        assert!(matches!(Failure::LockLost.reaction(1, MINUTE), Reaction::Here(_)));
    }

    #[test]
    fn the_authoritys_words_are_kept_short() {
        let failure = problem(&"x y\n".repeat(100), None);

        assert!(failure.kind().len() <= 40 && !failure.kind().contains(['\n', ' ']));
        assert_eq!(problem("", None).kind(), "");
    }
}
