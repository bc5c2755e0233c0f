//! Whom to believe: verifiers of the certificates that endpoints show.
//!
//! The usual verifier, which [`client_config`](super::client_config) sets, believes a certificate that a trusted
//! authority issued for the name that was asked for. Here are the others. All of them check that the endpoint holds the
//! key of the certificate it shows.

use std::sync::Arc;

use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::Error;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;

use super::TlsError;

/// Looks for another name in the certificate than the one that was asked for.
///
/// For endpoints that are addressed by one name and identified by another.
#[derive(Debug)]
pub struct OtherName {
    usual: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl OtherName {
    /// Believes certificates of these authorities that carry `name`.
    ///
    /// # Errors
    ///
    /// If there are no authorities.
    pub fn new(
        provider: Arc<CryptoProvider>,
        roots: RootCertStore,
        name: ServerName<'static>,
    ) -> Result<Arc<Self>, TlsError> {
        let usual = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build();
        Ok(Arc::new(Self { usual: usual.map_err(|_| TlsError::NoRoots)?, name }))
    }
}

impl ServerCertVerifier for OtherName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.usual.verify_server_cert(end_entity, intermediates, &self.name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Believes exactly the certificates it was given, whoever issued them and whatever they say.
///
/// # Examples
///
/// A server with a self-signed certificate, which is at hand as a file:
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use meshlib::tls::identity::Pinned;
/// use meshlib::tls::rustls::RootCertStore;
/// use meshlib::tls::{self, Always, ClientTls, pem};
///
/// let pinned = Pinned::new(tls::provider(), pem::certificates(["server.pem"])?);
/// let mut config = tls::client_config(tls::provider(), RootCertStore::empty())?;
/// config.dangerous().set_certificate_verifier(pinned);
/// let policy = Always::new(ClientTls::new(config.into(), "server.example".try_into()?));
/// # let _ = policy;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pinned {
    provider: Arc<CryptoProvider>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Pinned {
    /// Believes these certificates.
    pub fn new(
        provider: Arc<CryptoProvider>,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Arc<Self> {
        Arc::new(Self { provider, certificates: certificates.into_iter().collect() })
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.certificates.iter().any(|pinned| pinned.as_ref() == end_entity.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Believes every certificate: encryption without knowing with whom.
///
/// For endpoints whose certificates nobody keeps, inside a network that is trusted anyway. Its use is logged as a
/// warning, once per configuration.
#[derive(Debug)]
pub struct Unverified {
    any: Pinned,
}

impl Unverified {
    /// Believes everybody. `target` is what the warning names.
    pub fn new(provider: Arc<CryptoProvider>, target: &str) -> Arc<Self> {
        tracing::warn!(target_name = target, "certificates of this target are not verified");
        Arc::new(Self { any: Pinned { provider, certificates: Vec::new() } })
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.any.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.any.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any.supported_verify_schemes()
    }
}
