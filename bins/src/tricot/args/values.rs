//! Single values as they are written on the command line and in variables.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;

use crate::kit::units::duration;
use crate::kit::units::more_than_none;

/// Where Consul's agent is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsulAddress {
    /// At a URL without a path and a query.
    Url(Uri),
    /// At a socket in the file system.
    Unix(PathBuf),
}

impl ConsulAddress {
    /// Whether connections to it are encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Url(url) if url.scheme_str() == Some("https"))
    }
}

/// As it is given to Consul's client.
impl fmt::Display for ConsulAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url.to_string().trim_end_matches('/')),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The directory of a certificate authority, where RFC 8555 begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcmeDirectory {
    /// Let's Encrypt.
    Production,
    /// The one of Let's Encrypt for tests, whose certificates nobody trusts.
    Staging,
    /// Any other.
    Other(Uri),
}

impl AcmeDirectory {
    /// Its URL.
    pub fn url(&self) -> String {
        match self {
            Self::Production => PRODUCTION.to_owned(),
            Self::Staging => STAGING.to_owned(),
            Self::Other(url) => url.to_string(),
        }
    }

    /// Whether it is one of Let's Encrypt, which gives certificates for names of the public DNS only.
    pub fn is_lets_encrypt(&self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

impl fmt::Display for AcmeDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url())
    }
}

const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Which instances may take requests, by the state of their checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// Those without a critical check.
    #[default]
    PassingAndWarning,
    /// Those whose checks all pass.
    Passing,
}

/// A way to show a certificate authority that a host is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Challenge {
    /// By an answer over HTTP, at port 80: RFC 8555 section 8.3.
    Http01,
    /// By a certificate over TLS, at port 443: RFC 8737.
    TlsAlpn01,
}

/// An address for mail, or none.
pub(super) fn email(text: &str) -> Result<Option<Box<str>>, String> {
    let text = text.trim();
    // The account's contact is a URL in the end, and some write it so.
    let text = text.strip_prefix("mailto:").unwrap_or(text);
    if text.is_empty() {
        return Ok(None);
    }
    // RFC 8555 section 7.3: one address, and no header fields after it.
    let is_address = |(user, host): (&str, &str)| !user.is_empty() && !host.is_empty() && !host.contains('@');
    if text.split_once('@').is_some_and(is_address)
        && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && !",?&<>".contains(c))
    {
        Ok(Some(text.into()))
    } else {
        Err("one address for mail is wanted, such as admin@example.com".into())
    }
}

/// A URL of Consul, or a socket.
pub(super) fn consul(text: &str) -> Result<ConsulAddress, String> {
    let wrong = || Err("http://HOST:PORT, https://HOST:PORT or unix:///PATH is wanted".to_owned());
    let extra = |what: &str| Err(format!("http://HOST:PORT or https://HOST:PORT is wanted without {what}"));
    let text = text.trim();
    if let Some(path) = text.strip_prefix("unix://") {
        return if path.starts_with('/') { Ok(ConsulAddress::Unix(path.into())) } else { wrong() };
    }
    match url(text.trim_end_matches('/'), &["http", "https"]) {
        None => wrong(),
        // Every request would be answered with 404, as if Consul were empty.
        Some(url) if url.path() != "/" => extra(&format!("{:?} at its end", url.path())),
        Some(url) if url.query().is_some() => extra("a query"),
        Some(url) => Ok(ConsulAddress::Url(url)),
    }
}

/// A directory of ACME, or its short name.
pub(super) fn directory(text: &str) -> Result<AcmeDirectory, String> {
    match text.trim() {
        "production" | PRODUCTION => Ok(AcmeDirectory::Production),
        "staging" | STAGING => Ok(AcmeDirectory::Staging),
        // RFC 8555 section 6.1: HTTPS only.
        text => url(text, &["https"])
            .map(AcmeDirectory::Other)
            .ok_or_else(|| "a URL that begins with https:// is wanted, or `staging`".into()),
    }
}

/// A URL that is asked.
pub(super) fn ask(text: &str) -> Result<Uri, String> {
    url(text.trim(), &["http", "https"])
        .ok_or_else(|| "a URL that begins with http:// or https:// is wanted".into())
}

fn url(text: &str, schemes: &[&str]) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let is_known = url.scheme_str().is_some_and(|scheme| schemes.contains(&scheme));
    (is_known && url.host().is_some_and(|host| !host.is_empty())).then_some(url)
}

/// A network, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network
        .map(|network: IpNet| network.trunc())
        .map_err(|_| "a network is wanted, such as 10.0.0.0/8, fd00::/8 or 192.0.2.1".into())
}

/// Yes or no.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("true, 1, yes, on, false, 0, no or off is wanted".into()),
    }
}

/// A length of time; `0` needs no unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    match text.trim() {
        "0" => Ok(Duration::ZERO),
        text => duration(text),
    }
}

/// A length of time that is more than none.
pub(super) fn some_time(text: &str) -> Result<Duration, String> {
    time(text).and_then(more_than_none)
}

/// A length of time, or `off`.
pub(super) fn time_or_off(text: &str) -> Result<Duration, String> {
    if text.trim().eq_ignore_ascii_case("off") { Ok(Duration::ZERO) } else { time(text) }
}

/// The time to live of a session, within Consul's limits.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = time(text)?;
    if (Duration::from_secs(10)..=Duration::from_secs(24 * 3600)).contains(&ttl) {
        Ok(ttl)
    } else {
        Err("a time from 10s to 24h is wanted, as Consul has it".into())
    }
}

