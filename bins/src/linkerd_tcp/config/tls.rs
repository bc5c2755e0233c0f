//! TLS sections: identities, trust and names. Files are named here and loaded later.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::language;
use super::model::ClientAuth;
use super::model::ClientTls;
use super::model::Identity;
use super::model::ResolverTls;
use super::model::ServerTls;
use super::model::TlsVersion;
use crate::kit::load::fields::Fields;
use crate::kit::load::fields::Item;
use crate::kit::load::fields::Reader;
use crate::kit::load::tree::Value;

/// Reads the TLS fields of a server. In A they stand beside the address, in B in a section of their own; `item` is
/// the mapping that has them.
pub(super) fn server(reader: &mut Reader<'_>, item: &Item<'_>, fields: &Fields<'_>) -> Option<ServerTls> {
    let alpn = alpn(reader, fields);
    let default_identity = fields.get("defaultIdentity").map(|item| identity(reader, item));
    let identities = fields.get("identities").map(|item| identities(reader, item));
    let client_auth = fields.get("clientAuth").map(|item| client_auth(reader, item));

    let no_names = identities.as_ref().is_none_or(|named| named.as_ref().is_some_and(Vec::is_empty));
    if default_identity.is_none() && no_names {
        let expected = "expected `defaultIdentity` or at least one entry in `identities`";
        reader.problem(
            item,
            format!("TLS without an identity, so that no handshake could succeed; {expected}"),
        );
    }
    Some(ServerTls {
        alpn,
        default_identity: missing_or(default_identity)?,
        identities: missing_or(identities)?.unwrap_or_default(),
        client_auth: missing_or(client_auth)?,
        place: reader.place(item),
    })
}

/// Reads the `tls` section of a client.
pub(super) fn client(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<ClientTls> {
    let fields = reader.fields(item, &language::CLIENT_TLS)?;
    let dns_name = reader.required(&fields, "dnsName").and_then(|item| dns_name(reader, item));
    let trust_certs = trust_certs(reader, &fields);
    let client_auth = fields.get("clientAuth").map(|item| identity(reader, item));
    let alpn = alpn(reader, &fields);
    let min_version = min_version(reader, &fields);
    Some(ClientTls {
        dns_name: dns_name?,
        trust_certs,
        client_auth: missing_or(client_auth)?,
        alpn,
        min_version,
        place: reader.place(item),
    })
}

/// Reads the `tls` section of a resolver.
pub(super) fn resolver(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<ResolverTls> {
    let fields = reader.fields(item, &language::RESOLVER_TLS)?;
    let dns_name = fields.get("dnsName").and_then(|item| dns_name(reader, item));
    let trust_certs = trust_certs(reader, &fields);
    let client_auth = fields.get("clientAuth").map(|item| identity(reader, item));
    let min_version = min_version(reader, &fields);
    Some(ResolverTls { dns_name, trust_certs, client_auth: missing_or(client_auth)?, min_version })
}

/// A field that is absent is fine; one that is there and could not be read is not.
fn missing_or<T>(field: Option<Option<T>>) -> Option<Option<T>> {
    match field {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

fn identity(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<Identity> {
    let fields = reader.fields(item, &language::IDENTITY)?;
    let certs = reader.required(&fields, "certs").and_then(|item| reader.files(item));
    let private_key = reader.required(&fields, "privateKey").and_then(|item| reader.file(item));
    Some(Identity { certs: certs?, private_key: private_key? })
}

fn identities(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<Vec<(String, Identity)>> {
    let mut lines = BTreeMap::new();
    let mut out = Vec::new();
    for (key, item) in reader.entries(item)? {
        let name = key.name.to_ascii_lowercase();
        let host = name.strip_prefix("*.").unwrap_or(&name);
        if !is_dns_name(host) || host.parse::<IpAddr>().is_ok() {
            let expected = "expected a DNS name such as www.example.com or *.example.com";
            reader.at_key(key, &item.path, format!("{:?} is not a server name; {expected}", key.name));
        } else if let Some(line) = lines.insert(name.clone(), key.at.map_or(0, |at| at.line)) {
            let text =
                format!("duplicate server name; case does not count and it is set already in line {line}");
            reader.at_key(key, &item.path, text);
        }
        if let Some(identity) = identity(reader, &item) {
            out.push((name, identity));
        }
    }
    Some(out)
}

fn client_auth(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<ClientAuth> {
    let fields = reader.fields(item, &language::CLIENT_AUTH)?;
    let trust_certs = reader.required(&fields, "trustCerts").and_then(|item| reader.files(item));
    let required = fields.get("required").and_then(|item| reader.boolean(item)).unwrap_or(true);
    Some(ClientAuth { trust_certs: trust_certs?, required })
}

/// An empty list is refused: it would trust nobody, and leaving the field out trusts the operating system's roots.
fn trust_certs(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
) -> Option<Vec<crate::kit::load::fields::FileRef>> {
    fields.get("trustCerts").and_then(|item| reader.files(item))
}

fn alpn(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Vec<String> {
    let items = fields.get("alpnProtocols").and_then(|item| reader.list(item)).unwrap_or_default();
    // RFC 7301 section 3.1: a protocol name has 1 to 255 bytes.
    let protocol = |text: &str| match text.len() {
        1..=255 => Ok(text.to_string()),
        _ => Err("is not a protocol name; expected 1 to 255 bytes such as h2 or http/1.1".to_string()),
    };
    items.iter().filter_map(|item| reader.parsed(item, protocol)).collect()
}

fn min_version(reader: &mut Reader<'_>, fields: &Fields<'_>) -> TlsVersion {
    let Some(item) = fields.get("minVersion") else {
        return TlsVersion::default();
    };
    // Without quotes a version is a number, and there is only one way to understand it.
    let text = match &item.node.value {
        Value::Float(number) => number.to_string(),
        Value::Str(text) => text.clone(),
        _ => String::new(),
    };
    match text.as_str() {
        "1.2" => TlsVersion::V12,
        "1.3" => TlsVersion::V13,
        _ => {
            reader.mismatch(item, "the version \"1.2\" or \"1.3\"");
            TlsVersion::default()
        }
    }
}

fn dns_name(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<String> {
    reader.parsed(item, |text| {
        let name = text.strip_suffix('.').unwrap_or(text);
        if is_dns_name(name) || name.parse::<IpAddr>().is_ok() {
            return Ok(name.to_string());
        }
        Err("is not a name that a certificate can carry; expected a DNS name or an IP address".into())
    })
}

/// RFC 1035 section 2.3.4 on lengths; underscores are common in internal names.
pub(super) fn is_dns_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}
