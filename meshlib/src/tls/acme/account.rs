//! The one account that all nodes share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use instant_acme::Account;
use instant_acme::AccountBuilder;
use instant_acme::AccountCredentials;
use instant_acme::Key;
use instant_acme::NewAccount;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio::time;

use super::Shared;
use super::client::Notes;
use super::client::Recorded;
use super::ending::before_end;
use super::failure::Failure;
use super::retry::with_new_nonces;
use crate::drain::Draining;
use crate::store::Lock;
use crate::store::Read;
use crate::store::StoreError;
use crate::store::When;

/// How long to wait for another node that registers.
const REGISTERING: Duration = Duration::from_secs(60);
/// How often to look whether it has.
const LOOK: Duration = Duration::from_millis(250);

/// The account for one order: its answers are noted apart from those of other orders.
pub(super) struct Calls {
    pub(super) account: Account,
    pub(super) notes: Arc<Notes>,
    version: u64,
}

impl Shared {
    /// The account of the store; the first to need one registers it.
    pub(super) async fn account(&self, ending: &Draining) -> Result<Calls, Failure> {
        let deadline = time::Instant::now() + REGISTERING;
        loop {
            let stored = before_end(ending, self.stored_account()).await.ok_or(Failure::Ending)?;
            if let Some(calls) = stored? {
                return Ok(calls);
            }
            if let Some(lock) = self.account_lock(ending).await? {
                // Not given up from here on: an account that nobody has kept would be lost.
                let registered = self.register(&lock).await;
                lock.release().await;
                registered?;
            } else if time::Instant::now() > deadline {
                return Err(Failure::Account("another node does not get ready with registering"));
            } else {
                before_end(ending, time::sleep(LOOK)).await.ok_or(Failure::Ending)?;
            }
        }
    }

    async fn account_lock(&self, ending: &Draining) -> Result<Option<Lock>, Failure> {
        let taken = self.lock_before_end(&self.layout.account_lock(), ending).await;
        Ok(taken.ok_or(Failure::Ending)??)
    }

    /// Registers the account's key again at an authority that does not know it any more. Unless another node has done so.
    pub(super) async fn account_again(&self, unknown: &Calls, ending: &Draining) -> Result<Calls, Failure> {
        let deadline = time::Instant::now() + REGISTERING;
        loop {
            let key = self.layout.account();
            let stored = before_end(ending, self.store.get(&key, Read::Latest)).await;
            let Some(entry) = stored.ok_or(Failure::Ending)?? else {
                return self.account(ending).await;
            };
            if entry.version != unknown.version {
                return self.account(ending).await;
            }
            if let Some(lock) = self.account_lock(ending).await? {
                let done = self.register_again(&lock, entry.version, &entry.value).await;
                lock.release().await;
                done?;
                return self.account(ending).await;
            }
            if time::Instant::now() > deadline {
                return Err(Failure::Account("another node does not get ready with registering"));
            }
            before_end(ending, time::sleep(LOOK)).await.ok_or(Failure::Ending)?;
        }
    }

    pub(super) async fn stored_account(&self) -> Result<Option<Calls>, Failure> {
        let key = self.layout.account();
        let mut entry = self.store.get(&key, Read::Latest).await?;
        if entry.is_none() {
            // Deleted by somebody, unless it was lost with all else and can be written back.
            self.restore_if_allowed().await?;
            entry = self.store.get(&key, Read::Latest).await?;
        }
        let Some(entry) = entry else {
            self.known.set_account(None);
            return Ok(None);
        };
        let credentials = credentials(&entry.value)?;
        self.known.set_account(Some(entry.value));
        let (builder, notes) = self.builder();
        let account = builder.from_credentials(credentials).await;
        let account = account.map_err(|error| Failure::from_acme(error, notes.retry_after()))?;
        Ok(Some(Calls { account, notes, version: entry.version }))
    }

    /// Registers a new account, or takes over the key of Tricot's.
    async fn register(&self, lock: &Lock) -> Result<(), Failure> {
        if self.store.get(&self.layout.account(), Read::Latest).await?.is_some() {
            return Ok(());
        }
        if let Some(key) = self.layout.account_key()
            && let Some(entry) = self.store.get(&key, Read::Latest).await?
        {
            let pem = pkcs8(&entry.value).ok_or(Failure::Account("its PEM holds no P-256 key"))?;
            let credentials = self.register_key(pem).await?;
            tracing::info!(key, "taking over an ACME account");
            return self.keep(&credentials, When::Held(lock)).await;
        }
        let credentials = self.register_new().await?;
        tracing::info!(directory = self.options.directory, "registered an ACME account");
        self.keep(&credentials, When::Held(lock)).await
    }

    async fn register_again(&self, _: &Lock, version: u64, stored: &Bytes) -> Result<(), Failure> {
        tracing::warn!(
            directory = self.options.directory,
            "the ACME account is not known any more; registering again"
        );
        let credentials = if self.options.external_account.is_some() {
            // A binding comes with a new key only.
            self.register_new().await?
        } else {
            let key = credentials(stored)?.private_key().secret_pkcs8_der().to_vec();
            self.register_key(key.into()).await?
        };
        self.keep(&credentials, When::Version(version)).await
    }

