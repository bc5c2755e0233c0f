//! A certificate that can be served.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::SystemTime;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::ParsedExtension;

use super::clock;
use super::digest;
use super::pem;
use super::record::Stored;

/// A chain with its key, checked to be of use for a name.
pub(super) struct Certificate {
    pub(super) name: Arc<str>,
    pub(super) key: Arc<CertifiedKey>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// SHA-256 of the leaf, in hexadecimal digits.
    pub(super) fingerprint: String,
    /// By what the authority knows it: its key's identifier and the certificate's serial number, both DER contents.
    pub(super) id: Option<(Vec<u8>, Vec<u8>)>,
    /// Whether it was ordered because the authority suggested to.
    pub(super) suggested: bool,
    /// When it was ordered, by the clock of the node that did so, which may go wrong.
    pub(super) ordered: Option<SystemTime>,
    /// What the store has of it, without its chain.
    rest: Option<Box<Stored>>,
    /// Whether it was deleted from a store that has lost nothing.
    pub(super) is_deleted: AtomicBool,
}

/// How far a certificate's beginning may lie ahead: clocks differ.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it is not JSON of a certificate")]
    Json(#[source] serde_json::Error),
    #[error("there is no certificate in it")]
    Chain,
    #[error("a certificate in it cannot be understood")]
    Syntax,
    #[error("its key cannot be understood")]
    KeySyntax,
    #[error("its key is not the certificate's, or of a kind that cannot be used")]
    Key(#[source] rustls::Error),
    #[error("it is not for this name")]
    Name,
    #[error("it has expired")]
    Expired,
    #[error("it is not yet valid")]
    NotYet,
}

impl Certificate {
    /// Parses and checks a chain and a key in PEM.
    pub(super) fn new(
        name: &str,
        cert_pem: &str,
        key_pem: &str,
        now: SystemTime,
        provider: &CryptoProvider,
    ) -> Result<Self, Unusable> {
        let chain = CertificateDer::pem_slice_iter(cert_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| Unusable::Syntax)?;
        let leaf = chain.first().ok_or(Unusable::Chain)?;
        for issuer in &chain[1..] {
            x509_parser::parse_x509_certificate(issuer).map_err(|_| Unusable::Syntax)?;
        }
        let covered = ServerName::try_from(name).map_err(|_| Unusable::Name)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(|_| Unusable::Syntax)?;
        // The subject is not looked at: authorities leave it empty.
        verify_server_name(&parsed, &covered).map_err(|_| Unusable::Name)?;
        let (_, x509) = x509_parser::parse_x509_certificate(leaf).map_err(|_| Unusable::Syntax)?;
        let validity = x509.validity();
        let not_before = clock::from_unix(validity.not_before.timestamp());
        let not_after = clock::from_unix(validity.not_after.timestamp());
        if not_after <= now || not_after <= not_before {
            return Err(Unusable::Expired);
        }
        if not_before > now + AHEAD {
            return Err(Unusable::NotYet);
        }
        let id = x509.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(issuer) => {
                let issuer = issuer.key_identifier.as_ref()?.0.to_vec();
                Some((issuer, x509.tbs_certificate.raw_serial().to_vec()))
            }
            _ => None,
        });
        let fingerprint = digest::hex(&digest::sha256(leaf));
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| Unusable::KeySyntax)?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(Unusable::Key)?;
        let (name, key) = (name.into(), Arc::new(key));
        let (suggested, ordered, rest, is_deleted) = (false, None, None, AtomicBool::new(false));
        Ok(Self { name, key, not_before, not_after, fingerprint, id, suggested, ordered, rest, is_deleted })
    }

    /// Remembers what the store has of it.
    pub(super) fn set_stored(&mut self, mut stored: Stored) {
        // It is in memory already.
        stored.cert_pem = String::new();
        self.rest = Some(stored.into());
    }

    /// What the store has of it, or had. Nothing if it never did.
    pub(super) fn stored(&self) -> Option<Stored> {
        let mut stored = Stored::clone(self.rest.as_deref()?);
        stored.cert_pem = self.key.cert.iter().map(|der| pem::encode("CERTIFICATE", der)).collect();
        Some(stored)
    }

    pub(super) fn lifetime(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }
}

/// Shows no key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("name", &self.name)
            .field("not_after", &self.not_after)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::test_util::CertOptions;
    use crate::test_util::TestCa;
    use crate::test_util::TestCert;
    use crate::tls;

    const HOUR: Duration = Duration::from_secs(3600);

    fn load(name: &str, cert: &TestCert) -> Result<Certificate, Unusable> {
        let now = SystemTime::now();
        Certificate::new(name, &cert.chain_pem(), &cert.key_pem(), now, &tls::provider())
    }

    /// A certificate for a name, valid for a day around now.
    pub(in super::super) fn certificate(name: &str) -> (TestCert, Certificate) {
        let cert = TestCa::new().issue([name]);
        let certificate = load(name, &cert).unwrap();
        (cert, certificate)
    }

    #[test]
    fn a_good_one_is_taken() {
        let (_, certificate) = certificate("a.test");

        assert_eq!(certificate.lifetime(), 24 * HOUR);
        assert_eq!(certificate.fingerprint.len(), 64);
        let (issuer, serial) = certificate.id.clone().unwrap();
        assert!(!issuer.is_empty() && !serial.is_empty());
        assert!(!format!("{certificate:?}").contains("key"));
    }

    #[test]
    fn what_is_no_use_is_refused_with_a_reason() {
        let ca = TestCa::new();
        let (mine, other) = (ca.issue(["a.test"]), ca.issue(["a.test"]));
        let now = SystemTime::now();
        let with = |from, until| {
            load("a.test", &ca.issue_with(["a.test"], &CertOptions::default().with_validity(from, until)))
        };

        assert!(matches!(load("b.test", &mine), Err(Unusable::Name)));
        assert!(matches!(with(now - 2 * HOUR, now - HOUR), Err(Unusable::Expired)));
        assert!(matches!(with(now + HOUR, now + 2 * HOUR), Err(Unusable::NotYet)));
        assert!(with(now + AHEAD / 2, now + HOUR).is_ok());
        assert!(with(now - HOUR, now + Duration::from_secs(30)).is_ok(), "a short rest of life is served");
        let load = |cert: &str, key: &str| Certificate::new("a.test", cert, key, now, &tls::provider());
        assert!(matches!(load(&mine.chain_pem(), &other.key_pem()), Err(Unusable::Key(_))));
        assert!(matches!(load("", &mine.key_pem()), Err(Unusable::Chain)));
        assert!(matches!(load(&mine.chain_pem(), ""), Err(Unusable::KeySyntax)));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(load(broken, &mine.key_pem()), Err(Unusable::Syntax)));
        assert!(matches!(load(&(mine.chain_pem() + broken), &mine.key_pem()), Err(Unusable::Syntax)));
    }
}
