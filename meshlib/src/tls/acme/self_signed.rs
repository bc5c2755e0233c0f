//! Certificates for names that have none yet: nobody believes them, but the handshake comes about.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use rcgen::CertificateParams;
use rcgen::CustomExtension;
use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::KeyPair;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;

use super::clock::Clock;

/// Most certificates that are kept; the one made first goes first. A stranger who asks for names at random replaces what
/// other strangers got.
const MAX: usize = 1024;
/// How long one is valid: a year.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// How much earlier it began: clients' clocks differ.
const SINCE: Duration = Duration::from_secs(24 * 3600);

/// Makes them, all with one key.
pub(super) struct SelfSigned {
    key: KeyPair,
    nameless: String,
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn Clock>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    by_name: HashMap<Box<str>, (Arc<CertifiedKey>, SystemTime)>,
    order: VecDeque<Box<str>>,
}

impl SelfSigned {
    pub(super) fn new(nameless: &str, provider: Arc<CryptoProvider>, clock: Arc<dyn Clock>) -> Option<Self> {
        let key = KeyPair::generate().ok()?;
        Some(Self { key, nameless: nameless.to_owned(), provider, clock, made: Mutex::default() })
    }

    /// The certificate of a name, or of clients that ask for none. One signature if it is not there yet.
    pub(super) fn get(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let now = self.clock.now();
        let key = name.unwrap_or_default();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cert, until)) = made.by_name.get(key)
            && now < *until
        {
            return Some(Arc::clone(cert));
        }
        // Under the lock: it takes some 100 us, and many who ask for one name at once cost one signature.
        let cert = self.make(name, now)?;
        if made.by_name.insert(key.into(), (Arc::clone(&cert), now + LIFETIME / 2)).is_none() {
            made.order.push_back(key.into());
        }
        if made.order.len() > MAX
            && let Some(first) = made.order.pop_front()
        {
            made.by_name.remove(&first);
        }
        Some(cert)
    }

    fn make(&self, name: Option<&str>, now: SystemTime) -> Option<Arc<CertifiedKey>> {
        let mut params =
            CertificateParams::new(name.map(str::to_owned).into_iter().collect::<Vec<_>>()).ok()?;
        params.distinguished_name = DistinguishedName::new();
        // A common name has at most 64 characters (RFC 5280 appendix A).
        let common: String = name.unwrap_or(&self.nameless).chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = (now - SINCE).into();
        params.not_after = (now + LIFETIME).into();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        certified(&params, &self.key, &self.provider)
    }
}

impl fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfSigned").field("nameless", &self.nameless).finish_non_exhaustive()
    }
}

/// The certificate that proves a name in a TLS handshake (RFC 8737 section 3).
pub(super) fn proof(
    name: &str,
    key_authorization: &[u8],
    now: SystemTime,
    provider: &CryptoProvider,
) -> Option<Arc<CertifiedKey>> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).ok()?;
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now - SINCE).into();
    params.not_after = (now + SINCE).into();
    let digest = super::digest::sha256(key_authorization);
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    certified(&params, &KeyPair::generate().ok()?, provider)
}

fn certified(
    params: &CertificateParams,
    key: &KeyPair,
    provider: &CryptoProvider,
) -> Option<Arc<CertifiedKey>> {
    let cert = params.self_signed(key).ok()?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = provider.key_provider.load_private_key(key).ok()?;
    // Not compared with the certificate: that parses it, and knows no proof's critical extension.
    Some(Arc::new(CertifiedKey::new(vec![cert.der().clone()], key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls;
    use crate::tls::acme::clock::SystemClock;
    use crate::tls::acme::digest::sha256;

    fn maker() -> SelfSigned {
        SelfSigned::new("edge", tls::provider(), Arc::new(SystemClock)).unwrap()
    }

    #[test]
    fn each_name_gets_its_own_and_always_the_same() {
        let maker = maker();

        let first = maker.get(Some("a.test")).unwrap();

        assert!(Arc::ptr_eq(&first, &maker.get(Some("a.test")).unwrap()));
        let (_, x509) = x509_parser::parse_x509_certificate(&first.cert[0]).unwrap();
        assert_eq!(x509.subject().to_string(), "CN=a.test");
        let nameless = maker.get(None).unwrap();
        let (_, x509) = x509_parser::parse_x509_certificate(&nameless.cert[0]).unwrap();
        assert_eq!(x509.subject().to_string(), "CN=edge");
    }

    #[test]
    fn a_proof_carries_the_digest_in_a_critical_extension() {
        let proof = proof("a.test", b"token.thumb", SystemTime::now(), &tls::provider()).unwrap();

        let (_, x509) = x509_parser::parse_x509_certificate(&proof.cert[0]).unwrap();
        // RFC 8737 section 3: id-pe-acmeIdentifier, an OCTET STRING of 32 bytes.
        let found = x509.extensions().iter().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31").unwrap();
        assert!(found.critical);
        assert_eq!(found.value[2..], sha256(b"token.thumb"));
    }

    #[test]
    fn a_flood_of_names_takes_bounded_memory() {
        let maker = maker();

        for n in 0..MAX + 50 {
            assert!(maker.get(Some(&format!("{n}.test"))).is_some());
        }

        let made = maker.made.lock().unwrap();
        assert_eq!((made.by_name.len(), made.order.len()), (MAX, MAX));
    }
}
