//! Certificates for names that only a wildcard stands for: ordered when a client asks for one, if that is allowed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use http::Request;
use http::Uri;
use http::header::CACHE_CONTROL;
use meshlib::BalanceLayer;
use meshlib::BoxConnector;
use meshlib::Error;
use meshlib::Refusal;
use meshlib::Session;
use meshlib::TcpConnector;
use meshlib::TimeoutLayer;
use meshlib::To;
use meshlib::http::Body;
use meshlib::http::ClientLayer;
use meshlib::resolve::Dns;
use meshlib::store::KvStore;
use meshlib::store::Read;
use meshlib::store::StoreError;
use meshlib::store::When;
use meshlib::tls;
use meshlib::tls::ClientTls;
use meshlib::tls::ConnectTls;
use meshlib::tls::TlsError;
use meshlib::tls::TlsPolicy;
use meshlib::tls::acme::Manager;
use meshlib::tls::rustls::ClientConfig;
use meshlib::tls::rustls::pki_types::ServerName;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::Instant;
use tower::BoxError;
use tower::ServiceBuilder;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::route::Current;
use super::tags::Host;
use crate::kit::load::blotted;

/// Names that wait to be decided on. Further ones are noticed with their next client.
const QUEUE: usize = 256;
/// Names that are decided on at a time.
const AT_A_TIME: usize = 16;
/// How long an answer may take, of whoever is asked or of the store.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer holds that does not say itself.
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const DENIED_FOR: Duration = Duration::from_secs(60);
/// Between which times an answer may say how long it holds.
const HOLDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// Most answers that are remembered.
const MAX_REMEMBERED: usize = 10_000;
/// New names in an hour, in the whole fleet, where nobody can be asked.
const UNASKED_PER_HOUR: u64 = 20;

/// Notices names that clients ask for. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    names: mpsc::Sender<Arc<str>>,
    current: Arc<Current>,
    remembered: Remembered,
    /// Whether certificates are public, so that names that are nobody's are not worth an order.
    public: bool,
}

impl Wanted {
    /// A client has asked for a name that has no certificate. True if one may be ordered for it.
    pub(super) fn by_client(&self, name: &Arc<str>) -> bool {
        let Some(routes) = self.current.get() else { return false };
        if routes.on_demand.find(name, "/").next().is_none() || !self.is_fit(name) {
            return false;
        }
        // A name of its own is ordered without anybody asking for it.
        if routes.names.contains(&**name) || self.remembered.is_denied(name) {
            return false;
        }
        // A full queue is no reason to keep a client waiting.
        self.names.try_send(Arc::clone(name)).is_ok()
    }

    /// Waits until it is known that a name gets no certificate.
    pub(super) async fn denied(&self, name: &Arc<str>) {
        loop {
            let denied = self.remembered.0.denied.notified();
            if self.remembered.is_denied(name) {
                return;
            }
            denied.await;
        }
    }

    fn is_fit(&self, name: &str) -> bool {
        let reserved = [".local", ".internal", ".test"].iter().any(|suffix| name.ends_with(suffix));
        Host::new(name).is_ok_and(|host| host.is_public_name()) && !(self.public && reserved)
    }
}

/// Decides about names that clients have asked for.
pub(super) struct OnDemand {
    names: mpsc::Receiver<Arc<str>>,
    current: Arc<Current>,
    manager: Manager,
    store: Arc<dyn KvStore>,
    ask: Ask,
    remembered: Remembered,
    /// Whether the last name could not be counted.
    uncounted: bool,
}

/// What was decided about names, for as long as that holds. A clone is the same.
#[derive(Clone, Debug, Default)]
struct Remembered(Arc<Memories>);

#[derive(Debug, Default)]
struct Memories {
    of_names: Mutex<HashMap<Arc<str>, Memory>>,
    denied: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Memory {
    until: Instant,
    is_denied: bool,
}

impl Remembered {
    fn is_denied(&self, name: &Arc<str>) -> bool {
        self.lock().get(name).is_some_and(|memory| memory.is_denied && memory.until > Instant::now())
    }

    /// Whether there is anything to decide about a name, which will not be decided on again meanwhile.
    fn begin(&self, name: &Arc<str>) -> bool {
        let now = Instant::now();
        let mut memories = self.lock();
        if memories.get(name).is_some_and(|memory| memory.until > now) {
            return false;
        }
        if memories.len() >= MAX_REMEMBERED {
            memories.retain(|_, memory| memory.until > now);
        }
        if memories.len() >= MAX_REMEMBERED {
            return false;
        }
        memories.insert(Arc::clone(name), Memory { until: now + HOLDS.1, is_denied: false });
        true
    }

    fn settle(&self, name: &Arc<str>, allowed: bool, holds: Duration) {
        let memory = Memory { until: Instant::now() + holds, is_denied: !allowed };
        self.lock().insert(Arc::clone(name), memory);
        if !allowed {
            self.0.denied.notify_waiters();
        }
    }

