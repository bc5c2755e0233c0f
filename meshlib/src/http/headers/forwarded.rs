//! What an endpoint is told about the client.

use std::fmt::Write;
use std::net::IpAddr;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use super::super::Accepted;

/// Says whom to believe what it says about those before it.
pub(super) type Trusts = dyn Fn(IpAddr) -> bool + Send + Sync;

/// How an endpoint learns who sent a request.
///
/// What a client says about itself in these fields is dropped, unless the client is [trusted](super::HeadersLayer::trusting);
/// then its `X-Forwarded-For` and `Forwarded` are extended and the others are left as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forwarded {
    /// Not at all. What is there goes through as it is.
    Untouched,
    /// By `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Real-IP`.
    #[default]
    X,
    /// By these, `X-Forwarded-Port`, and `Forwarded` of RFC 7239.
    Rfc7239,
}

impl Forwarded {
    /// Says who sent a request. `claims` says whether there is any field in which its client has said something.
    pub(super) fn tell(
        self,
        headers: &mut HeaderMap,
        claims: bool,
        trusts: Option<&Trusts>,
        host: Option<&HeaderValue>,
        accepted: Option<&Accepted>,
    ) {
        let session = accepted.map(Accepted::session);
        let peer = session.and_then(|session| session.peer).map(|peer| peer.ip().to_canonical());
        let trusted = claims && peer.is_some_and(|peer| trusts.is_some_and(|trusts| trusts(peer)));
        if claims && !trusted {
            for name in
                [&X_FORWARDED_FOR, &X_FORWARDED_PROTO, &X_FORWARDED_HOST, &X_FORWARDED_PORT, &X_REAL_IP]
            {
                headers.remove(name);
            }
            headers.remove(header::FORWARDED);
        }
        // At once instead of one by one.
        headers.reserve(TOLD);
        let proto = if session.is_some_and(|session| session.tls.is_some()) { "https" } else { "http" };
        let proto = HeaderValue::from_static(proto);
        if let Some(peer) = peer
            && let Some(text) = accepted.and_then(Accepted::peer)
        {
            if self == Self::Rfc7239
                && let Ok(member) = HeaderValue::try_from(forwarded(peer, &proto, host))
            {
                append_to_list(headers, &header::FORWARDED, member);
            }
            headers.entry(&X_REAL_IP).or_insert_with(|| text.clone());
            append_to_list(headers, &X_FORWARDED_FOR, text.clone());
        }
        if self == Self::Rfc7239
            && let Some(port) = session.and_then(|session| session.local)
        {
            headers.entry(&X_FORWARDED_PORT).or_insert_with(|| port.port().into());
        }
        headers.entry(&X_FORWARDED_PROTO).or_insert(proto);
        if let Some(host) = host {
            headers.entry(&X_FORWARDED_HOST).or_insert_with(|| host.clone());
        }
    }
}

/// Most fields that are added.
const TOLD: usize = 6;
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Adds a member to a list.
fn append_to_list(headers: &mut HeaderMap, name: &HeaderName, member: HeaderValue) {
    let mut list = Vec::new();
    for field in headers.get_all(name).iter().filter(|field| field.to_str().is_ok()) {
        list.extend_from_slice(field.as_bytes());
        list.extend_from_slice(b", ");
    }
    let value = if list.is_empty() {
        Some(member)
    } else {
        list.extend_from_slice(member.as_bytes());
        HeaderValue::try_from(list).ok()
    };
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

/// RFC 7239 section 4: an address of IPv6 is quoted and in brackets.
fn forwarded(peer: IpAddr, proto: &HeaderValue, host: Option<&HeaderValue>) -> String {
    let mut text = match peer {
        IpAddr::V4(peer) => format!("for={peer}"),
        IpAddr::V6(peer) => format!("for=\"[{peer}]\""),
    };
    if let Some(host) = host.and_then(|host| host.to_str().ok()) {
        // A host has no character that would have to be escaped.
        let _ = write!(text, ";host=\"{host}\"");
    }
    let _ = write!(text, ";proto={}", proto.to_str().unwrap_or_default());
    text
}
