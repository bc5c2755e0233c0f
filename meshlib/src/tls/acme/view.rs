//! What a manager knows, for status pages.

use std::sync::Arc;
use std::time::SystemTime;

/// A name and its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameView {
    /// The name.
    pub name: Arc<str>,
    /// How it stands with it.
    pub state: NameState,
    /// Until when its certificate is valid. `None`: there is none but a self-signed one.
    pub not_after: Option<SystemTime>,
    /// When it is tried again, while it [backs off](NameState::BackingOff).
    pub retry_after: Option<SystemTime>,
    /// Why the last order came to nothing, or what the store says, while it backs off.
    pub error: Option<Arc<str>>,
}

/// How it stands with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NameState {
    /// It has a certificate.
    Valid,
    /// A certificate is being ordered, or waits for its turn.
    Renewing,
    /// It has none, or one that has expired, and none is being ordered here; another node may do so.
    SelfSigned,
    /// The last order came to nothing, and the next may not be placed yet; or one is needed and the store fails. It may
    /// have a certificate all the same.
    BackingOff,
}

impl NameState {
    /// In one word, for metrics and status pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Renewing => "renewing",
            Self::SelfSigned => "self_signed",
            Self::BackingOff => "backing_off",
        }
    }
}
