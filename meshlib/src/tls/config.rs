//! Configurations of rustls with what most need.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;
use rustls::server::ResolvesServerCert;

use super::error::TlsError;

/// The crypto provider of the features: aws-lc-rs if both are on.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(not(feature = "aws-lc-rs"))]
    return Arc::new(rustls::crypto::ring::default_provider());
}

/// The operating system's certificate authorities.
///
/// # Errors
///
/// If there is none that can be used.
#[cfg(feature = "native-roots")]
pub fn native_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read a certificate authority of the system");
    }
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 { Err(TlsError::NoRoots) } else { Ok(roots) }
}

/// A client's configuration: TLS 1.2 and 1.3, trust in `roots`, no certificate of its own, sessions are resumed.
///
/// # Examples
///
/// With a certificate, for servers that ask their clients for one:
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use meshlib::tls::rustls::sign::SingleCertAndKey;
/// use meshlib::tls::{self, ClientTls, pem};
///
/// let provider = tls::provider();
/// let mut config = tls::client_config(provider.clone(), pem::authorities(["ca.pem"])?)?;
/// let own = pem::certified_key(&provider, ["client.pem"], "client-key.pem")?;
/// config.client_auth_cert_resolver = std::sync::Arc::new(SingleCertAndKey::from((*own).clone()));
/// let tls = ClientTls::new(config.into(), "www.example.com".try_into()?);
/// # let _ = tls;
/// # Ok(())
/// # }
/// ```
///
/// [`Reloading`](super::Reloading) follows its files.
///
/// # Errors
///
/// If the provider lacks what these versions need.
pub fn client_config(provider: Arc<CryptoProvider>, roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A server's configuration: TLS 1.2 and 1.3, certificates from `certs`, no client certificates; sessions are resumed.
///
/// A ticket opens with any configuration that has the same `ticketer` (see [`tickets`]); give it to configurations that
/// are rebuilt when a certificate changes. With `None` the configuration keeps sessions in its own memory, the latest 256
/// of them, of which a handshake of TLS 1.3 makes two. Another configuration, worker or restart does not know them, and
/// clients that come to it shake hands in full: enough for tests and for servers with few clients.
///
/// It offers no application protocol: `http_server_config` does (feature `http`), or set `alpn_protocols`.
///
/// # Errors
///
/// If the provider lacks what these versions need.
pub fn server_config(
    provider: Arc<CryptoProvider>,
    certs: Arc<dyn ResolvesServerCert>,
    ticketer: Option<Arc<dyn ProducesTickets>>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certs);
    if let Some(ticketer) = ticketer {
        config.ticketer = ticketer;
        // Tickets make the memory of sessions superfluous.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    }
    Ok(config)
}

/// A server's configuration for [`HttpServer`](crate::http::HttpServer): [`server_config`] with [`tickets`] of its own, which
/// offers HTTP/2 and HTTP/1.1.
///
/// # Errors
///
/// If the provider lacks what these versions need, or there is no randomness to be had.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), meshlib::tls::TlsError> {
/// use meshlib::tls::{self, CertResolver};
///
/// let certs = CertResolver::builder().build();
/// let config = tls::http_server_config(tls::provider(), certs)?;
/// assert_eq!(config.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
/// assert!(config.ticketer.enabled());
/// # Ok(())
/// # }
/// ```
#[cfg(all(feature = "http", any(feature = "aws-lc-rs", feature = "ring")))]
pub fn http_server_config(
    provider: Arc<CryptoProvider>,
    certs: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, TlsError> {
    let mut config = server_config(provider, certs, Some(tickets()?))?;
    config.alpn_protocols = crate::http::ALPN.map(Vec::from).into();
    Ok(config)
}

/// Keys for session tickets, changed every six hours.
///
/// # Errors
///
/// If there is no randomness to be had.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub fn tickets() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    #[cfg(feature = "aws-lc-rs")]
    let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    #[cfg(not(feature = "aws-lc-rs"))]
    let ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(ticketer)
}
