//! Where a program serves admin requests.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AdminAddr {
    host: String,
    port: u16,
}

impl AdminAddr {
    /// The host, without brackets if it is an address.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for AdminAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let authority = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
                rest.strip_suffix('/').unwrap_or(rest)
            }
            Some(_) => return Err("admin requests are served in plaintext: http:// is wanted".into()),
        };
        if let Ok(addr) = authority.parse::<SocketAddr>() {
            return Self::new(addr.ip().to_string(), addr.port());
        }
        let wanted = "IP:PORT, [IPV6]:PORT, HOST:PORT or http://HOST:PORT is wanted";
        let (host, port) = authority.rsplit_once(':').ok_or(wanted)?;
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // RFC 1035 section 2.3.4: a name has at most 255 octets, of which two are not written.
        if host.is_empty() || host.len() > 253 || !host.chars().all(is_of_name) {
            return Err(wanted.into());
        }
        Self::new(host.to_owned(), port.parse().map_err(|_| wanted)?)
    }
}

impl AdminAddr {
    fn new(host: String, port: u16) -> Result<Self, String> {
        if port == 0 { Err("nothing listens at port 0".into()) } else { Ok(Self { host, port }) }
    }
}

impl fmt::Display for AdminAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for (text, authority) in [
            ("127.0.0.1:9989", "127.0.0.1:9989"),
            ("[::1]:9989", "[::1]:9989"),
            ("web-1.example:80", "web-1.example:80"),
            ("http://localhost:9989", "localhost:9989"),
            ("HTTP://[2001:db8::1]:1/", "[2001:db8::1]:1"),
        ] {
            assert_eq!(text.parse::<AdminAddr>().map(|addr| addr.to_string()), Ok(authority.to_owned()));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "9989",
            ":9989",
            "::1:9989",
            "localhost",
            "localhost:",
            "localhost:0",
            "localhost:70000",
            "http://localhost:1/x",
            "https://localhost:1",
            "a b:1",
            "user@host:1",
            "h\u{1b}[2J:1",
        ] {
            assert!(text.parse::<AdminAddr>().is_err(), "{text}");
        }
    }
}
