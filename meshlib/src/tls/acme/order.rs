//! One order, from the authority's first word to the chain.

use std::time::Duration;

use bytes::Bytes;
use instant_acme::AuthorizationStatus;
use instant_acme::CertificateIdentifier;
use instant_acme::ChallengeType;
use instant_acme::Identifier;
use instant_acme::NewOrder;
use instant_acme::Order;
use instant_acme::OrderStatus;
use instant_acme::Problem;
use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::KeyPair;
use tokio::time;
use tokio::time::Instant;

use super::Shared;
use super::account::Calls;
use super::certificate::Certificate;
use super::client::Notes;
use super::failure::Failure;
use super::lookup::Own;
use super::options::ChallengeKind;
use super::retry::with_new_nonces;
use crate::drain::Draining;
use crate::store::Lock;
use crate::store::Read;
use crate::store::When;

/// How long the authority may take to look at a proof, and then to issue.
const STEP_WITHIN: Duration = Duration::from_secs(90);
/// How long an order may take in all.
const WITHIN: Duration = Duration::from_secs(5 * 60);
/// The first pause between looks at an order, unless the authority names another; it grows by half.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A new certificate.
pub(super) struct Issued {
    pub(super) certificate: Certificate,
    pub(super) cert_pem: String,
    pub(super) key_pem: String,
}

/// A proof that lies in the store.
struct Placed {
    key: String,
    _own: Own,
}

impl Shared {
    /// Orders a certificate for one name. What has come to the authority is finished although the end begins.
    pub(super) async fn order(
        &self,
        name: &str,
        replaces: Option<CertificateIdentifier<'static>>,
        lock: &Lock,
        ending: &Draining,
    ) -> Result<Issued, Failure> {
        tokio::select! {
            biased;
            () = lock.lost() => Err(Failure::LockLost),
            outcome = time::timeout(WITHIN, self.run_order(name, replaces, lock, ending)) => {
                outcome.unwrap_or(Err(Failure::TooSlow(WITHIN)))
            }
        }
    }

    async fn run_order(
        &self,
        name: &str,
        replaces: Option<CertificateIdentifier<'static>>,
        lock: &Lock,
        ending: &Draining,
    ) -> Result<Issued, Failure> {
        let mut calls = self.account(ending).await?;
        let mut order = match self.new_order(&calls, name, replaces).await {
            Err(unknown) if unknown.is("accountDoesNotExist") => {
                calls = self.account_again(&calls, ending).await?;
                self.new_order(&calls, name, None).await?
            }
            outcome => outcome?,
        };
        let notes = &*calls.notes;
        let placed = self.prove(&mut order, notes, name, lock).await?;
        let ready = self.until_ready(&mut order, notes).await;
        if let Some(Placed { key, .. }) = placed {
            // The authority has asked as often as it will. If the store does not hear it, it goes with the lock.
            let _ = self.store.delete(&key, When::Held(lock)).await;
        }
        ready?;
        self.finalize(&mut order, notes, name).await
    }

