//! What a [`Manager`](super::Manager) works with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;

use super::clock::Clock;
use super::clock::SystemClock;
use super::digest;
use crate::observe::Observer;
use crate::resolve::Dns;
use crate::resolve::Resolver;

/// The directory of Let's Encrypt.
pub const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The directory of Let's Encrypt for trying things out; nobody trusts its certificates.
pub const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// How certificates are ordered, stored and renewed.
#[derive(Clone)]
#[non_exhaustive]
pub struct AcmeOptions {
    /// The directory of the authority. Default [`PRODUCTION`].
    pub directory: String,
    /// How to be a TLS client of the authority.
    pub tls: Arc<ClientConfig>,
    /// Finds the authority's addresses, by `host:port`. Default: the operating system.
    pub resolver: Arc<dyn Resolver<String>>,
    /// What keys of certificates are used with. Default: that of aws-lc-rs.
    pub provider: Arc<CryptoProvider>,
    /// An e-mail address for the authority's messages. Default: none.
    pub contact: Option<String>,
    /// An account elsewhere that the account is bound to. Default: none.
    pub external_account: Option<ExternalAccount>,
    /// How names are proven, the preferred kind first. Default: [`ChallengeKind::Http01`].
    pub challenges: Vec<ChallengeKind>,
    /// The profile of certificates to ask for, if the authority offers several. Default: its own choice.
    pub profile: Option<String>,
    /// Who we are, for people who look into the store. Default `meshlib`.
    pub node: String,
    /// Goes in front of every key of the store as it is. Default: nothing.
    pub prefix: String,
    /// How long an order's lock outlives its node. Default 60 s.
    pub lock_ttl: Duration,
    /// Most orders of this node within [`order_window`](Self::order_window). Default 10, at least 1.
    pub max_orders: usize,
    /// The time in which orders are counted. Default 10 s.
    pub order_window: Duration,
    /// Most orders of this node at a time that belong to one registered domain. Default 2, at least 1.
    pub max_per_domain: usize,
    /// How long a name rests after its first failure; it doubles with each further one, up to 24 h. Default 1 min.
    pub first_backoff: Duration,
    /// Most names that are wanted because they were [requested](super::Manager::request). Default 10,000.
    pub max_requested: usize,
    /// Whether all stored certificates are loaded in advance. If not, those that nobody here wants are loaded when a
    /// client asks for them. Default true.
    pub preload: bool,
    /// The common name of the certificate for clients that ask for no name. Default `meshlib`.
    pub self_signed_name: String,
    /// Says what time it is. Default: the system.
    pub clock: Arc<dyn Clock>,
    /// Is told about orders. Default: nobody.
    pub observer: Arc<dyn Observer>,
}

impl AcmeOptions {
    /// For the production directory of Let's Encrypt; `tls` says whom to trust as the authority's own server.
    pub fn new(tls: impl Into<Arc<ClientConfig>>) -> Self {
        Self {
            directory: PRODUCTION.to_owned(),
            tls: tls.into(),
            resolver: Arc::new(Dns::every(Duration::from_secs(60))),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            contact: None,
            external_account: None,
            challenges: vec![ChallengeKind::Http01],
            profile: None,
            node: "meshlib".to_owned(),
            prefix: String::new(),
            lock_ttl: Duration::from_secs(60),
            max_orders: 10,
            order_window: Duration::from_secs(10),
            max_per_domain: 2,
            first_backoff: Duration::from_secs(60),
            max_requested: 10_000,
            preload: true,
            self_signed_name: "meshlib".to_owned(),
            clock: Arc::new(SystemClock),
            observer: Arc::new(()),
        }
    }

    /// Sets the directory of the authority.
    #[must_use]
    pub fn with_directory(mut self, url: impl Into<String>) -> Self {
        self.directory = url.into();
        self
    }

