//! Where endpoints come from: namerd, or a list in the file.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;

use super::language;
use super::model::Namerd;
use super::model::ResolveMode;
use super::model::ResolverConfig;
use super::model::StaticEndpoint;
use super::model::Watch;
use super::path;
use super::server;
use super::tls;
use crate::kit::load::fields::Fields;
use crate::kit::load::fields::Item;
use crate::kit::load::fields::Reader;

/// Reads what A and B have in common, with the poll period of each.
///
/// `base` is the field with the address of namerd and what was read from it. With a `tls` section an address
/// without scheme becomes an `https` URL.
pub(super) fn namerd(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    base: Option<(&Item<'_>, Base)>,
    period: (&str, Duration),
) -> Option<ResolverConfig> {
    let namespace = fields.get("namespace").map(|item| reader.parsed(item, namespace));
    let (period_name, default_period) = period;
    let period = fields.get(period_name).and_then(|item| reader.secs(item, 1)).unwrap_or(default_period);
    let watch = fields.get("watch").and_then(|item| {
        reader.choice(item, &[("auto", Watch::Auto), ("always", Watch::Always), ("never", Watch::Never)])
    });
    let request_timeout = fields.get("requestTimeoutMs").and_then(|item| reader.millis(item, 1));
    let mode = fields.get("mode").and_then(|item| {
        reader.choice(item, &[("resolve", ResolveMode::Resolve), ("bind", ResolveMode::Bind)])
    });
    let tls = fields.get("tls").map(|item| tls::resolver(reader, item));

    let (item, base) = base?;
    let base_url = match base {
        Base::Url(url) => {
            if let Some(tls) = fields.get("tls").filter(|_| url.starts_with("http:")) {
                let expected = "expected an `https` URL, or no `tls`";
                reader.problem(tls, format!("TLS towards namerd with the URL {url:?}; {expected}"));
            }
            url
        }
        Base::Authority(authority) if tls.is_some() => format!("https://{authority}"),
        Base::Authority(authority) => format!("http://{authority}"),
    };
    if base_url.starts_with("http:") && !is_local(&base_url) {
        reader.warning(
            item,
            "discovery over plain HTTP: whoever can change the answers can divert connections",
        );
    }
    Some(ResolverConfig::Namerd(Namerd {
        base_url,
        namespace: namespace.unwrap_or_else(|| Some("default".into()))?,
        period,
        watch: watch.unwrap_or_default(),
        request_timeout,
        tls: tls.map_or(Some(None), |read| read.map(Some))?,
        mode: mode.unwrap_or_default(),
        place: reader.place(item),
    }))
}

/// The address of namerd as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// A URL without trailing `/`.
    Url(String),
    /// `host:port`, ready to be put into a URL.
    Authority(String),
}

impl Base {
    /// An `http` or `https` URL with a host. A path is kept; a query, a fragment or a user is refused.
    pub(super) fn parse_url(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a URL such as http://127.0.0.1:4180";
        let uri: Uri = text.parse().map_err(|_| format!("is not a URL; {EXPECTED}"))?;
        let scheme = match uri.scheme_str() {
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => "http",
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
            Some(scheme) => return Err(format!("has the scheme {scheme:?}; expected `http` or `https`")),
            None => return Err(format!("has no scheme; {EXPECTED}")),
        };
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
            return Err(format!("has no host; {EXPECTED}"));
        };
        if authority.as_str().contains('@') {
            return Err("has a user before the host; expected none, namerd does not ask for one".into());
        }
        let written_port = authority.as_str()[authority.host().len()..].strip_prefix(':');
        if written_port.is_some() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err("has no valid port; expected 1 to 65535".into());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("has a query or a fragment; expected a URL that ends with its path".into());
        }
        Ok(Self::Url(format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'))))
    }

    /// `IP:PORT` or `host:port`.
    pub(super) fn parse_authority(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected IP:PORT or host:port, such as 127.0.0.1:4180";
        if let Ok(addr) = text.parse::<SocketAddr>() {
            if addr.port() == 0 {
                return Err(format!("has port 0; {EXPECTED}"));
            }
            // Display writes IPv6 in brackets. A scope is of no use in a URL.
            let authority = match addr.ip() {
                IpAddr::V4(_) => addr.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]:{}", addr.port()),
            };
            return Ok(Self::Authority(authority));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!("has no port; {EXPECTED}"));
        };
        if !port.parse::<u16>().is_ok_and(|port| port > 0) || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("has no valid port; {EXPECTED}"));
        }
        // Dotted numbers that are no IP address were meant to be one.
        let looks_numeric =
            host.split('.').next_back().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if looks_numeric || !tls::is_dns_name(host) {
            return Err(format!("is not an address; {EXPECTED}"));
        }
        Ok(Self::Authority(text.to_string()))
    }
}

/// A namespace goes into the URL as it is.
fn namespace(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&b);
    if text.is_empty() || !text.bytes().all(plain) {
        return Err(
            "is not a namespace; expected one or more of letters, digits and `-._~!$&'()*+,;=:@%/`".into()
        );
    }
    Ok(text.into())
}

fn is_local(url: &str) -> bool {
    let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_string)).unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Reads `io.l5d.static`: the endpoints of each path.
pub(super) fn fixed(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<ResolverConfig> {
    let addrs = reader.required(fields, "addrs")?;
    let mut paths = BTreeMap::new();
    for (key, item) in reader.entries(addrs)? {
        if let Err(error) = path::check(&key.name) {
            reader.at_key(key, &item.path, format!("{:?} {error}", key.name));
        }
        let endpoints = reader.list(&item).unwrap_or_default();
        let endpoints = endpoints.iter().filter_map(|item| endpoint(reader, item)).collect();
        paths.insert(key.name.clone(), endpoints);
    }
    Some(ResolverConfig::Static(paths))
}

fn endpoint(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<StaticEndpoint> {
    let fields = reader.fields(item, &language::ENDPOINT)?;
    let ip = reader.required(&fields, "ip").and_then(|item| server::ip_addr(reader, item));
    let port = reader.required(&fields, "port").and_then(|item| {
        let port = reader.integer(item, 1..=u64::from(u16::MAX))?;
        u16::try_from(port).ok()
    });
    let weight = fields.get("weight").map(|item| (item, reader.number(item)));
    if let Some((item, Some(weight))) = weight
        && !(weight.is_finite() && weight >= 0.0)
    {
        reader.problem(item, format!("the weight {weight} makes no sense; expected a number from 0"));
    }
    Some(StaticEndpoint {
        addr: SocketAddr::new(ip?, port?),
        weight: weight.and_then(|(_, weight)| weight).unwrap_or(1.0),
    })
}
