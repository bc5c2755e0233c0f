//! What is done for one name: look, order, write.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::time;
use tokio::time::Instant;

use super::Shared;
use super::certificate::Certificate;
use super::digest;
use super::directory;
use super::ending::before_end;
use super::failure::Failure;
use super::failure::Reaction;
use super::limits::Permit;
use super::order::Issued;
use super::plan::Failed;
use super::plan::Phase;
use super::plan::Urgency;
use super::record::Announcement;
use super::record::Failures;
use super::record::Stored;
use super::renewal;
use super::renewal::Due;
use crate::drain::Draining;
use crate::error::Chain;
use crate::observe::Event;
use crate::store::Lock;
use crate::store::Read;
use crate::store::StoreError;
use crate::store::When;

/// When a store is asked again that answered, and refused.
const STORE_PAUSE: Duration = Duration::from_secs(10);
/// How long a certificate that was issued waits for a store to take it.
const WRITE_WITHIN: Duration = Duration::from_secs(60);
/// How much time there is for each name, when the authority is first asked about all of them.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest time between two looks at a lock that another node holds.
const LOCK_LOOK: Duration = Duration::from_secs(15);

/// What the store has for a name.
pub(super) struct Loaded {
    /// The certificate that is served now, from the store or from before.
    pub(super) certificate: Option<Arc<Certificate>>,
    /// The value it came from.
    stored: Option<Stored>,
}

impl Shared {
    /// Looks at a name: is its certificate good, can one be had from the store, or must one be ordered?
    pub(super) async fn check(&self, name: &str) -> Phase {
        let now = self.now();
        if let Some(due) = self.due(name)
            && due.at > now
        {
            return self.at_rest(name, due);
        }
        if self.outage.is_on() {
            return Phase::Stalled;
        }
        if let Err(error) = self.load(name).await {
            return self.store_failed(name, &error);
        }
        match self.need(name).await {
            Ok(Need::Rest(phase)) => phase,
            Ok(Need::Order(urgency, _)) => Phase::Order(urgency),
            Err(error) => self.store_failed(name, &error),
        }
    }

    /// Reads a name's certificate from the store and serves it, if it is of use and another one than before.
    pub(super) async fn load(&self, name: &str) -> Result<Loaded, StoreError> {
        let held = self.certs.certificate(name);
        let Some(entry) = self.store.get(&self.layout.certificate(name), Read::Latest).await? else {
            return Ok(Loaded { certificate: held, stored: None });
        };
        let stored = Stored::parse(&entry.value).ok();
        match self.certs.parse(name, &entry.value) {
            Ok(parsed) if held.as_ref().is_some_and(|held| held.fingerprint == parsed.fingerprint) => {
                Ok(Loaded { certificate: held, stored })
            }
            Ok(parsed) => {
                tracing::debug!(name, fingerprint = parsed.fingerprint, "loaded a certificate");
                Ok(Loaded { certificate: Some(self.certs.insert(parsed)), stored })
            }
            Err(error) => {
                if self.complain_about(name, entry.version) {
                    tracing::warn!(name, error = %Chain(&error), "a stored certificate is of no use");
                }
                Ok(Loaded { certificate: held, stored })
            }
        }
    }

    /// Orders a certificate, if nobody else does and it is still needed. When the end begins it is given up, unless the
    /// authority has been asked for it; the lock is given back in any case.
    pub(super) async fn order_step(&self, name: &str, permit: Permit, ending: &Draining) -> Phase {
        let lock = match self.lock_before_end(&self.layout.lock(name), ending).await {
            None => return Phase::Check,
            Some(Ok(Some(lock))) => lock,
            Some(Ok(None)) => {
                permit.refund();
                // Whoever holds it will announce the certificate; this is for the case that it died.
                let pause = (self.options.lock_ttl / 4).min(LOCK_LOOK);
                return Phase::Rest(self.now() + pause);
            }
            Some(Err(error)) => {
                permit.refund();
                return self.store_failed(name, &error);
            }
        };
        let phase = self.order_locked(name, &lock, permit, ending).await;
        lock.release().await;
        phase
    }

