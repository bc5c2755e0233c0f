//! Certificates of one run, and how load and backend speak TLS.
//!
//! Both pin TLS 1.3, AES-128-GCM and X25519, so every proxy does the same cryptography whatever it prefers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The name in the certificate.
pub const NAME: &str = "bench.example";

/// A certificate authority's certificate for [`NAME`], also as files for the proxies.
#[derive(Debug)]
pub struct Identity {
    /// The authority, PEM.
    pub ca_file: PathBuf,
    /// The certificate, PEM.
    pub cert_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
    /// Certificate and key in one file, PEM.
    pub both_file: PathBuf,
    ca: CertificateDer<'static>,
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Makes an authority and a P-256 certificate, and writes them under `dir` with `prefix` in their names.
    pub fn create(dir: &Path, prefix: &str) -> io::Result<Self> {
        let mut params = CertificateParams::new([]).map_err(io::Error::other)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Without a name of its own it would be taken for the certificate it signs.
        params.distinguished_name.push(DnType::CommonName, format!("{prefix} authority"));
        let ca = CertifiedIssuer::self_signed(params, new_key()?).map_err(io::Error::other)?;
        let key = new_key()?;
        let params = CertificateParams::new([NAME.to_owned()]).map_err(io::Error::other)?;
        let cert = params.signed_by(&key, &ca).map_err(io::Error::other)?;

        let write = |name: &str, text: String| {
            let path = dir.join(format!("{prefix}-{name}.pem"));
            fs::write(&path, text)?;
            io::Result::Ok(path)
        };
        Ok(Self {
            ca_file: write("ca", ca.pem())?,
            cert_file: write("cert", cert.pem())?,
            key_file: write("key", key.serialize_pem())?,
            both_file: write("both", cert.pem() + &key.serialize_pem())?,
            ca: ca.der().clone(),
            cert: cert.der().clone(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        })
    }

    /// A server that shows this certificate and hands out stateless tickets.
    pub fn server(&self) -> io::Result<Arc<ServerConfig>> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(vec![self.cert.clone()], self.key.clone_key())
            })
            .map_err(io::Error::other)?;
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
        Ok(Arc::new(config))
    }

    /// A client that trusts this authority only. Each call makes a client with a memory of its own.
    pub fn client(&self, sessions: Sessions) -> io::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).map_err(io::Error::other)?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if sessions == Sessions::Forget {
            config.resumption = Resumption::disabled();
        }
        Ok(Arc::new(config))
    }
}

/// Whether a client resumes sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Every handshake is a full one.
    Forget,
    /// Tickets are kept and used.
    Resume,
}

/// [`NAME`] as rustls wants it.
pub fn server_name() -> io::Result<ServerName<'static>> {
    ServerName::try_from(NAME).map_err(io::Error::other)
}

fn new_key() -> io::Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}
