//! Hosts and patterns of them, in one spelling.

use std::fmt;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use super::glob::Glob;
use super::problem::TagError;
use super::problem::TagWarning;
use super::problem::shown;

/// Which hosts are meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostPattern {
    /// One.
    Exact(Host),
    /// All names below this one, at any depth; not the name itself.
    Suffix(Host),
    /// Others of a form.
    Glob(Glob),
    /// All.
    Any,
}

impl HostPattern {
    /// Whether a host is meant. It must be in lower case, without port and without a dot at its end.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(own) => own.as_str() == host,
            Self::Suffix(own) => host
                .strip_suffix(own.as_str())
                .and_then(|below| below.strip_suffix('.'))
                .is_some_and(|below| !below.is_empty()),
            Self::Glob(glob) => glob.matches(host),
            Self::Any => true,
        }
    }

    /// Whether this is one host for which a public certificate authority may give a certificate.
    pub fn is_public_name(&self) -> bool {
        matches!(self, Self::Exact(host) if host.is_public_name())
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Suffix(host) => write!(f, "*.{host}"),
            Self::Glob(glob) => glob.fmt(f),
            Self::Any => f.write_str("*"),
        }
    }
}

/// A host: a name in lower case, in ASCII and without a dot at its end, or an IP address, with brackets around it if it is
/// one of IPv6.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Box<str>);

impl Host {
    /// Reads a host as people and browsers write it. Names that are not in ASCII become what DNS calls them
    /// ([UTS 46](https://www.unicode.org/reports/tr46/)).
    ///
    /// # Errors
    ///
    /// Says what about it no host has.
    pub fn new(text: &str) -> Result<Self, TagError> {
        match ipv6(text) {
            Some(address) => Ok(Self(format!("[{address}]").into())),
            None => Self::name(text),
        }
    }

    /// Reads a host that is no address of IPv6.
    fn name(text: &str) -> Result<Self, TagError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        // Conversion would take its time. A character has at most four bytes.
        if name.len() > 4 * MOST_HOST {
            return Err(TagError::Length { host: shown(text) });
        }
        let name = if name.is_ascii() {
            name.to_ascii_lowercase()
        } else {
            let ascii = idna::domain_to_ascii(name).map_err(|_| TagError::Idna { host: shown(text) })?;
            // An ideographic full stop has become a dot.
            ascii.strip_suffix('.').map(str::to_owned).unwrap_or(ascii)
        };
        if let Some(character) = name.chars().find(|c| !is_of_host(*c) && *c != '.') {
            return Err(TagError::Character { host: shown(text), character });
        }
        if name.len() > MOST_HOST || name.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(TagError::Length { host: shown(text) });
        }
        Ok(Self(name.into()))
    }

    /// As it is compared with the hosts of requests.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a public certificate authority may give a certificate for it: a name of two labels or more, of letters,
    /// digits and hyphens, none of which stands at either end of a label, and the last label is no number.
    ///
    /// Whether the name exists, and whether its last label does, is not looked at.
    pub fn is_public_name(&self) -> bool {
        let is_label = |label: &str| {
            !label.starts_with('-') && !label.ends_with('-') && !label.contains(['_', '[', ':'])
        };
        let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
        self.0.split('.').all(is_label)
            && self.0.rsplit_once('.').is_some_and(|(_, top)| !is_number(top))
            && self.0.parse::<Ipv4Addr>().is_err()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the host of a tag, which may be a pattern and may have a port.
pub(super) fn host_pattern(text: &str, warnings: &mut Vec<TagWarning>) -> Result<HostPattern, TagError> {
    let host = match without_port(text) {
        Some((host, port)) => {
            warnings.push(TagWarning::Port { host: shown(host), port: shown(port) });
            host
        }
        None => text,
    };
    if host.is_empty() || host == "." {
        return Err(TagError::NoHost);
    }
    if host == "*" {
        return Ok(HostPattern::Any);
    }
    if !host.contains(['*', '?', '[']) || ipv6(host).is_some() {
        return Host::new(host).map(HostPattern::Exact);
    }
    if let Some(name) = host.strip_prefix("*.")
        && !name.contains(['*', '?', '['])
    {
        // Nothing is below an address.
        return Host::name(name).map(HostPattern::Suffix);
    }
    if host.len() > MOST_GLOB {
        return Err(TagError::Length { host: shown(host) });
    }
    let glob = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    // No host has a second dot there, and what is written once more must not lose one.
    if glob.ends_with('.') {
        return Err(TagError::Length { host: shown(host) });
    }
    Glob::new(&glob).map(HostPattern::Glob)
}

/// Whether a character is one of a label. The underscore is none of a host's by RFC 1123 section 2.1, but names with it
/// are in use, and requests for them arrive.
pub(super) fn is_of_host(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
}

/// The host and the port, if there is one; it may be empty, as in `host:`.
pub(super) fn without_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_port = port.bytes().all(|b| b.is_ascii_digit());
    // Otherwise the colon is part of an address of IPv6.
    (is_port && (!host.contains(':') || host.ends_with(']'))).then_some((host, port))
}

/// An address of IPv6, with or without brackets.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inside.unwrap_or(text).parse().ok()
}

/// RFC 1035 section 2.3.4: 255 bytes with the length of each label, and of the root.
const MOST_HOST: usize = 253;

/// A pattern may be a little longer than the hosts that it matches.
const MOST_GLOB: usize = 512;
