//! Where the server of a connection is.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::str::FromStr;

/// Where connections go on to: `HOST:PORT`, each of which may be as dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    host: Host,
    /// `None`: as dialled.
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    Original,
    Loopback,
    Ip(IpAddr),
}

impl Target {
    pub(super) const ORIGINAL: Self = Self { host: Host::Original, port: None };

    /// The server on this machine, at the address that was dialled.
    pub(super) const fn original(port: u16) -> Self {
        Self { host: Host::Original, port: Some(port) }
    }

    /// The server on this machine, at a loopback address.
    pub(super) const fn loopback(port: u16) -> Self {
        Self { host: Host::Loopback, port: Some(port) }
    }

    /// Where a connection goes that was meant for `dialled`.
    pub(super) fn of(self, dialled: SocketAddr) -> SocketAddr {
        let port = self.port.unwrap_or_else(|| dialled.port());
        match self.host {
            Host::Original => {
                // Keeps the scope of a link-local address.
                let mut addr = dialled;
                addr.set_port(port);
                addr
            }
            Host::Loopback if dialled.is_ipv4() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
            Host::Loopback => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
            Host::Ip(ip) => SocketAddr::new(ip, port),
        }
    }

    /// For people: a connection goes to this.
    pub(super) fn in_words(self) -> String {
        let host = match self.host {
            Host::Original => "the address that its client wanted".into(),
            Host::Loopback => "a loopback address".into(),
            Host::Ip(ip) => ip.to_string(),
        };
        match self.port {
            Some(port) => format!("port {port} of {host}"),
            None if self.host == Host::Original => "the address and the port that its client wanted".into(),
            None => format!("{host}, at the port that its client wanted"),
        }
    }

    pub(super) fn is_loopback(self) -> bool {
        match self.host {
            Host::Original => false,
            Host::Loopback => true,
            Host::Ip(ip) => ip.is_loopback(),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "HOST:PORT is wanted; HOST: original, loopback or an IP (an IPv6 one in brackets), PORT: original or a number"
                .to_owned()
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host {
            "original" => Host::Original,
            "loopback" => Host::Loopback,
            _ => {
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                let ip = match bare {
                    Some(v6) => v6.parse().map(IpAddr::V6),
                    None => host.parse().map(IpAddr::V4),
                };
                Host::Ip(ip.map_err(|_| wrong())?)
            }
        };
        let port = match port {
            "original" => None,
            port => Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?),
        };
        Ok(Self { host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_may_be_as_dialled() {
        let of = |target: &str, dialled: &str| {
            target.parse::<Target>().unwrap().of(dialled.parse().unwrap()).to_string()
        };

        assert_eq!(of("original:3000", "10.0.0.1:80"), "10.0.0.1:3000");
        assert_eq!(of("original:original", "10.0.0.1:80"), "10.0.0.1:80");
        assert_eq!(of("loopback:3000", "10.0.0.1:80"), "127.0.0.1:3000");
        assert_eq!(of("loopback:original", "[fd77::3]:80"), "[::1]:80");
        assert_eq!(of("192.0.2.1:81", "10.0.0.1:80"), "192.0.2.1:81");
        assert_eq!(of("[::1]:original", "[fd77::3]:80"), "[::1]:80");
    }

    #[test]
    fn words_say_what_is_as_dialled() {
        let words = |target: &str| target.parse::<Target>().unwrap().in_words();

        assert_eq!(words("original:original"), "the address and the port that its client wanted");
        assert_eq!(words("original:3000"), "port 3000 of the address that its client wanted");
        assert_eq!(words("loopback:3000"), "port 3000 of a loopback address");
        assert_eq!(words("192.0.2.1:original"), "192.0.2.1, at the port that its client wanted");
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in ["", "original", ":80", "web:80", "::1:80", "[10.0.0.1]:80", "original:0", "original:x"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