    async fn order_locked(&self, name: &str, lock: &Lock, permit: Permit, ending: &Draining) -> Phase {
        // Another node may have just finished, or failed.
        let looking = async {
            // What the store has lost must be there again before anything is ordered.
            self.restore().await?;
            let loaded = self.load(name).await?;
            Ok((loaded, self.need(name).await?))
        };
        let (loaded, failures) = match before_end(ending, looking).await {
            None => return Phase::Check,
            Some(Ok((loaded, Need::Order(_, failures)))) => (loaded, failures),
            Some(Ok((_, Need::Rest(phase)))) => {
                permit.refund();
                return phase;
            }
            Some(Err(error)) => {
                permit.refund();
                return self.store_failed(name, &error);
            }
        };
        let began = Instant::now();
        let suggested = self.due(name).is_some_and(|due| due.suggested);
        let replaces = match &loaded.certificate {
            Some(before) => match before_end(ending, self.offers_renewal_info()).await {
                Some(true) => directory::identifier(before),
                Some(false) => None,
                None => return Phase::Check,
            },
            None => None,
        };
        let outcome = match self.order(name, replaces, lock, ending).await {
            Ok(issued) => self.keep_issued(issued, suggested, loaded.stored, lock).await,
            Err(Failure::Ending) => return Phase::Check,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(certificate) => {
                self.options.observer.on(&Event::CertOrdered { name, result: Ok(began.elapsed()) });
                let not_after = super::clock::rfc3339(certificate.not_after);
                tracing::info!(name, not_after, took = ?began.elapsed(), "ordered a certificate");
                if failures.is_some() {
                    // If it stays, it only says what is over.
                    let _ = self.store.delete(&self.layout.failure(name), When::Held(lock)).await;
                }
                self.succeeded(name);
                self.due(name).map_or(Phase::Check, |due| self.at_rest(name, due))
            }
            Err(failure) => {
                self.options.observer.on(&Event::CertOrdered { name, result: Err(failure.kind()) });
                self.failed(name, &failure, failures, lock).await
            }
        }
    }

    /// Writes a certificate, then its announcement, and serves it.
    async fn keep_issued(
        &self,
        issued: Issued,
        suggested: bool,
        before: Option<Stored>,
        lock: &Lock,
    ) -> Result<Arc<Certificate>, Failure> {
        let Issued { mut certificate, cert_pem, key_pem } = issued;
        certificate.suggested = suggested;
        certificate.ordered = Some(self.now());
        let by = (self.options.directory.as_str(), self.options.node.as_str());
        let stored = Stored::new(&certificate, (cert_pem, key_pem), by, before);
        let announcement = Announcement::new(&certificate);
        let name = Arc::clone(&certificate.name);
        self.write(&self.layout.certificate(&name), stored.to_json().into(), lock).await?;
        certificate.set_stored(stored);
        // Served from here on, whatever becomes of the announcement: the others read the certificate before they order.
        let certificate = self.certs.insert(certificate);
        self.write(&self.layout.announcement(&name), announcement.to_json().into(), lock).await?;
        Ok(certificate)
    }