    /// Sets how the authority's addresses are found.
    #[must_use]
    pub fn with_resolver(mut self, resolver: impl Resolver<String>) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Sets what keys of certificates are used with.
    #[must_use]
    pub fn with_provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = provider;
        self
    }

    /// Sets the e-mail address for the authority's messages.
    #[must_use]
    pub fn with_contact(mut self, email: impl Into<String>) -> Self {
        self.contact = Some(email.into());
        self
    }

    /// Sets the account elsewhere that the account is bound to.
    #[must_use]
    pub fn with_external_account(mut self, account: ExternalAccount) -> Self {
        self.external_account = Some(account);
        self
    }

    /// Sets how names are proven, the preferred kind first.
    #[must_use]
    pub fn with_challenges(mut self, kinds: impl IntoIterator<Item = ChallengeKind>) -> Self {
        self.challenges = kinds.into_iter().collect();
        self
    }

    /// Sets the profile of certificates.
    #[must_use]
    pub fn with_profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Some(profile.into());
        self
    }

    /// Sets who we are.
    #[must_use]
    pub fn with_node(mut self, node: impl Into<String>) -> Self {
        self.node = node.into();
        self
    }

    /// Sets what goes in front of every key.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how long an order's lock outlives its node.
    #[must_use]
    pub fn with_lock_ttl(mut self, ttl: Duration) -> Self {
        self.lock_ttl = ttl;
        self
    }

    /// Sets how many orders may begin within which time.
    #[must_use]
    pub fn with_orders(mut self, most: usize, window: Duration) -> Self {
        (self.max_orders, self.order_window) = (most, window);
        self
    }

    /// Sets how many orders of one registered domain may run at a time.
    #[must_use]
    pub fn with_max_per_domain(mut self, most: usize) -> Self {
        self.max_per_domain = most;
        self
    }

    /// Sets how long a name rests after its first failure.
    #[must_use]
    pub fn with_first_backoff(mut self, pause: Duration) -> Self {
        self.first_backoff = pause;
        self
    }

    /// Sets how many names may be wanted because they were requested.
    #[must_use]
    pub fn with_max_requested(mut self, most: usize) -> Self {
        self.max_requested = most;
        self
    }

    /// Says whether all stored certificates are loaded in advance.
    #[must_use]
    pub fn with_preload(mut self, preload: bool) -> Self {
        self.preload = preload;
        self
    }

    /// Sets the common name of the certificate for clients that ask for no name.
    #[must_use]
    pub fn with_self_signed_name(mut self, name: impl Into<String>) -> Self {
        self.self_signed_name = name.into();
        self
    }

    /// Sets who says what time it is.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets who is told about orders.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }
}

impl fmt::Debug for AcmeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeOptions")
            .field("directory", &self.directory)
            .field("contact", &self.contact)
            .field("external_account", &self.external_account)
            .field("challenges", &self.challenges)
            .field("profile", &self.profile)
            .field("node", &self.node)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// A way to prove that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChallengeKind {
    /// The authority asks for a file on the name's port 80 (RFC 8555 section 8.3).
    Http01,
    /// The authority makes a TLS handshake with the name's port 443 (RFC 8737).
    TlsAlpn01,
}

/// An account with an authority that an ACME account is bound to (RFC 8555 section 7.3.4).
#[derive(Clone)]
pub struct ExternalAccount {
    id: String,
    key: Arc<[u8]>,
}

impl ExternalAccount {
    /// With the identifier and the HMAC key, in base64url, that the authority gave out.
    ///
    /// # Errors
    ///
    /// If the key is not base64 or empty.
    pub fn new(id: impl Into<String>, key: &str) -> Result<Self, AcmeError> {
        let key = digest::base64(key.trim()).filter(|key| !key.is_empty()).ok_or(AcmeError::ExternalKey)?;
        Ok(Self { id: id.into(), key: key.into() })
    }

    /// With the key as it is.
    pub fn from_key(id: impl Into<String>, key: impl Into<Arc<[u8]>>) -> Self {
        Self { id: id.into(), key: key.into() }
    }

    pub(super) fn key(&self) -> instant_acme::ExternalAccountKey {
        instant_acme::ExternalAccountKey::new(self.id.clone(), &self.key)
    }
}

/// Shows no key.
impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why options or a name cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcmeError {
    /// The directory is not an `https` URL.
    #[error("the ACME directory {url:?} is not an https URL")]
    Directory {
        /// The URL.
        url: String,
    },
    /// There is no way to prove a name.
    #[error("no kind of challenge is allowed")]
    NoChallenge,
    /// The key of the external account is not base64.
    #[error("the key of the external account is not base64")]
    ExternalKey,
    /// No key for self-signed certificates can be made.
    #[error("no key can be made")]
    Key,
    /// It is not a name that an authority could issue for.
    #[error("{name:?} is not a host name")]
    Name {
        /// The name.
        name: String,
    },
    /// Too many names are wanted on demand already.
    #[error("{most} names are wanted on demand already")]
    TooMany {
        /// How many may be.
        most: usize,
    },
}
