//! Certificates from an ACME authority (RFC 8555), for one node or a fleet that shares a [store](crate::store).
//!
//! A [`Manager`] is told which names are wanted. It orders what the store does not have, renews at half of a
//! certificate's life or when the authority suggests to (RFC 9773), and writes everything to the store, from which every
//! node serves it. Whichever node the authority asks answers for the one that has placed the order.
//!
//! | Part | What it is |
//! |---|---|
//! | [`Manager`] | the names, and the loop that looks after them |
//! | [`AcmeOptions`] | the authority, the account, the limits |
//! | [`AcmeCerts`] | the certificates, as rustls' resolver; a self-signed one where there is none |
//! | [`Terminate`] | a policy for [`TlsLayer`](crate::TlsLayer) with these certificates |
//! | [`Challenges`] | answers on the HTTP port |
//!
//! # In the store
//!
//! Keys below the [prefix](AcmeOptions::prefix), the first four as Tricot has them, so that a fleet of it can move over in
//! place. `@HASH`, from the directory's URL, is there for every directory but Let's Encrypt's production.
//!
//! | Key | Value |
//! |---|---|
//! | `certs@HASH/NAME` | JSON: `hostname`, `date`, `valid_days`, `key_pem`, `cert_pem`, and more; unknown fields are kept |
//! | `renew_lock@HASH/NAME` | the lock of whoever orders |
//! | `challenge/TOKEN` | a key authorization; goes with the lock |
//! | `letsencrypt_account_key.pem` | the account's key, for Let's Encrypt only; taken over if there is no account yet |
//! | `acme/HASH/account.json` | the account |
//! | `acme/HASH/mark` | a random text: the store has lost what it had if it has none or another one |
//! | `acme/alpn@HASH/NAME` | the key authorization of a proof by TLS; goes with the lock |
//! | `acme/backoff@HASH/NAME` | JSON: `failures` in a row, `retry_after`, `last_error`, `node` |
//! | `acme/certs@HASH/NAME` | JSON: `fingerprint`, `not_after`: an announcement, which is what nodes watch |
//!
//! # What is lost, and what is deleted
//!
//! A store may lose everything, as an agent of Consul that keeps all in memory does when it is restarted. A node notices by
//! the mark, when an announcement goes, when the store answers again after it failed, and before each order. It then writes
//! back the certificates in memory that have not expired, and the account, each only where there is nothing: of several
//! nodes one is the first, and what was ordered since then stays. What was not in the memory of any node is ordered.
//!
//! While the mark is the same, a key that is not there was deleted by somebody who meant it, and nobody writes it back: not
//! even when everything is lost later, if that is more than an hour after. Nodes serve a certificate that was deleted until
//! they end, or until another takes its place. So to take one out of use, because its key is not secret any more: revoke it
//! at the authority, delete `certs@HASH/NAME`, and restart one node that wants the name, which orders another one; all
//! nodes serve that as soon as it is announced. To start with nothing, delete the whole prefix while no node runs. Deleted
//! while they run, it counts as lost.
//!
//! # Examples
//!
//! ```no_run
//! # async fn example(store: std::sync::Arc<dyn meshlib::store::KvStore>) -> Result<(), Box<dyn std::error::Error>> {
//! use meshlib::http::{Body, HttpServer};
//! use meshlib::tls::{self, acme};
//! use meshlib::{Drain, Error, Server};
//! use tower::Layer;
//!
//! # fn trust() -> rustls::RootCertStore { rustls::RootCertStore::empty() }
//! # use meshlib::tls::rustls;
//! let drain = Drain::on_signals();
//! let trust = tls::client_config(tls::provider(), trust())?;
//! let manager = acme::Manager::new(store, acme::AcmeOptions::new(trust).with_contact("ops@example.com"))?;
//! manager.want(["www.example.com"])?;
//! let working = tokio::spawn({
//!     let (manager, draining) = (manager.clone(), drain.draining());
//!     async move { manager.run(draining).await }
//! });
//!
//! let hello = tower::service_fn(async |_: http::Request<Body>| Ok::<_, Error>(http::Response::new(Body::from("hello\n"))));
//! let plain = HttpServer::new(manager.challenges().layer(hello));
//! let config = tls::http_server_config(tls::provider(), manager.certificates())?;
//! let secure = tls::acme::Terminate::new(manager.certificates(), config);
//! let secure = meshlib::TlsLayer::new(secure).layer(HttpServer::new(hello));
//! tokio::try_join!(
//!     Server::bind("[::]:80").await?.serve(plain, drain.clone()),
//!     Server::bind("[::]:443").await?.serve(secure, drain.clone()),
//! )?;
//! working.await?;
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use tokio::sync::Notify;

