//! Which requests come to an instance.

use std::fmt;

use super::host::HostPattern;
use super::host::host_pattern;
use super::nothing_more;
use super::problem::TagError;
use super::problem::TagWarning;
use super::problem::shown;
use super::word;

/// The priority of a frontend that names none.
pub const DEFAULT_PRIORITY: u32 = 100;

/// Which requests come to an instance, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Frontend {
    /// The hosts.
    pub host: HostPattern,
    /// What the path begins with; empty for every path, otherwise with a slash at its beginning. Passed on unchanged.
    pub path: Box<str>,
    /// Only the highest priority that has a usable instance is used. Default [`DEFAULT_PRIORITY`].
    pub priority: u32,
    /// What the instance speaks.
    pub backend: Backend,
}

/// What an instance speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// HTTP in plain text.
    Http,
    /// HTTP over TLS; the certificate is not looked at.
    Https,
}

/// As in a tag, without its first word; the priority only if it is not the default.
impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)?;
        if self.priority == DEFAULT_PRIORITY { Ok(()) } else { write!(f, " {}", self.priority) }
    }
}

pub(super) fn parse(
    backend: Backend,
    rest: &str,
    warnings: &mut Vec<TagWarning>,
) -> Result<Frontend, TagError> {
    let (place, rest) = word(rest);
    let (host, path) = host_and_path(place, warnings)?;
    let (text, rest) = word(rest);
    let priority = match priority(text) {
        Some(priority) => priority,
        None if text.is_empty() => DEFAULT_PRIORITY,
        None => {
            warnings.push(TagWarning::Priority { text: shown(text) });
            DEFAULT_PRIORITY
        }
    };
    nothing_more(rest, warnings);
    Ok(Frontend { host, path, priority, backend })
}

/// Reads `host[path]`. A path of `/` is none.
pub(super) fn host_and_path(
    place: &str,
    warnings: &mut Vec<TagWarning>,
) -> Result<(HostPattern, Box<str>), TagError> {
    let (host, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    if let Some(scheme) = host.strip_suffix(':')
        && path.starts_with("//")
        && !scheme.is_empty()
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
    {
        return Err(TagError::Scheme { scheme: shown(scheme) });
    }
    let host = host_pattern(host, warnings)?;
    Ok((host, path_prefix(path, warnings)))
}

fn path_prefix(path: &str, warnings: &mut Vec<TagWarning>) -> Box<str> {
    let (path, query) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    if !query.is_empty() {
        warnings.push(TagWarning::Query { text: shown(query) });
    }
    // RFC 3986 section 3.3, and what clients send as it is although they should not.
    let is_sent = |c: char| c.is_ascii_graphic() && !"\"<>`".contains(c);
    if let Some(character) = path.chars().find(|c| !is_sent(*c)) {
        warnings.push(TagWarning::Path { path: shown(path), character });
    }
    if path == "/" { "".into() } else { path.into() }
}

fn priority(text: &str) -> Option<u32> {
    // `parse` takes a sign as well.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}
