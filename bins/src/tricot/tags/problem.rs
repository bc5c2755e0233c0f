//! What is wrong with a tag, in words for whoever wrote it.

use std::fmt;

/// Why a tag cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// It begins as the tags of tricot do and is none of them.
    #[error("{word:?} is not known to tricot")]
    UnknownWord {
        /// Its first word.
        word: Box<str>,
    },
    /// It begins nearly as the tags of tricot do.
    #[error("{word:?} is not known to tricot; is {meant} meant?")]
    Misspelt {
        /// Its first word.
        word: Box<str>,
        /// The word that is probably meant.
        meant: &'static str,
    },
    /// There is no host.
    #[error("a host is missing, such as app.example.com")]
    NoHost,
    /// The host is a URL.
    #[error("a host is wanted without {scheme}://, such as app.example.com")]
    Scheme {
        /// What the URL begins with.
        scheme: Box<str>,
    },
    /// The host has characters that no host has.
    #[error("host {host:?} has a character in it that no host has: {character:?}")]
    Character {
        /// The host as it is given.
        host: Box<str>,
        /// The first of them.
        character: char,
    },
    /// The host has an empty or an overlong part, or is too long in all.
    #[error(
        "host {host:?} has an empty part, one of more than 63 characters, or more than 253 characters in all"
    )]
    Length {
        /// The host as it is given.
        host: Box<str>,
    },
    /// The host has letters that cannot be written in ASCII.
    #[error("host {host:?} cannot be written in ASCII, as DNS needs it")]
    Idna {
        /// The host as it is given.
        host: Box<str>,
    },
    /// The pattern of the host is broken.
    #[error("host {host:?} has a [ that is never closed, or nothing between [ and ]")]
    Brackets {
        /// The host as it is given.
        host: Box<str>,
    },
    /// A redirect leads from or to a host that is a pattern.
    #[error("a redirect needs one host on either side, and {host:?} is a pattern")]
    RedirectPattern {
        /// The host as it is given.
        host: Box<str>,
    },
    /// The redirect has no target.
    #[error("the host to redirect to is missing")]
    NoTarget,
    /// The port to redirect to is none.
    #[error("{port:?} is no port to redirect to, which is a number from 1 to 65535")]
    Port {
        /// What is given.
        port: Box<str>,
    },
    /// The redirect leads to itself.
    #[error("the redirect leads to where it comes from")]
    RedirectLoop,
    /// There is no name of a header, or no value.
    #[error("a header needs a name and a value, such as X-Frame-Options DENY")]
    NoHeader,
    /// The name of a header is none.
    #[error("{name:?} is no name of a header")]
    HeaderName {
        /// What is given.
        name: Box<str>,
    },
    /// The value of a header is none.
    #[error("the value of header {name} has a character in it that none may have")]
    HeaderValue {
        /// The name of the header.
        name: Box<str>,
    },
    /// The header is about the connection or the length of a message.
    #[error("header {name} is set by the proxy itself")]
    HeaderReserved {
        /// The name of the header.
        name: Box<str>,
    },
    /// There are more headers than clients would take.
    #[error("an instance adds at most {limit} headers")]
    TooManyHeaders {
        /// How many are added.
        limit: usize,
    },
    /// What is asked is no URL.
    #[error("a URL is wanted that begins with http:// or https://")]
    Url,
    /// Another tag of the same instance has named somebody else to ask.
    #[error("another tag says already whom to ask")]
    SecondAsk,
}

/// What about a tag is not as its writer may think, although it is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagWarning {
    /// A port was left out of a host.
    #[error("port {port:?} of host {host:?} is left out: the proxy listens where it listens")]
    Port {
        /// The host without it.
        host: Box<str>,
        /// The port.
        port: Box<str>,
    },
    /// The path has a query or a fragment, which is never looked at.
    #[error("paths are compared without {text:?}")]
    Query {
        /// What is left out.
        text: Box<str>,
    },
    /// The path has characters that paths of requests do not have.
    #[error("no request has the path {path:?}: {character:?} would be percent-encoded")]
    Path {
        /// The path.
        path: Box<str>,
        /// The first of them.
        character: char,
    },
    /// The priority is none.
    #[error("{text:?} is no priority, which is a number from 0 to 4294967295; 100 is used")]
    Priority {
        /// What is given.
        text: Box<str>,
    },
    /// The status of a redirect is none.
    #[error("{text:?} is no status of a redirect, which is 301, 302, 303, 307 or 308; 302 is used")]
    Status {
        /// What is given.
        text: Box<str>,
    },
    /// Something comes after the end.
    #[error("{text:?} at the end is ignored")]
    Trailing {
        /// What comes.
        text: Box<str>,
    },
}

/// A tag, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The tag is left out.
    Refused {
        /// The tag, cut off if it is very long.
        tag: Box<str>,
        /// Why.
        error: TagError,
    },
    /// The tag is used, with a reservation.
    Doubtful {
        /// The tag, cut off if it is very long.
        tag: Box<str>,
        /// Which.
        warning: TagWarning,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { tag, error } => write!(f, "tag {tag:?} is ignored: {error}"),
            Self::Doubtful { tag, warning } => write!(f, "tag {tag:?}: {warning}"),
        }
    }
}

/// A text that may be shown to somebody: cut off if it is very long.
pub(super) fn shown(text: &str) -> Box<str> {
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// How many characters of a tag are worth reading.
const MOST_SHOWN: usize = 200;