    /// Writes under the lock. A store that fails is tried again: what was issued would be lost.
    async fn write(&self, key: &str, value: Bytes, lock: &Lock) -> Result<(), Failure> {
        let deadline = Instant::now() + WRITE_WITHIN;
        loop {
            match self.store.put(key, value.clone(), When::Held(lock)).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(Failure::LockLost),
                Err(error) if Instant::now() > deadline || lock.is_lost() => return Err(error.into()),
                Err(error) => tracing::debug!(key, error = %Chain(&error), "cannot write to the store"),
            }
            time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Whether a name must be ordered, after its certificate was loaded.
    async fn need(&self, name: &str) -> Result<Need, StoreError> {
        let now = self.now();
        if let Some(due) = self.due(name)
            && due.at > now
        {
            return Ok(Need::Rest(self.at_rest(name, due)));
        }
        let entry = self.store.get(&self.layout.failure(name), Read::Latest).await?;
        let failures = entry.and_then(|entry| Failures::parse(&entry.value).ok());
        if let Some(failures) = &failures {
            let until = failures.until(now);
            if until > now {
                self.note_failed(name, until, &failures.last_error);
                return Ok(Need::Rest(Phase::Rest(until)));
            }
        }
        let urgency = match self.certs.certificate(name) {
            None => Urgency::Missing,
            Some(certificate) if certificate.not_after <= now => Urgency::Expired,
            Some(certificate) => Urgency::Due(certificate.not_before),
        };
        Ok(Need::Order(urgency, failures))
    }

    /// Nothing is to be done before this. The authority is asked whether it sees it so, if it has not been.
    fn at_rest(&self, name: &str, due: Due) -> Phase {
        let mut plan = self.plan();
        if let Some(state) = plan.get_mut(name) {
            state.failed = None;
        }
        let asks = self.certs.certificate(name).is_some_and(|cert| renewal::is_suggestible(&cert));
        if asks && !plan.has_look(name) {
            // All names at once when a node starts: ten a second.
            let spread = LOOK_EVERY.mul_f64(plan.names().len() as f64 * digest::fraction(name));
            plan.set_look(name, Some(self.now() + spread));
        }
        Phase::Rest(due.at)
    }

    /// When the certificate of a name is due; nothing if there is none.
    pub(super) fn due(&self, name: &str) -> Option<Due> {
        let certificate = self.certs.certificate(name)?;
        let suggestion = self.plan().get_mut(name).and_then(|state| state.suggestion.clone());
        Some(renewal::due(&certificate, suggestion.as_ref()))
    }

    /// Asks the authority when a name's certificate should be renewed.
    pub(super) async fn look(&self, name: &str) {
        let Some(certificate) = self.certs.certificate(name) else { return };
        if !renewal::is_suggestible(&certificate) {
            return;
        }
        let (suggestion, next) = self.directories.suggestion(&certificate, self.now()).await;
        let mut plan = self.plan();
        if let Some(state) = plan.get_mut(name) {
            let changed = state.suggestion.as_ref().map(|before| (before.start, before.end))
                != suggestion.as_ref().map(|now| (now.start, now.end));
            if changed && let Some(window) = &suggestion {
                let (start, end) = (super::clock::rfc3339(window.start), super::clock::rfc3339(window.end));
                tracing::debug!(name, start, end, "the authority suggests when to renew");
            }
            state.suggestion = suggestion;
        }
        plan.set_look(name, Some(next));
        plan.touch(name);
    }

    async fn offers_renewal_info(&self) -> bool {
        self.directories.get().await.is_ok_and(|directory| directory.renewal_info.is_some())
    }

    /// Writes down that an order came to nothing, and says when the next may be placed.
    async fn failed(&self, name: &str, failure: &Failure, before: Option<Failures>, lock: &Lock) -> Phase {
        let now = self.now();
        let here = {
            let mut plan = self.plan();
            plan.get_mut(name).map_or(1, |state| {
                state.failures_here = state.failures_here.saturating_add(1);
                state.failures_here
            })
        };
        if let Failure::Store(error) = failure {
            self.store_fails(error);
        }
        let in_a_row = before.as_ref().map_or(0, |before| before.failures).saturating_add(1);
        let error = Chain(failure).to_string();
        let until = match failure.reaction(in_a_row, self.options.first_backoff) {
            Reaction::Everyone(pause) => {
                let until = now + pause;
                let failures = Failures::next(before, until, &error, &self.options.node);
                let key = self.layout.failure(name);
                let written = self.store.put(&key, failures.to_json().into(), When::Held(lock)).await;
                if !matches!(written, Ok(true)) {
                    tracing::debug!(name, "cannot write down a failure; this node keeps to it alone");
                }
                until
            }
            Reaction::Here(_) => match failure.reaction(here, self.options.first_backoff) {
                Reaction::Here(pause) | Reaction::Everyone(pause) => now + pause,
            },
        };
        let again = super::clock::rfc3339(until);
        tracing::warn!(name, error, again, "cannot order a certificate");
        self.note_failed(name, until, &error);
        Phase::Rest(until)
    }

    /// The store has failed before an order for a name was placed.
    fn store_failed(&self, name: &str, error: &StoreError) -> Phase {
        tracing::debug!(name, error = %Chain(error), "the store failed");
        self.store_fails(error);
        if matches!(error, StoreError::Unreachable(_)) {
            return Phase::Stalled;
        }
        // A look at the store may well succeed while it refuses what this name needs.
        let until = self.now() + STORE_PAUSE;
        self.note_failed(name, until, &Chain(error).to_string());
        Phase::Rest(until)
    }

    fn note_failed(&self, name: &str, until: SystemTime, error: &str) {
        if let Some(state) = self.plan().get_mut(name) {
            state.failed = Some(Failed { until, error: error.into() });
        }
    }

    fn succeeded(&self, name: &str) {
        if let Some(state) = self.plan().get_mut(name) {
            state.failed = None;
            state.failures_here = 0;
        }
    }
}

enum Need {
    Rest(Phase),
    Order(Urgency, Option<Failures>),
}