    fn forget(&self, name: &Arc<str>) {
        self.lock().remove(name);
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Memory>> {
        self.0.of_names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was decided about a name.
struct Decided {
    name: Arc<str>,
    verdict: Verdict,
}

enum Verdict {
    /// There is a certificate, which needs no permission.
    Stored,
    /// What was answered, and for how long that holds.
    Asked { allowed: bool, holds: Duration },
    /// Nobody can be asked; false if there were enough names in this hour.
    Counted(bool),
    /// Nobody can be asked, and the name could not be counted.
    Uncounted(BoxError),
}

/// Where noticed names go, and what decides about them.
pub(super) fn on_demand(
    current: Arc<Current>,
    manager: Manager,
    store: Arc<dyn KvStore>,
    roots: Arc<ClientConfig>,
    public: bool,
) -> (Wanted, OnDemand) {
    let (tx, names) = mpsc::channel(QUEUE);
    let remembered = Remembered::default();
    let wanted = Wanted { names: tx, current: Arc::clone(&current), remembered: remembered.clone(), public };
    let ask = Ask::new(roots);
    (wanted, OnDemand { names, current, manager, store, ask, remembered, uncounted: false })
}

impl OnDemand {
    /// Decides until nobody notices names any more.
    pub(super) async fn run(mut self) {
        let mut deciding: JoinSet<Decided> = JoinSet::new();
        loop {
            tokio::select! {
                name = self.names.recv(), if deciding.len() < AT_A_TIME => {
                    let Some(name) = name else { return };
                    self.decide(name, &mut deciding);
                }
                Some(decided) = deciding.join_next() => {
                    // A task that has panicked has decided nothing.
                    if let Ok(decided) = decided {
                        self.settle(&decided);
                    }
                }
            }
        }
    }

    /// Begins to decide on a name. Whoever is slow, a store or one who is asked, holds up this name and no other.
    fn decide(&self, name: Arc<str>, deciding: &mut JoinSet<Decided>) {
        let Some(routes) = self.current.get() else { return };
        let Some(url) = routes.on_demand.find(&name, "/").next().cloned() else { return };
        if !self.remembered.begin(&name) {
            return;
        }
        let (certificates, store, ask) =
            (self.manager.certificates(), Arc::clone(&self.store), self.ask.clone());
        // Ends within the limits of a look-up and of a question.
        deciding.spawn(async move {
            let verdict = match url {
                // What was stored meanwhile needs no permission.
                _ if certificates.find(&name).await.is_some() => Verdict::Stored,
                Some(url) => ask.about(&name, &url).await,
                None => match time::timeout(ASK_WITHIN, count(&*store)).await {
                    Ok(Ok(counted)) => Verdict::Counted(counted),
                    Ok(Err(error)) => Verdict::Uncounted(error.into()),
                    Err(late) => Verdict::Uncounted(late.into()),
                },
            };
            Decided { name, verdict }
        });
    }

    fn settle(&mut self, Decided { name, verdict }: &Decided) {
        if matches!(verdict, Verdict::Counted(_)) {
            self.uncounted = false;
        }
        let (allowed, holds) = match verdict {
            Verdict::Stored => {
                self.remembered.forget(name);
                return;
            }
            Verdict::Asked { allowed, holds } => (*allowed, *holds),
            Verdict::Counted(true) => {
                tracing::warn!(
                    target: "tricot", %name,
                    "a certificate is ordered for a name of a wildcard without asking anybody; \
                     set tricot-on-demand-tls-ask to decide who gets one"
                );
                (true, ALLOWED_FOR)
            }
            Verdict::Counted(false) => {
                tracing::warn!(
                    target: "tricot", %name, limit = UNASKED_PER_HOUR,
                    "no certificate for a name of a wildcard: this hour's limit is reached"
                );
                (false, DENIED_FOR)
            }
            Verdict::Uncounted(error) => {
                // Names come as often as strangers like: the first says it for all until the store is well again.
                if std::mem::replace(&mut self.uncounted, true) {
                    tracing::debug!(target: "tricot", %name, %error, "cannot count a name of a wildcard");
                } else {
                    tracing::warn!(
                        target: "tricot", %name, %error,
                        "cannot count names of wildcards in Consul; until that works none gets a new certificate"
                    );
                }
                (false, HOLDS.0)
            }
        };
        self.remembered.settle(name, allowed, holds);
        if allowed && let Err(error) = self.manager.request(name) {
            tracing::warn!(target: "tricot", %name, %error, "no certificate for a name of a wildcard");
        }
    }
}

impl std::fmt::Debug for OnDemand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnDemand").field("remembered", &self.remembered.len()).finish_non_exhaustive()
    }
}

/// Counts one more name in this hour, in the store that all nodes share. False if there were enough.
async fn count(store: &dyn KvStore) -> Result<bool, StoreError> {
    let hour = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / 3600;
    let key = format!("on_demand/{hour}");
    // Whoever is refused was overtaken by one more name, which cannot happen more often than there are names.
    for _ in 0..UNASKED_PER_HOUR {
        let counted = store.get(&key, Read::Latest).await?;
        let count = counted.as_ref().and_then(|entry| std::str::from_utf8(&entry.value).ok()?.parse().ok());
        let count: u64 = count.unwrap_or(0);
        if count >= UNASKED_PER_HOUR {
            break;
        }
        let when = counted.map_or(When::Absent, |entry| When::Version(entry.version));
        if store.put(&key, (count + 1).to_string().into(), when).await? {
            // The hour before this one is of no use any more.
            if let Some(before) = hour.checked_sub(1) {
                let _ = store.delete(&format!("on_demand/{before}"), When::Always).await;
            }
            return Ok(true);
        }
    }
    Ok(false)
}

/// Asks whether a name may have a certificate.
#[derive(Clone)]
struct Ask {
    client: BoxCloneSyncService<Request<Body>, http::Response<Body>, Error>,
}

impl Ask {
    fn new(roots: Arc<ClientConfig>) -> Self {
        let target = |request: &Request<Body>| {
            let host = request.uri().host().ok_or(Error::Refused(Refusal::NoDestination))?;
            let tls = request.uri().scheme_str() == Some("https");
            let port = request.uri().port_u16().unwrap_or(if tls { 443 } else { 80 });
            Ok(format!("{host}:{port}"))
        };
        let connector: BoxConnector = BoxConnector::new(
            ServiceBuilder::new().layer(TimeoutLayer::connect(ASK_WITHIN)).service(TcpConnector::default()),
        );
        let client = ServiceBuilder::new()
            .layer(BalanceLayer::by(Dns::every(Duration::from_secs(60)), target))
            .layer(ClientLayer::new().tls(Named(roots)))
            .service(connector);
        Self { client: BoxCloneSyncService::new(client) }
    }

