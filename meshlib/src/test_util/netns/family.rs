//! The address families.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The loopback address.
    pub fn loopback(self) -> IpAddr {
        self.choose(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST)
    }

    /// The address that stands for every address.
    pub fn unspecified(self) -> IpAddr {
        self.choose(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)
    }

    pub(super) fn choose(self, v4: impl Into<Ipv4Addr>, v6: impl Into<Ipv6Addr>) -> IpAddr {
        match self {
            Self::V4 => v4.into().into(),
            Self::V6 => v6.into().into(),
        }
    }
}