use self::client::Client;
use self::directory::Directories;
use self::directory::Directory;
use self::failure::Failure;
use self::layout::Layout;
use self::limits::Limits;
use self::lookup::Lookup;
use self::loss::Known;
use self::names::host_name;
use self::outage::Outage;
use self::plan::Phase;
use self::plan::Plan;
use self::self_signed::SelfSigned;
use self::worker::Busy;
use crate::drain::Draining;
use crate::error::Chain;
use crate::store::KvStore;
use crate::store::StoreError;
use crate::store::When;

mod account;
mod certificate;
mod certs;
mod challenge;
mod client;
mod clock;
mod digest;
mod directory;
mod ending;
mod failure;
mod layout;
mod limits;
mod lookup;
mod loss;
mod names;
mod options;
mod order;
mod outage;
mod pem;
mod plan;
mod record;
mod renewal;
mod retry;
mod self_signed;
mod step;
mod terminate;
mod view;
mod worker;

pub use certs::AcmeCerts;
pub use challenge::Answering;
pub use challenge::Challenges;
pub use clock::Clock;
pub use clock::SystemClock;
pub use options::AcmeError;
pub use options::AcmeOptions;
pub use options::ChallengeKind;
pub use options::ExternalAccount;
pub use options::PRODUCTION;
pub use options::STAGING;
pub use terminate::Terminate;
pub use view::NameState;
pub use view::NameView;

/// How long a challenge counts as not there: the authority may ask before the store's copies have it.
const CHALLENGE_MISSING: Duration = Duration::from_secs(1);
/// How long a certificate counts as not there. What another node stores is announced.
const CERT_MISSING: Duration = Duration::from_secs(10);
/// Most certificates a second that are looked for in the store because a client asked for their names. Strangers ask for
/// any name.
const CERT_READS: usize = 100;

/// Sees to it that names have certificates. A clone is the same manager.
#[derive(Clone)]
pub struct Manager {
    shared: Arc<Shared>,
}

/// What the parts of a manager work with.
struct Shared {
    store: Arc<dyn KvStore>,
    options: AcmeOptions,
    layout: Arc<Layout>,
    client: Client,
    directories: Directories,
    certs: Arc<AcmeCerts>,
    challenges: Challenges,
    placed: Arc<Lookup>,
    limits: Arc<Limits>,
    plan: Mutex<Plan>,
    /// The versions of stored certificates that were complained about.
    complaints: Mutex<HashMap<Box<str>, u64>>,
    busy: Busy,
    outage: Outage,
    known: Known,
    wake: Notify,
    running: tokio::sync::Mutex<()>,
}

impl Manager {
    /// A manager that wants nothing yet. It does nothing by itself before it [runs](Self::run).
    ///
    /// # Errors
    ///
    /// If the directory is not an `https` URL, no challenge is allowed, or no key can be made.
    pub fn new(store: Arc<dyn KvStore>, options: AcmeOptions) -> Result<Self, AcmeError> {
        let is_https =
            |uri: &http::Uri| uri.scheme() == Some(&http::uri::Scheme::HTTPS) && uri.host().is_some();
        if !options.directory.parse().is_ok_and(|uri| is_https(&uri)) {
            return Err(AcmeError::Directory { url: options.directory });
        }
        if options.challenges.is_empty() {
            return Err(AcmeError::NoChallenge);
        }
        let (provider, clock) = (Arc::clone(&options.provider), Arc::clone(&options.clock));
        let self_signed = SelfSigned::new(&options.self_signed_name, provider, clock);
        let self_signed = self_signed.ok_or(AcmeError::Key)?;
        let layout = Arc::new(Layout::new(&options.prefix, &options.directory));
        let placed = Arc::new(Lookup::new(Arc::clone(&store), CHALLENGE_MISSING));
        let stored = Lookup::new(Arc::clone(&store), CERT_MISSING).with_most_per_second(CERT_READS);
        let certs = AcmeCerts::new(&options, self_signed, stored, Arc::clone(&placed), Arc::clone(&layout));
        let client = Client::new(&options);
        Ok(Self {
            shared: Arc::new(Shared {
                directories: Directories::new(&options.directory, client.clone()),
                challenges: Challenges::new(Arc::clone(&placed), Arc::clone(&layout)),
                limits: Limits::new(options.max_orders, options.order_window, options.max_per_domain),
                certs: Arc::new(certs),
                plan: Mutex::default(),
                complaints: Mutex::default(),
                busy: Busy::default(),
                outage: Outage::default(),
                known: Known::default(),
                wake: Notify::new(),
                running: tokio::sync::Mutex::new(()),
                store,
                options,
                layout,
                client,
                placed,
            }),
        })
    }

