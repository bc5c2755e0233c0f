//! Where things lie in the store.

use super::digest::hex;
use super::digest::sha256;
use super::options::PRODUCTION;

/// The keys of one directory below one prefix.
///
/// Certificates, locks and failures of another directory than Let's Encrypt's production have its hash in their keys, so
/// that they never mix.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    prefix: String,
    /// Nothing for production, else `@` and the hash.
    mark: String,
    hash: String,
}

impl Layout {
    pub(super) fn new(prefix: &str, directory: &str) -> Self {
        let hash = hex(&sha256(directory.as_bytes())[..8]);
        let mark = if directory == PRODUCTION { String::new() } else { format!("@{hash}") };
        Self { prefix: prefix.to_owned(), mark, hash }
    }

    pub(super) fn certificates(&self) -> String {
        format!("{}certs{}/", self.prefix, self.mark)
    }

    pub(super) fn certificate(&self, name: &str) -> String {
        self.certificates() + name
    }

    pub(super) fn announcements(&self) -> String {
        format!("{}acme/certs{}/", self.prefix, self.mark)
    }

    pub(super) fn announcement(&self, name: &str) -> String {
        self.announcements() + name
    }

    pub(super) fn failures(&self) -> String {
        format!("{}acme/backoff{}/", self.prefix, self.mark)
    }

    pub(super) fn failure(&self, name: &str) -> String {
        self.failures() + name
    }

    pub(super) fn lock(&self, name: &str) -> String {
        format!("{}renew_lock{}/{name}", self.prefix, self.mark)
    }

    pub(super) fn token(&self, token: &str) -> String {
        format!("{}challenge/{token}", self.prefix)
    }

    pub(super) fn alpn(&self, name: &str) -> String {
        format!("{}acme/alpn{}/{name}", self.prefix, self.mark)
    }

    pub(super) fn account(&self) -> String {
        format!("{}acme/{}/account.json", self.prefix, self.hash)
    }

    /// What a store that has lost everything does not have.
    pub(super) fn mark(&self) -> String {
        format!("{}acme/{}/mark", self.prefix, self.hash)
    }

    pub(super) fn account_lock(&self) -> String {
        format!("{}acme/{}/account_lock", self.prefix, self.hash)
    }

    /// The account's key in the layout of Tricot, which knows one directory only.
    pub(super) fn account_key(&self) -> Option<String> {
        self.mark.is_empty().then(|| format!("{}letsencrypt_account_key.pem", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_do_not_mix() {
        let production = Layout::new("tricot/", PRODUCTION);
        let other = Layout::new("tricot/", "https://127.0.0.1/dir");

        assert_eq!(production.certificate("a.test"), "tricot/certs/a.test");
        assert_eq!(production.lock("a.test"), "tricot/renew_lock/a.test");
        assert_eq!(production.account_key().unwrap(), "tricot/letsencrypt_account_key.pem");
        assert!(other.certificate("a.test").starts_with("tricot/certs@"));
        assert!(!other.certificate("a.test").starts_with(&production.certificates()));
        assert!(!other.announcement("a.test").starts_with(&production.announcements()));
        assert!(!other.failure("a.test").starts_with(&production.failures()));
        assert_ne!(other.account(), production.account());
        assert_ne!(other.mark(), production.mark());
        assert!(other.account_key().is_none());
    }
}
