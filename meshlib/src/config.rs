//! Pieces of configuration files, with one meaning wherever they are used.
//!
//! Each piece is what a file may say, and converts into what the library takes. Unknown keys are refused; a value that
//! cannot be right is refused while it is read, so that the format's own error names the place.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use meshlib::BalanceLayer;
//! use meshlib::config;
//!
//! #[derive(serde::Deserialize)]
//! #[serde(rename_all = "camelCase", deny_unknown_fields)]
//! struct Upstream {
//!     addrs: Vec<config::Addr>,
//!     #[serde(default)]
//!     load_balancer: config::Balancer,
//!     connect_timeout_ms: config::Millis,
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let upstream: Upstream = serde_json::from_str(
//!     r#"{"addrs": ["10.0.0.1:80"], "loadBalancer": {"kind": "ewma"}, "connectTimeoutMs": 500}"#,
//! )?;
//! let addrs = upstream.addrs.iter().filter_map(config::Addr::socket_addr);
//! let layer = BalanceLayer::new(meshlib::Static::new(addrs), "upstream").balancer(upstream.load_balancer.build());
//! assert_eq!(upstream.connect_timeout_ms.get(), Duration::from_millis(500));
//! # let _ = layer;
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::balance;

/// A host and a port: `10.0.0.1:80`, `[::1]:80` or `web.example:80`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Addr {
    host: String,
    port: u16,
}

impl Addr {
    /// The host: a name or an address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket address, if the host is an address and not a name.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.parse().ok()?, self.port))
    }
}

impl FromStr for Addr {
    type Err = InvalidAddr;

    fn from_str(text: &str) -> Result<Self, InvalidAddr> {
        let invalid = || InvalidAddr { text: text.to_owned() };
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // A bare IPv6 address has no end of its own: its last group would be taken for the port.
        let host = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().map(|v6| v6.to_string()).map_err(|_| invalid())?,
            None if host.is_empty() || host.contains([':', '/', ' ', '[', ']']) => return Err(invalid()),
            None => host.to_owned(),
        };
        Ok(Self { host, port: port.parse().map_err(|_| invalid())? })
    }
}

impl TryFrom<String> for Addr {
    type Error = InvalidAddr;

    fn try_from(text: String) -> Result<Self, InvalidAddr> {
        text.parse()
    }
}

impl From<Addr> for String {
    fn from(addr: Addr) -> Self {
        addr.to_string()
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A text that is no [`Addr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not HOST:PORT, ADDRESS:PORT or [IPV6]:PORT")]
pub struct InvalidAddr {
    text: String,
}

/// A time in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Millis(u32);

impl Millis {
    /// So many milliseconds, at most 49 days.
    pub const fn new(millis: u32) -> Self {
        Self(millis)
    }

    /// The time.
    pub const fn get(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

impl From<Millis> for Duration {
    fn from(millis: Millis) -> Self {
        millis.get()
    }
}

/// How to choose among endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Balancer {
    /// [`LeastLoaded`](balance::LeastLoaded). The default.
    #[default]
    P2c,
    /// [`PeakEwma`](balance::PeakEwma).
    Ewma,
    /// [`RoundRobin`](balance::RoundRobin).
    RoundRobin,
    /// [`WeightClasses`](balance::WeightClasses) of [`LeastLoaded`](balance::LeastLoaded).
    WeightClasses,
}

impl Balancer {
    /// The balancer that this names.
    pub fn build(self) -> Box<dyn balance::Balancer> {
        match self {
            Self::P2c => Box::new(balance::LeastLoaded::new()),
            Self::Ewma => Box::new(balance::PeakEwma::new()),
            Self::RoundRobin => Box::new(balance::RoundRobin::new()),
            Self::WeightClasses => Box::new(balance::WeightClasses::new(balance::LeastLoaded::new())),
        }
    }
}

/// A certificate chain and its key, for a TLS server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsServer {
    /// PEM files that form the chain, leaf first.
    pub certs: Vec<PathBuf>,
    /// PEM file with the one key.
    pub private_key: PathBuf,
    /// Protocols in order of preference. Default: none.
    #[serde(default)]
    pub alpn_protocols: Vec<String>,
}

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
impl TlsServer {
    /// Loads the files and makes a configuration of them, with session tickets.
    ///
    /// # Errors
    ///
    /// The file that is no good.
    pub fn load(&self) -> Result<rustls::ServerConfig, TlsConfigError> {
        let provider = crate::tls::provider();
        let key = crate::tls::pem::certified_key(&provider, &self.certs, &self.private_key)?;
        let certs = crate::tls::CertResolver::builder().with_default(key).build();
        let mut config = crate::tls::server_config(provider, certs, Some(crate::tls::tickets()?))?;
        config.alpn_protocols = self.alpn_protocols.iter().map(|name| name.clone().into_bytes()).collect();
        Ok(config)
    }
}

/// How to be a TLS client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsClient {
    /// The name or address that the certificate must carry.
    pub dns_name: String,
    /// PEM files whose certificates are trusted.
    pub trust_certs: Vec<PathBuf>,
}

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
impl TlsClient {
    /// Loads the files.
    ///
    /// # Errors
    ///
    /// The file that is no good, or a name that no certificate can carry.
    pub fn load(&self) -> Result<crate::tls::ClientTls, TlsConfigError> {
        let roots = crate::tls::pem::authorities(&self.trust_certs)?;
        let config = crate::tls::client_config(crate::tls::provider(), roots)?;
        let name = self.dns_name.clone();
        let name = name.try_into().map_err(|_| crate::tls::TlsError::Name { name: self.dns_name.clone() })?;
        Ok(crate::tls::ClientTls::new(std::sync::Arc::new(config), name))
    }
}

/// Why TLS cannot be configured as a file says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// A file that the configuration names is no good.
    #[error(transparent)]
    File(#[from] crate::tls::pem::PemError),
    /// What the files hold cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_printed() {
        for text in ["10.0.0.1:80", "[::1]:80", "web.example:80"] {
            assert_eq!(text.parse::<Addr>().unwrap().to_string(), text);
        }
        for bad in ["web", ":80", "::1:80", "[::1]", "[web]:80", "web:http", "web:70000", "a b:1"] {
            assert!(bad.parse::<Addr>().is_err(), "{bad}");
        }
    }

    #[cfg(feature = "test-util")]
    #[test]
    fn tls_is_loaded_from_the_files_that_are_named() {
        let ca = crate::test_util::TestCa::new();
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = ca.issue(["web.example"]).write_to(dir.path()).unwrap();
        let trust = dir.path().join("ca.pem");
        std::fs::write(&trust, ca.pem()).unwrap();

        let server = TlsServer { certs: vec![cert], private_key: key, alpn_protocols: vec!["h2".into()] };
        assert_eq!(server.load().unwrap().alpn_protocols, [b"h2"]);
        let client = TlsClient { dns_name: "web.example".into(), trust_certs: vec![trust] };
        assert!(client.load().is_ok());
        let missing =
            TlsClient { dns_name: "web.example".into(), trust_certs: vec![dir.path().join("none.pem")] };
        assert!(missing.load().unwrap_err().to_string().contains("none.pem"));
    }
}
