//! A certificate authority in memory.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;

use super::der;
use crate::tls;
use crate::tls::CertResolver;
use crate::tls::ClientTls;

/// Issues certificates that nobody outside the test believes.
///
/// Each authority has a key of its own, so two of them stand for the right and the wrong one.
///
/// # Examples
///
/// ```
/// use meshlib::test_util::TestCa;
///
/// let ca = TestCa::new();
/// let server = ca.server_config(["localhost", "127.0.0.1"]);
/// let client = ca.client_tls("localhost");
/// # let _ = (server, client);
/// ```
pub struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl TestCa {
    /// An authority with a new key.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "meshlib test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = KeyPair::generate().and_then(|key| CertifiedIssuer::self_signed(params, key));
        Self { issuer: issuer.expect("an authority needs nothing but randomness") }
    }

    /// A certificate for these names, which are host names, `*.` and a host name, or IP addresses: valid for a day
    /// around now, with a P-256 key, for servers and clients alike.
    ///
    /// # Panics
    ///
    /// If a name is not ASCII.
    pub fn issue(&self, names: impl IntoIterator<Item = impl Into<String>>) -> TestCert {
        self.issue_with(names, &CertOptions::default())
    }

    /// A certificate with a key or a time of one's own.
    ///
    /// # Panics
    ///
    /// If a name is not ASCII.
    pub fn issue_with(
        &self,
        names: impl IntoIterator<Item = impl Into<String>>,
        options: &CertOptions,
    ) -> TestCert {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let common_name = names
            .iter()
            .find(|name| name.parse::<IpAddr>().is_err())
            .map_or("meshlib test", |name| name.as_str())
            .to_owned();
        // Addresses among the names become such.
        let mut params = CertificateParams::new(names).expect("names in certificates are ASCII");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_before = options.not_before.into();
        params.not_after = options.not_after.into();
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = options.key.generate();
        let leaf = params.signed_by(&key, &self.issuer).expect("this key can sign certificates");
        TestCert {
            leaf_pem: leaf.pem(),
            leaf: leaf.der().clone(),
            key: der::without_public_key(key.serialized_der()),
        }
    }

    /// The authority's own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Trust in this authority alone.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority that was made to be one");
        roots
    }

    /// A client's configuration that trusts this authority alone, without a certificate of its own.
    pub fn client_config(&self) -> ClientConfig {
        tls::client_config(tls::provider(), self.roots()).expect("the provider is complete")
    }

    /// How to be the client of a server of this name, trusting this authority alone.
    ///
    /// # Panics
    ///
    /// If the name is neither a host name nor an address.
    pub fn client_tls(&self, name: &str) -> ClientTls {
        let name = ServerName::try_from(name.to_owned()).expect("a host name or an address");
        ClientTls::new(self.client_config().into(), name)
    }

    /// A server's configuration with a new certificate for these names.
    pub fn server_config(&self, names: impl IntoIterator<Item = impl Into<String>>) -> Arc<ServerConfig> {
        self.issue(names).server_config()
    }
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TestCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCa").finish_non_exhaustive()
    }
}

/// What a certificate is made of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CertOptions {
    /// The kind of its key. Default [`KeyKind::P256`].
    pub key: KeyKind,
    /// Since when it is valid. Default: since an hour ago.
    pub not_before: SystemTime,
    /// Until when it is valid. Default: for 23 hours more.
    pub not_after: SystemTime,
}

impl Default for CertOptions {
    fn default() -> Self {
        let now = SystemTime::now();
        Self { key: KeyKind::P256, not_before: now - HOUR, not_after: now + 23 * HOUR }
    }
}

impl CertOptions {
    /// Sets the kind of the key.
    #[must_use]
    pub fn with_key(mut self, key: KeyKind) -> Self {
        self.key = key;
        self
    }

    /// Sets when the certificate is valid.
    #[must_use]
    pub fn with_validity(mut self, from: SystemTime, until: SystemTime) -> Self {
        (self.not_before, self.not_after) = (from, until);
        self
    }

    /// Makes it a certificate that ran out an hour ago.
    #[must_use]
    pub fn expired(self) -> Self {
        let now = SystemTime::now();
        self.with_validity(now - 24 * HOUR, now - HOUR)
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Kinds of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// ECDSA over P-256.
    #[default]
    P256,
    /// ECDSA over P-384.
    P384,
    /// ECDSA over P-521.
    P521,
    /// Ed25519.
    Ed25519,
    /// RSA of 2048 bits. Takes a moment to make.
    Rsa2048,
}

impl KeyKind {
    fn generate(self) -> KeyPair {
        let algorithm = match self {
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::P521 => &rcgen::PKCS_ECDSA_P521_SHA512,
            Self::Ed25519 => &rcgen::PKCS_ED25519,
            Self::Rsa2048 => &rcgen::PKCS_RSA_SHA256,
        };
        KeyPair::generate_for(algorithm).expect("a key needs nothing but randomness")
    }
}

/// A certificate with its key.
#[derive(Clone)]
pub struct TestCert {
    leaf: CertificateDer<'static>,
    leaf_pem: String,
    /// In PKCS#8.
    key: Vec<u8>,
}

impl TestCert {
    /// The certificate, in DER.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.leaf.clone()
    }

    /// The chain to send and its key, as rustls wants them.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        let key = CertifiedKey::from_der(vec![self.leaf.clone()], self.key_der(), &tls::provider());
        Arc::new(key.expect("the key was made for the certificate"))
    }

    /// The private key, in PKCS#8.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    /// A server's configuration with this certificate for every name.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let certs = CertResolver::builder().with_default(self.certified_key()).build();
        tls::server_config(tls::provider(), certs, None).expect("the provider is complete").into()
    }

    /// The chain to send, in PEM: the certificate alone, since the authority issued it itself.
    pub fn chain_pem(&self) -> String {
        self.leaf_pem.clone()
    }

    /// The private key in PKCS#8, in PEM (`BEGIN PRIVATE KEY`).
    pub fn key_pem(&self) -> String {
        der::pem("PRIVATE KEY", &self.key)
    }

    /// The private key in the form that is older than PKCS#8, in PEM: PKCS#1 (`BEGIN RSA PRIVATE KEY`) or SEC1 (`BEGIN EC
    /// PRIVATE KEY`). `None` for Ed25519, which has no older form.
    pub fn old_key_pem(&self) -> Option<String> {
        der::older_form(&self.key).map(|(label, key)| der::pem(label, &key))
    }

    /// Writes `cert.pem` and `key.pem` (PKCS#8) and returns their paths in this order.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn write_to(&self, dir: impl AsRef<Path>) -> io::Result<(PathBuf, PathBuf)> {
        let dir = dir.as_ref();
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert, self.chain_pem())?;
        std::fs::write(&key, self.key_pem())?;
        Ok((cert, key))
    }
}

impl fmt::Debug for TestCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCert").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_key_is_usable_in_every_form() {
        let (ca, dir) = (TestCa::new(), tempfile::tempdir().unwrap());
        let kinds = [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Ed25519, KeyKind::Rsa2048];

        for kind in kinds {
            let cert = ca.issue_with(["localhost"], &CertOptions::default().with_key(kind));
            let (chain, key) = cert.write_to(&dir).unwrap();
            let provider = tls::provider();

            tls::pem::certified_key(&provider, [&chain], &key).unwrap();
            assert_eq!(cert.old_key_pem().is_none(), kind == KeyKind::Ed25519);
            if let Some(old) = cert.old_key_pem() {
                std::fs::write(&key, old).unwrap();
                tls::pem::certified_key(&provider, [&chain], &key).unwrap();
            }
        }
    }
}