    /// Replaces the names that must have certificates at all times. What is no longer among them is not renewed; its
    /// certificate is served on, and deleted from the store 30 days after it has expired.
    ///
    /// # Errors
    ///
    /// [`AcmeError::Name`] says the first that is not a host name; the others are wanted all the same.
    pub fn want<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> Result<(), AcmeError> {
        let mut refused = None;
        let wanted = names.into_iter().filter_map(|name| {
            let wanted = host_name(name.as_ref());
            if wanted.is_none() && refused.is_none() {
                refused = Some(AcmeError::Name { name: name.as_ref().to_owned() });
            }
            wanted.map(Arc::from)
        });
        let wanted = wanted.collect();
        self.shared.plan().want(wanted);
        self.shared.wake.notify_one();
        refused.map_or(Ok(()), Err)
    }

    /// Wants a certificate for one more name, for 30 days from now; each request begins them anew. Returns at once:
    /// [`AcmeCerts::issued`] waits for it.
    ///
    /// Who may cause this is for the caller to decide. A stranger who may can have orders placed for any name that leads
    /// here.
    ///
    /// # Errors
    ///
    /// [`AcmeError::Name`] if it is not a host name, [`AcmeError::TooMany`] if more would be wanted than
    /// [may be](AcmeOptions::max_requested).
    pub fn request(&self, name: &str) -> Result<(), AcmeError> {
        let name = host_name(name).ok_or_else(|| AcmeError::Name { name: name.to_owned() })?;
        let most = self.shared.options.max_requested;
        if !self.shared.plan().request(name.into(), self.shared.now(), most) {
            return Err(AcmeError::TooMany { most });
        }
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Forgets the failures of a name, in the store too, and tries again at once: for when what it was refused for has
    /// changed.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn retry(&self, name: &str) -> Result<(), StoreError> {
        if let Some(name) = host_name(name) {
            self.shared.store.delete(&self.shared.layout.failure(&name), When::Always).await?;
            self.shared.plan().touch(&name);
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Looks after the names until the drain begins. Orders that are under way at the authority are then finished, unless
    /// the drain is forced first: what was issued is stored, and locks are given back. All else is given up at once. If it
    /// runs already, waits until that has ended.
    ///
    /// While the store fails no name is tried on its own: one look at the store tells for all, after pauses that grow to
    /// 4 s. Orders then go on within their [limits](AcmeOptions::max_orders).
    ///
    /// # Cancel safety
    ///
    /// Orders that are under way are given up; their locks are released.
    pub async fn run(&self, draining: Draining) {
        let _running = self.shared.running.lock().await;
        self.shared.run(&draining).await;
    }

    /// Looks at the clock, and starts what is due. Needed only when the clock has leapt: it is looked at once a minute in
    /// any case.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// The certificates, for a TLS server.
    pub fn certificates(&self) -> Arc<AcmeCerts> {
        Arc::clone(&self.shared.certs)
    }

    /// The answers to the authority's questions on the HTTP port.
    pub fn challenges(&self) -> Challenges {
        self.shared.challenges.clone()
    }

    /// How it stands with each name that is wanted, in the order of the names.
    pub fn view(&self) -> Vec<NameView> {
        let now = self.shared.now();
        let outage = self.shared.outage.failed();
        let plan = self.shared.plan();
        let names = plan.names().map(|(name, state)| {
            let certificate = self.shared.certs.certificate(name);
            let not_after = certificate.as_ref().map(|certificate| certificate.not_after);
            let is_due = || {
                let due = certificate.as_ref().map(|held| renewal::due(held, state.suggestion.as_ref()));
                due.is_none_or(|due| due.at <= now)
            };
            let stalled = match state.phase {
                Phase::Stalled if is_due() => outage.as_ref(),
                Phase::Order(_) => outage.as_ref(),
                _ => None,
            };
            let failed = stalled.or_else(|| state.failed.as_ref().filter(|failed| failed.until > now));
            let view = match state.phase {
                _ if stalled.is_some() => NameState::BackingOff,
                Phase::Order(_) | Phase::Ordering => NameState::Renewing,
                _ if failed.is_some() => NameState::BackingOff,
                _ if not_after.is_some_and(|end| end > now) => NameState::Valid,
                _ => NameState::SelfSigned,
            };
            NameView {
                name: Arc::clone(name),
                state: view,
                not_after,
                retry_after: failed.map(|failed| failed.until),
                error: failed.map(|failed| Arc::clone(&failed.error)),
            }
        });
        let mut names: Vec<_> = names.collect();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        names
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Shared {
    fn now(&self) -> SystemTime {
        self.options.clock.now()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn directory(&self) -> Result<Arc<Directory>, Failure> {
        self.directories
            .get()
            .await
            .map_err(|error| Failure::Unreachable { detail: Chain(&error).to_string(), retry_after: None })
    }

    /// Whether this version of a stored certificate has not been complained about.
    fn complain_about(&self, name: &str, version: u64) -> bool {
        const MAX: usize = 10_000;

        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() >= MAX {
            complaints.clear();
        }
        complaints.insert(name.into(), version) != Some(version)
    }
}
