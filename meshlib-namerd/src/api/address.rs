//! One address, and the endpoint it becomes.

use std::fmt::Write;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV6;

use meshlib::Endpoint;
use meshlib::Metadata;
use meshlib::Weight;
use serde::Serialize;
use serde::Serializer;
use serde::ser::SerializeStruct;
use serde_json::Value;

use super::Meta;
use super::Skipped;
use super::decode::excerpt;

/// One address of a name.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Address {
    /// Where to connect to. The port is not 0.
    pub addr: SocketAddr,
    /// What else is known. Default: nothing.
    pub meta: Meta,
}

impl Address {
    /// An address of weight one.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, meta: Meta::new() }
    }

    /// Sets the share of traffic, relative to the other addresses of the name.
    #[must_use]
    pub fn with_weight(mut self, weight: f64) -> Self {
        self.meta = self.meta.with_number(Meta::WEIGHT, weight);
        self
    }

    /// Sets all that is known besides the address, the weight included.
    #[must_use]
    pub fn with_meta(mut self, meta: Meta) -> Self {
        self.meta = meta;
        self
    }

    /// The share of traffic. One that is absent or no weight (negative, not finite, not a number) is 1.0.
    pub fn weight(&self) -> Weight {
        let weight = self.meta.number(Meta::WEIGHT);
        weight.and_then(|weight| Weight::new(weight).ok()).unwrap_or(Weight::ONE)
    }

    /// The endpoint: its weight, its node, and the other facts as labels, those of the set beneath its own.
    pub fn endpoint(&self, set: &Meta) -> Endpoint {
        let mut metadata = Metadata::new();
        for (key, value) in set.labels().chain(self.meta.labels()) {
            match key {
                Meta::WEIGHT => {}
                Meta::NODE_NAME => metadata.node = Some(value.into()),
                _ => {
                    metadata.labels.insert(key.to_owned(), value);
                }
            }
        }
        Endpoint::new(self.addr).with_weight(self.weight()).with_metadata(metadata)
    }

    /// Reads an address. `None`: it cannot be used, and the reason is noted.
    pub(super) fn decode(value: Value, skipped: &mut Skipped) -> Option<Self> {
        let Value::Object(mut members) = value else {
            skipped.note(|| format!("{} is not an address", excerpt(&value.to_string())));
            return None;
        };
        let Some(Value::String(ip)) = members.remove("ip") else {
            skipped.note(|| "an address has no ip".to_owned());
            return None;
        };
        let port = members.get("port").and_then(Value::as_u64);
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0) else {
            skipped.note(|| format!("{} has no usable port", excerpt(&ip)));
            return None;
        };
        let Some(addr) = socket_addr(&ip, port, skipped) else {
            skipped.note(|| format!("{:?} is not an ip address", excerpt(&ip)));
            return None;
        };
        Some(Self { addr, meta: Meta::from_value(members.remove("meta")) })
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut address = serializer.serialize_struct("Address", 3)?;
        address.serialize_field("ip", &printed(self.addr))?;
        address.serialize_field("port", &self.addr.port())?;
        address.serialize_field("meta", &self.meta)?;
        address.end()
    }
}

/// Reads what Java prints: IPv6 in any form, perhaps with a scope. A scope by number is kept; the name of an interface
/// of namerd's machine means nothing here and is dropped with a note.
fn socket_addr(ip: &str, port: u16, skipped: &mut Skipped) -> Option<SocketAddr> {
    let Some((host, scope)) = ip.split_once('%') else {
        let ip: IpAddr = ip.parse().ok()?;
        return Some(SocketAddr::new(ip.to_canonical(), port));
    };
    let host: Ipv6Addr = host.parse().ok()?;
    // An IPv4 address in the form of IPv6 has no scope, whatever is written behind it.
    if let Some(v4) = host.to_ipv4_mapped() {
        return Some(SocketAddr::new(v4.into(), port));
    }
    let scope_id = scope.parse().unwrap_or_else(|_| {
        skipped.note(|| format!("the scope of {} is not known here", excerpt(ip)));
        0
    });
    Some(SocketAddrV6::new(host, port, 0, scope_id).into())
}

/// Java's form: all eight groups of an IPv6 address, none padded.
fn printed(addr: SocketAddr) -> String {
    let v6 = match addr {
        SocketAddr::V4(v4) => return v4.ip().to_string(),
        SocketAddr::V6(v6) => v6,
    };
    let groups = v6.ip().segments().map(|group| format!("{group:x}"));
    let mut text = groups.join(":");
    if v6.scope_id() != 0 {
        // Writing to a text cannot fail.
        let _ = write!(text, "%{}", v6.scope_id());
    }
    text
}
