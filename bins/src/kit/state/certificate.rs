//! What is shown of a certificate.

use std::time::SystemTime;

use x509_parser::parse_x509_certificate;
use x509_parser::prelude::GeneralName;

use super::model::Certificate;
use super::unix_ms;

/// Most names that are shown of one.
const MOST_NAMES: usize = 100;

impl Certificate {
    /// Reads what is shown of it from its DER form. One that cannot be read has no names, and says so.
    pub fn of(der: &[u8], role: &str, file: Option<String>) -> Self {
        let mut shown = Self { role: role.to_owned(), file, ..Self::default() };
        let Ok((_, certificate)) = parse_x509_certificate(der) else {
            (shown.state, shown.error) = ("unknown".to_owned(), Some("cannot be read".to_owned()));
            return shown;
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(ip) => address(ip),
            _ => None,
        });
        shown.names = names.take(MOST_NAMES).collect();
        if shown.names.is_empty() {
            shown.names.push(certificate.subject().to_string());
        }
        shown.issuer = Some(certificate.issuer().to_string());
        let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let not_after = not_after.saturating_mul(1000);
        shown.not_after_ms = Some(not_after);
        let is_over = not_after < unix_ms(SystemTime::now());
        shown.state = if is_over { "expired" } else { "valid" }.to_owned();
        shown
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string())
}
