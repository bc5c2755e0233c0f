//! Requests that are sent elsewhere.

use std::borrow::Cow;

use http::StatusCode;

use super::frontend::host_and_path;
use super::host::Host;
use super::host::HostPattern;
use super::host::without_port;
use super::nothing_more;
use super::problem::TagError;
use super::problem::TagWarning;
use super::problem::shown;
use super::word;

/// Requests under one host and path are sent to another.
///
/// What comes after [`from_path`](Self::from_path) is put after [`to_path`](Self::to_path), query included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Redirect {
    /// The host of the requests, which needs a certificate too.
    pub from_host: Host,
    /// What their path begins with; empty for every path.
    pub from_path: Box<str>,
    /// Where they are sent.
    pub to_host: Host,
    /// The port there; `None` for the one at which clients see this proxy.
    pub to_port: Option<u16>,
    /// What replaces [`from_path`](Self::from_path); empty for nothing.
    pub to_path: Box<str>,
    /// 301, 302, 303, 307 or 308. Default 302.
    pub status: StatusCode,
}

impl Redirect {
    /// Where requests are sent: `host[:port][path]`.
    pub fn target(&self) -> String {
        let port = self.to_port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}{}", self.to_host, self.to_path)
    }
}

pub(super) fn parse(rest: &str, warnings: &mut Vec<TagWarning>) -> Result<Redirect, TagError> {
    let (from, rest) = word(rest);
    let (to, rest) = word(rest);
    let (from_host, from_path) = one_host(from, warnings)?;
    if to.is_empty() {
        return Err(TagError::NoTarget);
    }
    let (to, to_port) = target(to)?;
    let (to_host, to_path) = one_host(&to, warnings)?;
    // The target would be under the source again. With a port it is another server's, as far as can be known here.
    if from_host == to_host && to_port.is_none() && to_path.starts_with(&*from_path) {
        return Err(TagError::RedirectLoop);
    }
    let (text, rest) = word(rest);
    let status = match text {
        "301" => StatusCode::MOVED_PERMANENTLY,
        "303" => StatusCode::SEE_OTHER,
        "307" => StatusCode::TEMPORARY_REDIRECT,
        "308" => StatusCode::PERMANENT_REDIRECT,
        "302" | "" => StatusCode::FOUND,
        _ => {
            warnings.push(TagWarning::Status { text: shown(text) });
            StatusCode::FOUND
        }
    };
    nothing_more(rest, warnings);
    Ok(Redirect { from_host, from_path, to_host, to_port, to_path, status })
}

/// Takes the port out of a target, if it has one.
fn target(place: &str) -> Result<(Cow<'_, str>, Option<u16>), TagError> {
    let (host, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    // What has two slashes after its colon is a URL, which is refused as such.
    let Some((host, port)) = without_port(host).filter(|_| !path.starts_with("//")) else {
        return Ok((place.into(), None));
    };
    match port.parse() {
        Ok(0) | Err(_) => Err(TagError::Port { port: shown(port) }),
        Ok(port) => Ok((format!("{host}{path}").into(), Some(port))),
    }
}

fn one_host(place: &str, warnings: &mut Vec<TagWarning>) -> Result<(Host, Box<str>), TagError> {
    match host_and_path(place, warnings)? {
        (HostPattern::Exact(host), path) => Ok((host, path)),
        (pattern, _) => Err(TagError::RedirectPattern { host: shown(&pattern.to_string()) }),
    }
}
