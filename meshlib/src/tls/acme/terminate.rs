//! A TLS policy with the certificates of a manager.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rustls::AlertDescription;
use rustls::ServerConfig;

use super::certs::ACME_TLS;
use super::certs::AcmeCerts;
use crate::io::sniff::Sniffed;
use crate::session::Session;
use crate::tls::AcceptTls;
use crate::tls::Hello;
use crate::tls::Inspect;
use crate::tls::TlsPolicy;

/// How long a client may take for its hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Is the TLS server of every client, with the certificates of a [`Manager`](super::Manager).
///
/// A name that is not in memory is looked for in the store before the handshake, and the authority's handshakes that
/// prove a name are answered, whichever node has placed the order. A client that does not speak TLS is closed.
#[derive(Clone)]
pub struct Terminate {
    certs: Arc<AcmeCerts>,
    usual: Arc<ServerConfig>,
    proving: Arc<ServerConfig>,
}

impl Terminate {
    /// With a configuration whose certificates are these. For proofs its application protocols are replaced.
    pub fn new(certs: Arc<AcmeCerts>, config: impl Into<Arc<ServerConfig>>) -> Self {
        let usual = config.into();
        let mut proving = (*usual).clone();
        proving.alpn_protocols = vec![ACME_TLS.to_vec()];
        proving.cert_resolver = certs.clone();
        // An authority does not come back.
        proving.send_tls13_tickets = 0;
        Self { certs, usual, proving: proving.into() }
    }
}

impl fmt::Debug for Terminate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminate").field("certs", &self.certs).finish_non_exhaustive()
    }
}

impl TlsPolicy for Terminate {
    fn inspect(&self, _: &Session) -> Inspect {
        Inspect::FirstBytes { within: HELLO_WITHIN }
    }

    fn accept(&self, hello: &Hello<'_>) -> AcceptTls {
        let Sniffed::Tls { alpn, .. } = &hello.protocol else { return AcceptTls::Refuse };
        let name = hello.session.server_name.clone();
        if alpn.contains(&ACME_TLS) {
            let Some(name) = name else { return AcceptTls::Alert(AlertDescription::UnrecognisedName) };
            let (certs, proving) = (Arc::clone(&self.certs), Arc::clone(&self.proving));
            return AcceptTls::Later(
                async move {
                    if certs.fetch_proof(&name).await {
                        AcceptTls::Terminate(proving)
                    } else {
                        AcceptTls::Alert(AlertDescription::UnrecognisedName)
                    }
                }
                .boxed(),
            );
        }
        match name {
            Some(name) if self.certs.is_worth_finding(&name) => {
                let (certs, usual) = (Arc::clone(&self.certs), Arc::clone(&self.usual));
                AcceptTls::Later(
                    async move {
                        certs.find(&name).await;
                        AcceptTls::Terminate(usual)
                    }
                    .boxed(),
                )
            }
            _ => AcceptTls::Terminate(Arc::clone(&self.usual)),
        }
    }
}