    async fn new_order(
        &self,
        calls: &Calls,
        name: &str,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, Failure> {
        if replaces.is_none() {
            return self.place_order(calls, name, None).await;
        }
        match self.place_order(calls, name, replaces).await {
            Err(failure) if is_about_replacing(&failure) => {
                tracing::debug!(name, %failure, "ordering without saying what is replaced");
                self.place_order(calls, name, None).await
            }
            outcome => outcome,
        }
    }

    async fn place_order(
        &self,
        calls: &Calls,
        name: &str,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, Failure> {
        let identifiers = [Identifier::Dns(name.to_owned())];
        let mut new = NewOrder::new(&identifiers);
        if let Some(profile) = &self.options.profile {
            new = new.profile(profile);
        }
        if let Some(id) = replaces {
            new = new.replaces(id);
        }
        let placed = with_new_nonces!(calls.account.new_order(&new));
        placed.map_err(|error| Failure::from_acme(error, calls.notes.retry_after()))
    }

    /// Places the proof and tells the authority. Nothing if it believes us already.
    async fn prove(
        &self,
        order: &mut Order,
        notes: &Notes,
        name: &str,
        lock: &Lock,
    ) -> Result<Option<Placed>, Failure> {
        let Some((kind, token, authorization)) = self.offered(order, notes).await? else { return Ok(None) };
        let key = match kind {
            ChallengeType::TlsAlpn01 => self.layout.alpn(name),
            _ => self.layout.token(&token),
        };
        let authorization = Bytes::from(authorization);
        let own = self.placed.answer_with(&key, authorization.clone());
        if !self.store.put_ephemeral(&key, authorization.clone(), lock).await? {
            return Err(Failure::LockLost);
        }
        // The authority may ask any node within milliseconds.
        let read = self.store.get(&key, Read::Latest).await?;
        if read.is_none_or(|entry| entry.value != authorization) {
            return Err(Failure::LockLost);
        }
        let told = with_new_nonces!(async {
            let mut authorizations = order.authorizations();
            let Some(handle) = authorizations.next().await else { return Ok(()) };
            let mut handle = handle?;
            match handle.challenge(kind.clone()) {
                Some(mut challenge) => challenge.set_ready().await,
                None => Ok(()),
            }
        });
        told.map_err(|error| Failure::from_acme(error, notes.retry_after()))?;
        Ok(Some(Placed { key, _own: own }))
    }

    /// The kind, the token and the key authorization of the challenge that we like best.
    async fn offered(
        &self,
        order: &mut Order,
        notes: &Notes,
    ) -> Result<Option<(ChallengeType, String, String)>, Failure> {
        let kinds = self.options.challenges.iter().map(|kind| match kind {
            ChallengeKind::Http01 => ChallengeType::Http01,
            ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        });
        let kinds: Vec<_> = kinds.collect();
        let offered = with_new_nonces!(async {
            // One name has one authorization.
            let mut authorizations = order.authorizations();
            let Some(handle) = authorizations.next().await else { return Ok(Some(None)) };
            let mut handle = handle?;
            if handle.status == AuthorizationStatus::Valid {
                return Ok(None);
            }
            let Some(kind) = kinds.iter().find(|kind| handle.challenges.iter().any(|c| c.r#type == **kind))
            else {
                return Ok(Some(None));
            };
            let challenge = handle.challenge(kind.clone()).map(|challenge| {
                let authorization = challenge.key_authorization().as_str().to_owned();
                (kind.clone(), challenge.token.clone(), authorization)
            });
            Ok(Some(challenge))
        });
        match offered.map_err(|error| Failure::from_acme(error, notes.retry_after()))? {
            None => Ok(None),
            Some(None) => Err(Failure::NoChallenge),
            // The token becomes a key of the store.
            Some(Some((_, token, _))) if !super::challenge::is_token(&token) => Err(Failure::NoChallenge),
            Some(offered) => Ok(offered),
        }
    }

    async fn until_ready(&self, order: &mut Order, notes: &Notes) -> Result<(), Failure> {
        let status = poll(order, notes, |status| status != OrderStatus::Pending).await?;
        if status == OrderStatus::Invalid { Err(self.reason(order, notes).await) } else { Ok(()) }
    }

    /// Why an order has become invalid: its authorization knows better than itself.
    async fn reason(&self, order: &mut Order, notes: &Notes) -> Failure {
        let own = order.state().error.clone();
        let found = with_new_nonces!(async {
            let mut authorizations = order.authorizations();
            let Some(handle) = authorizations.next().await else { return Ok(None) };
            let mut handle = handle?;
            let state = handle.refresh().await?;
            Ok(state.challenges.iter().find_map(|challenge| challenge.error.clone()))
        });
        let problem: Option<Problem> = found.ok().flatten().or(own);
        match problem {
            Some(problem) => Failure::from_problem(&problem, notes.retry_after()),
            None => Failure::Problem {
                kind: "invalid".to_owned(),
                detail: "the order is invalid, for no reason that is given".to_owned(),
                retry_after: None,
            },
        }
    }

    async fn finalize(&self, order: &mut Order, notes: &Notes, name: &str) -> Result<Issued, Failure> {
        let failed = |error| Failure::from_acme(error, notes.retry_after());
        let (key, csr) = request(name).ok_or(Failure::Key)?;
        let deadline = Instant::now() + STEP_WITHIN;
        while order.state().status != OrderStatus::Valid && order.state().status != OrderStatus::Processing {
            match with_new_nonces!(order.finalize_csr(&csr)).map_err(failed) {
                Ok(()) => break,
                // RFC 8555 section 7.4: it is not ready yet. Or it was finalized by a request whose answer was lost.
                Err(failure) if failure.is("orderNotReady") && Instant::now() < deadline => {
                    time::sleep(FIRST_PAUSE).await;
                    let ended = |status| status != OrderStatus::Pending;
                    let status = poll(order, notes, ended).await?;
                    if status == OrderStatus::Invalid {
                        return Err(self.reason(order, notes).await);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        if order.state().status != OrderStatus::Valid {
            let ended = |status| matches!(status, OrderStatus::Valid | OrderStatus::Invalid);
            if poll(order, notes, ended).await? == OrderStatus::Invalid {
                return Err(self.reason(order, notes).await);
            }
        }
        let chain = with_new_nonces!(order.certificate()).map_err(failed)?;
        let chain = chain.ok_or_else(|| Failure::Unreachable {
            detail: "there is no certificate in a valid order".to_owned(),
            retry_after: None,
        })?;
        let key_pem = key.serialize_pem();
        let now = self.options.clock.now();
        let certificate = Certificate::new(name, &chain, &key_pem, now, &self.options.provider);
        let certificate = certificate.map_err(Failure::Unusable)?;
        Ok(Issued { certificate, cert_pem: chain, key_pem })
    }
}

/// Looks at an order until it has a status.
async fn poll(
    order: &mut Order,
    notes: &Notes,
    until: impl Fn(OrderStatus) -> bool,
) -> Result<OrderStatus, Failure> {
    let deadline = Instant::now() + STEP_WITHIN;
    let mut pause = FIRST_PAUSE;
    loop {
        let status = with_new_nonces!(async { order.refresh().await.map(|state| state.status) });
        let status = status.map_err(|error| Failure::from_acme(error, notes.retry_after()))?;
        if until(status) {
            return Ok(status);
        }
        // It may ask for more patience, not for less.
        let wait = notes.retry_after().unwrap_or(pause).max(FIRST_PAUSE);
        if Instant::now() + wait > deadline {
            return Err(Failure::TooSlow(STEP_WITHIN));
        }
        time::sleep(wait).await;
        pause = pause.mul_f64(1.5).min(LONGEST_PAUSE);
    }
}

/// A new P-256 key, and the request for it. The subject stays empty.
fn request(name: &str) -> Option<(KeyPair, Vec<u8>)> {
    let key = KeyPair::generate().ok()?;
    let mut params = CertificateParams::new(vec![name.to_owned()]).ok()?;
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key).ok()?;
    Some((key, csr.der().to_vec()))
}

/// Whether an order may succeed that does not say what it replaces (RFC 9773 section 5).
fn is_about_replacing(failure: &Failure) -> bool {
    match failure {
        Failure::Problem { kind, .. } => !matches!(
            kind.as_str(),
            "accountDoesNotExist" | "rateLimited" | "rejectedIdentifier" | "badNonce"
        ),
        // The answer does not repeat what is replaced.
        Failure::Unreachable { detail, .. } => detail.contains("replaces"),
        _ => false,
    }
}
