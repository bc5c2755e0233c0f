//! Certificates by the name a client asks for.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;

/// Maps server names to certificates: the exact name first, then `*.` in place of its first label, then the default.
///
/// The map can be replaced while it is used; handshakes see the old or the new one, never a mixture. A name without a
/// certificate is refused unless there is a default.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "test-util")]
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use meshlib::test_util::TestCa;
/// use meshlib::tls::CertResolver;
///
/// let ca = TestCa::new();
/// let certs = CertResolver::builder()
///     .with_name("www.example.com", ca.issue(["www.example.com"]).certified_key())
///     .with_name("*.shop.example.com", ca.issue(["*.shop.example.com"]).certified_key())
///     .build();
/// assert!(certs.find(Some("eu.shop.example.com")).is_some());
/// assert!(certs.find(Some("shop.example.com")).is_none());
/// # Ok(())
/// # }
/// # #[cfg(feature = "test-util")]
/// # example().unwrap();
/// ```
pub struct CertResolver {
    certs: ArcSwap<Certs>,
}

#[derive(Default)]
struct Certs {
    /// Exact names and wildcards, in lower case.
    names: HashMap<Box<str>, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl CertResolver {
    /// Begins a map.
    pub fn builder() -> CertResolverBuilder {
        CertResolverBuilder { certs: Certs::default() }
    }

    /// The certificate for a name, or for a client that asks for none.
    pub fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.certs.load().find(name).cloned()
    }

    /// Replaces the map for handshakes from now on.
    pub fn replace(&self, with: CertResolverBuilder) {
        self.certs.store(Arc::new(with.certs));
    }
}

impl Certs {
    fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let name = name.strip_suffix('.').unwrap_or(&name);
            let wildcard = || name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            self.names.get(name).or_else(|| self.names.get(wildcard()?.as_str()))
        });
        named.or(self.default.as_ref())
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

impl fmt::Debug for CertResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certs = self.certs.load();
        let names: Vec<_> = certs.names.keys().collect();
        f.debug_struct("CertResolver")
            .field("names", &names)
            .field("default", &certs.default.is_some())
            .finish()
    }
}

/// A map from names to certificates that is being made.
#[must_use = "a builder does nothing until it is built"]
pub struct CertResolverBuilder {
    certs: Certs,
}

impl CertResolverBuilder {
    /// Adds a name, or `*.` and a name for all names with one more label. Letter case does not matter.
    pub fn with_name(mut self, name: &str, certificate: impl Into<Arc<CertifiedKey>>) -> Self {
        self.certs.names.insert(name.to_ascii_lowercase().into(), certificate.into());
        self
    }

    /// Sets the certificate for clients that ask for no name or for one that is not there.
    pub fn with_default(mut self, certificate: impl Into<Arc<CertifiedKey>>) -> Self {
        self.certs.default = Some(certificate.into());
        self
    }

    /// Finishes the map.
    pub fn build(self) -> Arc<CertResolver> {
        Arc::new(CertResolver { certs: ArcSwap::from_pointee(self.certs) })
    }
}

impl fmt::Debug for CertResolverBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertResolverBuilder").finish_non_exhaustive()
    }
}
