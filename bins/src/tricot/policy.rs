//! What becomes of a connection to the HTTPS port.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use futures::FutureExt;
use meshlib::Session;
use meshlib::TlsSession;
use meshlib::To;
use meshlib::tls;
use meshlib::tls::AcceptTls;
use meshlib::tls::ClientTls;
use meshlib::tls::ConnectTls;
use meshlib::tls::Hello;
use meshlib::tls::Inspect;
use meshlib::tls::TlsPolicy;
use meshlib::tls::acme::AcmeCerts;
use meshlib::tls::acme::Terminate;
use meshlib::tls::identity::Unverified;
use meshlib::tls::rustls::ClientConfig;
use meshlib::tls::rustls::ServerConfig;
use meshlib::tls::rustls::pki_types::ServerName;
use tokio::time;

use super::backend::Backend;
use super::on_demand::Wanted;
use super::route::SameCertificate;

/// Terminates TLS with the certificate of the name that is asked for, and notices names that have none.
pub(super) struct Inbound {
    terminate: Terminate,
    certs: Arc<AcmeCerts>,
    wanted: Wanted,
    wait: Option<Duration>,
    config: Arc<ServerConfig>,
}

impl Inbound {
    pub(super) fn new(
        certs: Arc<AcmeCerts>,
        config: Arc<ServerConfig>,
        wanted: Wanted,
        wait: Option<Duration>,
    ) -> Self {
        let terminate = Terminate::new(Arc::clone(&certs), Arc::clone(&config));
        Self { terminate, certs, wanted, wait, config }
    }

    /// Waits for a certificate for as long as there may be one soon.
    fn certificate(&self, name: Arc<str>, wait: Duration) -> impl Future<Output = ()> + use<> {
        let (certs, wanted) = (Arc::clone(&self.certs), self.wanted.clone());
        async move {
            let decided = async {
                tokio::select! {
                    _ = certs.issued(&name) => {}
                    () = wanted.denied(&name) => {}
                }
            };
            // It is shown without one then.
            let _ = time::timeout(wait, decided).await;
        }
    }
}

impl TlsPolicy for Inbound {
    fn inspect(&self, session: &Session) -> Inspect {
        self.terminate.inspect(session)
    }

    fn accept(&self, hello: &Hello<'_>) -> AcceptTls {
        let decision = self.terminate.accept(hello);
        let Some(name) = hello.session.server_name.clone().filter(|name| self.certs.get(name).is_none())
        else {
            return decision;
        };
        let is_wanted = self.wanted.by_client(&name);
        match (self.wait, decision) {
            // A proof is asked for in the same way, and is not waited for.
            (Some(wait), AcceptTls::Later(later)) if is_wanted => {
                let config = Arc::clone(&self.config);
                let certificate = self.certificate(name, wait);
                AcceptTls::Later(
                    async move {
                        let decision = later.await;
                        if matches!(decision, AcceptTls::Terminate(ref with) if Arc::ptr_eq(with, &config)) {
                            certificate.await;
                        }
                        decision
                    }
                    .boxed(),
                )
            }
            (Some(wait), AcceptTls::Terminate(config)) if is_wanted => {
                let certificate = self.certificate(name, wait);
                AcceptTls::Later(certificate.map(|()| AcceptTls::Terminate(config)).boxed())
            }
            (_, decision) => decision,
        }
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("wait", &self.wait).finish_non_exhaustive()
    }
}

/// Speaks TLS with instances whose tags say so, whatever certificate they show.
pub(super) struct Outbound {
    /// Made for the first of them, which is when it is said that nothing is verified.
    config: OnceLock<Option<Arc<ClientConfig>>>,
}

impl Outbound {
    pub(super) fn new() -> Self {
        Self { config: OnceLock::new() }
    }

    fn config(&self) -> Option<Arc<ClientConfig>> {
        let made = self.config.get_or_init(|| {
            let provider = tls::provider();
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
            let builder = builder.with_safe_default_protocol_versions().ok()?;
            let anybody = Unverified::new(provider, "instances with the tag tricot-https");
            Some(Arc::new(
                builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth(),
            ))
        });
        made.clone()
    }
}

impl TlsPolicy for Outbound {
    fn connect(&self, to: &To<Session>) -> ConnectTls {
        if !Backend::of(&to.endpoint).is_some_and(|backend| backend.speaks_tls()) {
            return ConnectTls::Plaintext;
        }
        let name =
            to.request.server_name.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let name = name.unwrap_or_else(|| to.endpoint.addr.ip().into());
        self.config().map_or(ConnectTls::Refuse, |config| ConnectTls::Required(ClientTls::new(config, name)))
    }
}

impl SameCertificate for AcmeCerts {
    /// Names without a certificate have a self-signed one each.
    fn same(&self, one: &str, other: &str) -> bool {
        match (self.get(one), self.get(other)) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one, &other),
            _ => false,
        }
    }
}

/// The version and the application protocol of a connection, for metrics.
pub(super) fn labels(session: &Session) -> (&'static str, &'static str) {
    let version = session.tls.as_deref().map_or("none", |tls: &TlsSession| tls.version);
    let alpn = match session.alpn.as_deref() {
        Some(b"h2") => "h2",
        Some(b"http/1.1") => "http/1.1",
        Some(_) => "other",
        None => "none",
    };
    (version, alpn)
}