/// A way to show that a host is ours.
pub(super) fn challenge(text: &str) -> Result<Challenge, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "http-01" => Ok(Challenge::Http01),
        "tls-alpn-01" => Ok(Challenge::TlsAlpn01),
        _ => Err("http-01 or tls-alpn-01 is wanted".into()),
    }
}

/// A list of states.
pub(super) fn health(text: &str) -> Result<Health, String> {
    let states: Vec<_> = text.split(',').map(str::trim).collect();
    let is_known = states.iter().all(|state| matches!(*state, "passing" | "warning"));
    match (states.contains(&"passing"), states.contains(&"warning")) {
        (true, true) if is_known => Ok(Health::PassingAndWarning),
        (true, false) if is_known => Ok(Health::Passing),
        _ => Err("passing or passing,warning is wanted".into()),
    }
}

/// A name without blanks, as they may come from a file.
pub(super) fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        Err("a name without blanks is wanted".into())
    } else {
        Ok(text.to_owned())
    }
}

/// The bytes of a text in base64url, RFC 4648 section 5, with or without `=` at its end.
pub(super) fn base64url(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().trim_end_matches('=');
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len()), 0_u32, 0);
    for byte in text.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    // What is left is less than a byte, and nothing.
    (count < 6 && bits == 0 && !bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_mail_is_one() {
        assert_eq!(email(" a@b.example "), Ok(Some("a@b.example".into())));
        assert_eq!(email("mailto:a@b"), Ok(Some("a@b".into())));
        assert_eq!(email(""), Ok(None));
        for text in ["a", "@b", "a@", "a@b@c", "a@b,c@d", "a b@c", "a@b?subject=x"] {
            assert!(email(text).is_err(), "{text}");
        }
    }

    #[test]
    fn consul_is_a_url_or_a_socket() {
        for (text, url, tls) in [
            ("http://127.0.0.1:8500", "http://127.0.0.1:8500/", false),
            ("https://consul:8501//", "https://consul:8501/", true),
            ("http://[::1]", "http://[::1]/", false),
        ] {
            let address = consul(text).unwrap();
            assert_eq!(address, ConsulAddress::Url(url.parse().unwrap()), "{text}");
            assert_eq!(address.is_tls(), tls);
        }
        assert_eq!(consul("unix:///run/consul.sock"), Ok(ConsulAddress::Unix("/run/consul.sock".into())));
        for text in [
            "",
            "127.0.0.1:8500",
            "ftp://a",
            "http://",
            "http:///x",
            "unix://consul",
            "http://a?b=c",
            "http://127.0.0.1:8500/v1",
            "https://[::1]:8500/consul/",
            "http://a b",
        ] {
            assert!(consul(text).is_err(), "{text}");
        }
    }

    #[test]
    fn directories_have_short_names() {
        assert_eq!(directory("staging"), Ok(AcmeDirectory::Staging));
        assert_eq!(directory(STAGING), Ok(AcmeDirectory::Staging));
        assert_eq!(directory("production"), Ok(AcmeDirectory::Production));
        assert_eq!(AcmeDirectory::Production.to_string(), PRODUCTION);
        let own = directory("https://ca.example:14000/dir").unwrap();
        assert_eq!(own.url(), "https://ca.example:14000/dir");
        assert!(!own.is_lets_encrypt());
        for text in ["", "test", "http://ca.example/dir", "https://"] {
            assert!(directory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_is_a_network_too() {
        assert_eq!(network(" 10.1.2.3/8 ").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("192.0.2.1").unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(network("fd00::/8").unwrap().to_string(), "fd00::/8");
        for text in ["", "10.0.0.0/33", "10.0.0/8", "localhost"] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn switches_have_words() {
        for text in ["true", "1", "yes", "on", "TRUE", " Yes "] {
            assert_eq!(switch(text), Ok(true), "{text}");
        }
        for text in ["false", "0", "no", "off", "Off"] {
            assert_eq!(switch(text), Ok(false), "{text}");
        }
        for text in ["", "2", "enabled", "y", "t"] {
            assert!(switch(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units_and_limits() {
        assert_eq!(time("0"), Ok(Duration::ZERO));
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert!(time("5").is_err());
        assert!(some_time("0").is_err() && some_time("0s").is_err());
        assert_eq!(time_or_off("Off"), Ok(Duration::ZERO));
        assert_eq!(time_or_off("20s"), Ok(Duration::from_secs(20)));
        assert_eq!((ttl("10s").is_ok(), ttl("24h").is_ok()), (true, true));
        assert_eq!((ttl("9999ms").is_ok(), ttl("86401s").is_ok()), (false, false));
    }

    #[test]
    fn passing_is_one_of_the_states() {
        assert_eq!(health("warning, passing"), Ok(Health::PassingAndWarning));
        assert_eq!(health("passing"), Ok(Health::Passing));
        for text in ["", "warning", "passing,critical", "passing,", "any"] {
            assert!(health(text).is_err(), "{text}");
        }
    }

    #[test]
    fn base64url_is_read_whole_or_not() {
        for (text, bytes) in [
            ("Zg", &b"f"[..]),
            ("Zg==", b"f"),
            ("Zm9vYmFy", b"foobar"),
            ("-_8", b"\xfb\xff"),
            (" Zm8=\n", b"fo"),
        ] {
            assert_eq!(base64url(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["", "=", "Z", "Zm9vY", "Zh", "Z+", "Z/", "Zm 8", "Zg=a"] {
            assert_eq!(base64url(text), None, "{text}");
        }
    }
}
