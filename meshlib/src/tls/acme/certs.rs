//! Certificates by the name a client asks for, without waiting.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::time::Instant;

use super::certificate::Certificate;
use super::certificate::Unusable;
use super::clock;
use super::clock::Clock;
use super::layout::Layout;
use super::lookup::Lookup;
use super::names::host_name;
use super::options::AcmeOptions;
use super::record::Stored;
use super::self_signed;
use super::self_signed::SelfSigned;
use crate::error::Chain;

/// The protocol of the handshake that proves a name (RFC 8737 section 6.2).
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";
/// Into how many parts the map of certificates is divided: a new certificate copies one of them.
const SHARDS: usize = 256;
/// Most proofs that are kept for handshakes that are under way.
const MAX_PROOFS: usize = 256;
/// How long a proof is kept, which is longer than a handshake may take.
const PROOF_FOR: Duration = Duration::from_secs(30);

/// The certificates that a [`Manager`](super::Manager) has: by exact name, else a self-signed one that is made on the
/// spot.
///
/// As rustls' `ResolvesServerCert` it never waits and never refuses a hello, except for a
/// [proof](super::ChallengeKind::TlsAlpn01) that is not there. Whoever can wait [finds](Self::find) what another node has
/// stored a moment ago; [`Terminate`](super::Terminate) does so.
pub struct AcmeCerts {
    shards: Box<[ArcSwap<Shard>]>,
    /// Held while a shard is replaced.
    writing: Mutex<()>,
    changed: watch::Sender<u64>,
    self_signed: SelfSigned,
    stored: Lookup,
    placed: Arc<Lookup>,
    proofs: Mutex<Proofs>,
    layout: Arc<Layout>,
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn Clock>,
}

type Shard = HashMap<Arc<str>, Arc<Certificate>>;
/// Each with the time at which it goes.
type Proofs = HashMap<Box<str>, (Arc<CertifiedKey>, Instant)>;

impl AcmeCerts {
    pub(super) fn new(
        options: &AcmeOptions,
        self_signed: SelfSigned,
        stored: Lookup,
        placed: Arc<Lookup>,
        layout: Arc<Layout>,
    ) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            writing: Mutex::new(()),
            changed: watch::Sender::default(),
            self_signed,
            stored,
            placed,
            proofs: Mutex::default(),
            layout,
            provider: Arc::clone(&options.provider),
            clock: Arc::clone(&options.clock),
        }
    }

    /// The certificate of a name, which may have expired, if it is in memory. Letter case and a final dot do not matter.
    pub fn get(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.certificate(&host_name(name)?).map(|certificate| Arc::clone(&certificate.key))
    }

    /// Whether [`find`](Self::find) could find more than is in memory: false as well for a name that the store did not
    /// have a few seconds ago, and for what is not a host name.
    pub fn is_worth_finding(&self, name: &str) -> bool {
        host_name(name).is_some_and(|name| {
            self.certificate(&name).is_none() && !self.stored.is_missing(&self.layout.certificate(&name))
        })
    }

    /// The certificate of a name from memory, else from the store, which is asked at most once in 10 s for a name that it
    /// does not have, for at most 100 names a second, by at most 50 callers at a time, and for at most 2 s.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = host_name(name)?;
        if let Some(certificate) = self.certificate(&name) {
            return Some(Arc::clone(&certificate.key));
        }
        let json = self.stored.value(&self.layout.certificate(&name)).await?;
        match self.parse(&name, &json) {
            Ok(certificate) => {
                let certificate = self.insert(certificate);
                Some(Arc::clone(&certificate.key))
            }
            Err(error) => {
                tracing::debug!(name, error = %Chain(&error), "a stored certificate is of no use");
                None
            }
        }
    }

    /// Waits until there is a certificate for a name that has not expired, in memory.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. It may wait for ever: put a limit on it.
    pub async fn issued(&self, name: &str) -> Arc<CertifiedKey> {
        let mut changes = self.changed.subscribe();
        let name = host_name(name);
        loop {
            changes.borrow_and_update();
            if let Some(certificate) = name.as_deref().and_then(|name| self.certificate(name))
                && certificate.not_after > self.clock.now()
            {
                return Arc::clone(&certificate.key);
            }
            if changes.changed().await.is_err() {
                // Not while this is borrowed.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Reads what proves a name in a TLS handshake, for the resolver to answer with. False if there is nothing.
    pub(super) async fn fetch_proof(&self, name: &str) -> bool {
        let Some(name) = host_name(name) else { return false };
        let Some(authorization) = self.placed.value(&self.layout.alpn(&name)).await else { return false };
        let proof = self_signed::proof(&name, &authorization, self.clock.now(), &self.provider);
        let Some(proof) = proof else { return false };
        let mut proofs = lock(&self.proofs);
        let now = Instant::now();
        proofs.retain(|_, (_, until)| now < *until);
        if proofs.len() < MAX_PROOFS {
            proofs.insert(name.into(), (proof, now + PROOF_FOR));
        }
        true
    }

    pub(super) fn parse(&self, name: &str, json: &[u8]) -> Result<Certificate, Unusable> {
        let stored = Stored::parse(json).map_err(Unusable::Json)?;
        let now = self.clock.now();
        let mut certificate = Certificate::new(name, &stored.cert_pem, &stored.key_pem, now, &self.provider)?;
        certificate.suggested = stored.suggested;
        let ordered = stored.ordered.as_deref().and_then(clock::parse_rfc3339);
        // Another node's clock may be ahead.
        certificate.ordered = ordered.map(|at| at.min(now));
        certificate.set_stored(stored);
        Ok(certificate)
    }

    pub(super) fn certificate(&self, name: &str) -> Option<Arc<Certificate>> {
        self.shard(name).load().get(name).cloned()
    }

    /// Serves it from now on.
    pub(super) fn insert(&self, certificate: Certificate) -> Arc<Certificate> {
        let certificate = Arc::new(certificate);
        self.change(&certificate.name, |shard| {
            shard.insert(Arc::clone(&certificate.name), Arc::clone(&certificate));
        });
        self.appeared(&certificate.name);
        self.changed.send_modify(|generation| *generation += 1);
        certificate
    }

    /// The store has a certificate of this name by now.
    pub(super) fn appeared(&self, name: &str) {
        self.stored.appeared(&self.layout.certificate(name));
    }

    pub(super) fn remove(&self, name: &str) {
        self.change(name, |shard| {
            shard.remove(name);
        });
    }

    pub(super) fn all(&self) -> Vec<Arc<Certificate>> {
        self.shards.iter().flat_map(|shard| shard.load().values().cloned().collect::<Vec<_>>()).collect()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Shard)) {
        let _writing = lock(&self.writing);
        let mut shard = Shard::clone(&self.shard(name).load());
        change(&mut shard);
        self.shard(name).store(Arc::new(shard));
    }

    fn shard(&self, name: &str) -> &ArcSwap<Shard> {
        // FNV-1a: names are spread well enough, and cheaply.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        &self.shards[(hash % SHARDS as u64) as usize]
    }
}

impl ResolvesServerCert for AcmeCerts {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(host_name);
        if hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == ACME_TLS)) {
            let proofs = lock(&self.proofs);
            return proofs.get(name?.as_str()).map(|(proof, _)| Arc::clone(proof));
        }
        match name {
            Some(name) => match self.certificate(&name) {
                Some(certificate) => Some(Arc::clone(&certificate.key)),
                None => self.self_signed.get(Some(&name)),
            },
            None => self.self_signed.get(None),
        }
    }
}

impl fmt::Debug for AcmeCerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeCerts").field("self_signed", &self.self_signed).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