    async fn about(&self, name: &str, url: &Uri) -> Verdict {
        let shown = blotted(&url.to_string());
        let (allowed, holds) = match time::timeout(ASK_WITHIN, self.get(name, url)).await {
            Ok(Ok((allowed, holds))) => {
                tracing::info!(target: "tricot", %name, allowed, "asked whether a name of a wildcard may have a certificate");
                (allowed, holds)
            }
            Ok(Err(error)) => {
                tracing::warn!(target: "tricot", %name, url = shown, error = %error.chain(), "cannot ask about a name of a wildcard");
                (false, DENIED_FOR)
            }
            Err(_) => {
                tracing::warn!(target: "tricot", %name, url = shown, within = ?ASK_WITHIN, "no answer about a name of a wildcard");
                (false, DENIED_FOR)
            }
        };
        Verdict::Asked { allowed, holds }
    }

    async fn get(&self, name: &str, url: &Uri) -> Result<(bool, Duration), Error> {
        let separator = if url.query().is_some() { '&' } else { '?' };
        let request = Request::get(format!("{url}{separator}domain={name}"))
            .header(http::header::USER_AGENT, concat!("tricot/", env!("CARGO_PKG_VERSION")));
        let mut request = request.body(Body::empty()).map_err(Error::other)?;
        // By the endpoint alone a policy could not tell whom to expect.
        if let Some(host) = url.host().filter(|_| url.scheme_str() == Some("https")) {
            // An address of IPv6 is in brackets in a URL, and nowhere else.
            let name = host.trim_start_matches('[').trim_end_matches(']');
            request.extensions_mut().insert(Session::default().with_server_name(name));
        }
        let answer = self.client.clone().oneshot(request).await?;
        let allowed = answer.status().is_success();
        let says = answer.headers().get(CACHE_CONTROL).and_then(|it| it.to_str().ok()).and_then(max_age);
        let usual = if allowed { ALLOWED_FOR } else { DENIED_FOR };
        Ok((allowed, says.unwrap_or(usual).clamp(HOLDS.0, HOLDS.1)))
    }
}

fn max_age(cache_control: &str) -> Option<Duration> {
    let mut directives = cache_control.split(',').map(str::trim);
    let seconds = directives.find_map(|directive| directive.strip_prefix("max-age="))?;
    Some(Duration::from_secs(seconds.parse().ok()?))
}

/// TLS where a server name was set.
struct Named(Arc<ClientConfig>);

impl TlsPolicy for Named {
    fn connect(&self, to: &To<Session>) -> ConnectTls {
        let Some(name) = &to.request.server_name else { return ConnectTls::Plaintext };
        match ServerName::try_from(name.to_string()) {
            Ok(name) => ConnectTls::Required(ClientTls::new(Arc::clone(&self.0), name)),
            Err(_) => ConnectTls::Refuse,
        }
    }
}

/// Trust in the authorities of the system, for those who are asked over HTTPS.
///
/// # Errors
///
/// If the system has none.
pub(super) fn system_trust() -> Result<Arc<ClientConfig>, TlsError> {
    Ok(Arc::new(tls::client_config(tls::provider(), tls::native_roots()?)?))
}