    async fn register_new(&self) -> Result<AccountCredentials, Failure> {
        let contact = self.contact();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let external = self.options.external_account.as_ref().map(|account| account.key());
        if external.is_none() && self.directory().await?.meta.external_account_required {
            return Err(Failure::ExternalAccount);
        }
        let url = self.options.directory.clone();
        let (_, notes) = self.builder();
        let created = with_new_nonces!(async {
            let builder = self.builder_noting(&notes);
            builder.create(&new, url.clone(), external.as_ref()).await
        });
        let (_, credentials) = created.map_err(|error| Failure::from_acme(error, notes.retry_after()))?;
        Ok(credentials)
    }

    async fn register_key(&self, key: PrivatePkcs8KeyDer<'static>) -> Result<AccountCredentials, Failure> {
        let url = self.options.directory.clone();
        let (_, notes) = self.builder();
        let failed = |error| Failure::from_acme(error, notes.retry_after());
        let created = with_new_nonces!(async {
            let pair = (Key::from_pkcs8_der(key.clone_key())?, PrivateKeyDer::Pkcs8(key.clone_key()));
            self.builder_noting(&notes).create_from_key(pair, url.clone()).await
        });
        let (account, credentials) = created.map_err(failed)?;
        let contact = self.contact();
        if !contact.is_empty() {
            let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
            with_new_nonces!(account.update_contacts(&contact)).map_err(failed)?;
        }
        Ok(credentials)
    }

    async fn keep(&self, credentials: &AccountCredentials, when: When<'_>) -> Result<(), Failure> {
        let mut json = serde_json::to_value(credentials).map_err(|_| Failure::Account("it has no JSON"))?;
        json["contact"] = self.contact().into();
        let key = self.layout.account();
        // If somebody else has written one meanwhile, that is the one.
        if !self.store.put(&key, json.to_string().into(), when).await? {
            tracing::debug!(key, "another node has registered, too");
        }
        Ok(self.keep_key(credentials).await?)
    }

    /// Keeps the key of an account where the original looks for it.
    pub(super) async fn keep_account_key(&self, account: &[u8]) -> Result<(), StoreError> {
        match credentials(account) {
            Ok(credentials) => self.keep_key(&credentials).await,
            // It was read before.
            Err(_) => Ok(()),
        }
    }

    async fn keep_key(&self, credentials: &AccountCredentials) -> Result<(), StoreError> {
        if let Some(key) = self.layout.account_key() {
            let pem = super::pem::encode("PRIVATE KEY", credentials.private_key().secret_pkcs8_der());
            self.store.put(&key, pem.into(), When::Absent).await?;
        }
        Ok(())
    }

    fn contact(&self) -> Vec<String> {
        let email = self.options.contact.as_deref().map(str::trim).filter(|email| !email.is_empty());
        email.map(|email| format!("mailto:{}", email.trim_start_matches("mailto:"))).into_iter().collect()
    }

    fn builder(&self) -> (AccountBuilder, Arc<Notes>) {
        let notes = Arc::default();
        (self.builder_noting(&notes), notes)
    }

    fn builder_noting(&self, notes: &Arc<Notes>) -> AccountBuilder {
        let recorded = Recorded { client: self.client.clone(), notes: Arc::clone(notes) };
        Account::builder_with_http(Box::new(recorded))
    }
}

fn credentials(json: &[u8]) -> Result<AccountCredentials, Failure> {
    // Through a value, because what is borrowed from must be free of escapes.
    let value: Result<Value, _> = serde_json::from_slice(json);
    value.and_then(serde_json::from_value).map_err(|_| Failure::Account("its JSON makes no sense"))
}

/// A P-256 key in PKCS#8, from PEM in that form or in the one that is older.
fn pkcs8(pem: &[u8]) -> Option<PrivatePkcs8KeyDer<'static>> {
    let key = match PrivateKeyDer::from_pem_slice(pem).ok()? {
        PrivateKeyDer::Pkcs8(key) => key,
        PrivateKeyDer::Sec1(key) => super::pem::wrap_p256(key.secret_sec1_der())?.into(),
        _ => return None,
    };
    Key::from_pkcs8_der(key.clone_key()).is_ok().then_some(key)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::test_util::CertOptions;
    use crate::test_util::KeyKind;
    use crate::test_util::TestCa;

    /// An account as the store has it, which can be used without asking its authority for anything.
    pub(in super::super) fn account() -> Bytes {
        let pem = TestCa::new().issue(["a.test"]).key_pem();
        let key: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let key = key.replace('+', "-").replace('/', "_").replace('=', "");
        let url = "https://ca.test/";
        let urls = serde_json::json!({"newNonce": url, "newAccount": url, "newOrder": url});
        serde_json::json!({"id": "https://ca.test/1", "key_pkcs8": key, "urls": urls}).to_string().into()
    }

    #[test]
    fn keys_of_both_forms_are_taken_and_other_curves_are_not() {
        let cert = TestCa::new().issue(["a.test"]);
        let (new, old) = (cert.key_pem(), cert.old_key_pem().unwrap());

        assert!(pkcs8(new.as_bytes()).is_some());
        assert!(pkcs8(old.as_bytes()).is_some());
        let other = CertOptions::default().with_key(KeyKind::P384);
        let other = TestCa::new().issue_with(["a.test"], &other);
        assert!(pkcs8(other.key_pem().as_bytes()).is_none());
        assert!(pkcs8(other.old_key_pem().unwrap().as_bytes()).is_none());
        assert!(pkcs8(b"").is_none());
    }
}
