//! What servers of both generations have in common.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use super::path;
use crate::kit::load::fields::Fields;
use crate::kit::load::fields::Item;
use crate::kit::load::fields::Reader;

/// Time limits that every server may have, in either generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) idle: Option<Duration>,
    pub(super) handshake: Duration,
    pub(super) half_close: Option<Duration>,
}

impl Limits {
    /// Reads `idleTimeoutMs`, `handshakeTimeoutMs` and `halfCloseTimeoutMs`.
    pub(super) fn read(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Self {
        let mut millis = |name| fields.get(name).and_then(|item| reader.millis(item, 1));
        Self {
            idle: millis("idleTimeoutMs"),
            handshake: millis("handshakeTimeoutMs").unwrap_or(Duration::from_secs(10)),
            half_close: millis("halfCloseTimeoutMs"),
        }
    }
}

/// An `IP:PORT` literal.
pub(super) fn socket_addr(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<SocketAddr> {
    reader.parsed(item, |text| {
        text.parse().map_err(|_| {
            "is not an address; expected IP:PORT such as 127.0.0.1:7474 or \"[::1]:7474\", no host name"
                .to_string()
        })
    })
}

/// An IP literal.
pub(super) fn ip_addr(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<IpAddr> {
    reader.parsed(item, |text| {
        text.parse().map_err(|_| {
            "is not an IP address; expected one such as 127.0.0.1 or \"::1\", no host name or port"
                .to_string()
        })
    })
}

/// A port; 0 stands for any free one.
pub(super) fn port(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<u16> {
    reader.integer(item, 0..=u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
}

/// A logical name.
pub(super) fn logical_path(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<String> {
    reader.parsed(item, |text| path::check(text).map(|()| text.to_string()))
}
