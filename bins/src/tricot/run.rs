//! Putting the parts together, and running them until a signal.

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meshlib::AcceptProxyHeaderLayer;
use meshlib::BoxConnector;
use meshlib::Drain;
use meshlib::Listener;
use meshlib::Server;
use meshlib::TcpConnector;
use meshlib::TimeoutLayer;
use meshlib::TlsLayer;
use meshlib::http::ALPN;
use meshlib::http::ClientLayer;
use meshlib::http::CompressLayer;
use meshlib::http::Forwarded;
use meshlib::http::HeadersLayer;
use meshlib::http::HttpServer;
use meshlib::http::PoolOptions;
use meshlib::http::ServerOptions;
use meshlib::http::UpgradeLayer;
use meshlib::http::route::Paths;
use meshlib::store::DirStore;
use meshlib::store::KvStore;
use meshlib::tls;
use meshlib::tls::acme::AcmeOptions;
use meshlib::tls::acme::ChallengeKind;
use meshlib::tls::acme::ExternalAccount;
use meshlib::tls::acme::Manager;
use meshlib::tls::rustls::ClientConfig;
use meshlib::tls::rustls::RootCertStore;
use meshlib_consul::Config;
use meshlib_consul::Consul;
use meshlib_consul::ConsulKv;
use meshlib_consul::Status;
use meshlib_consul::TlsOptions;
use meshlib_consul::Verify;
use sd_notify::NotifyState;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;
use tower::Layer;
use tower::ServiceBuilder;
use tower::util::option_layer;

use super::access::Access;
use super::admin;
use super::admin::Shown;
use super::args::Challenge;
use super::args::Health;
use super::args::PathMatch;
use super::args::Settings;
use super::args::Token;
use super::backend::Own;
use super::discovery;
use super::discovery::Discovery;
use super::discovery::For;
use super::files;
use super::group::Spreading;
use super::metrics::Metrics;
use super::mirror::Mirror;
use super::observer;
use super::observer::Listening;
use super::observer::Orders;
use super::on_demand;
use super::on_demand::on_demand;
use super::outage::Source;
use super::plain::ToHttps;
use super::policy::Inbound;
use super::policy::Outbound;
use super::route::Current;
use super::route::Route;
use super::send::Client;
use super::send::Send;
use super::sockets::Bound;
use super::sockets::Sockets;
use super::table::Builder;
use crate::log;
use crate::workers;
use crate::workers::Job;
use crate::workers::Workers;

/// Most idle connections to one instance, of one worker.
const MAX_IDLE: usize = 256;
/// Most connections to the admin address; the oldest ends for one more.
const ADMIN_CONNECTIONS: usize = 64;
/// How long what runs beside the requests may take to end: locks are given back.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Runs until a signal ends it.
///
/// # Errors
///
/// What keeps it from starting or from going on.
pub(super) async fn run(settings: Settings) -> Result<(), String> {
    let mut signals =
        Signals::install().map_err(|error| format!("cannot install signal handlers: {error}"))?;
    let workers = workers::usual();
    let sockets = Sockets::open(&settings.listen, workers)?;
    let parts = Parts::new(&settings).await?;
    let drain = Drain::new();
    let mut tasks = JoinSet::new();

    let (wanted, deciding) = on_demand(
        Arc::clone(&parts.current),
        parts.manager.clone(),
        Arc::clone(&parts.store),
        parts.asking.clone(),
        settings.acme.directory.is_lets_encrypt(),
    );
    let clients: Vec<Client> = (0..workers).map(|_| parts.client(&settings)).collect();
    let mut jobs: Vec<Vec<Job>> = (0..workers).map(|_| Vec::new()).collect();
    let behind = (!settings.listen.proxy_protocol.is_empty()).then(|| {
        let networks = settings.listen.proxy_protocol.clone();
        AcceptProxyHeaderLayer::new(move |peer| networks.iter().any(|network| network.contains(&peer)))
    });
    let public = settings.listen.https_public_port.or_else(|| sockets.https.first().map(|it| it.addr.port()));
    let public = public.unwrap_or(443);
    let plain = ToHttps::new(public, parts.metrics.redirects.clone());
    for Bound { addr, sockets } in sockets.http {
        tracing::info!(target: "tricot", %addr, "listening for HTTP");
        for (jobs, socket) in jobs.iter_mut().zip(sockets) {
            let service = HttpServer::new(parts.manager.challenges().layer(plain.clone()));
            let service = ServiceBuilder::new().layer(option_layer(behind.clone())).service(service);
            jobs.push(server("HTTP", socket, service, &drain, Listening::new(&parts.metrics, "http")));
        }
    }
    let inbound = Arc::new(parts.inbound(&settings, wanted)?);
    for Bound { addr, sockets } in sockets.https {
        tracing::info!(target: "tricot", %addr, "listening for HTTPS");
        for ((jobs, socket), client) in jobs.iter_mut().zip(sockets).zip(&clients) {
            let observer = Listening::new(&parts.metrics, "https");
            let service = ServiceBuilder::new()
                .layer(option_layer(behind.clone()))
                .layer(TlsLayer::new(Arc::clone(&inbound)).observe(Arc::new(observer.clone())))
                .layer(observer.handshakes())
                .service(parts.proxy(&settings, client.clone()));
            jobs.push(server("HTTPS", socket, service, &drain, observer));
        }
    }

    let mut watching = JoinSet::new();
    let (own_tx, own) = watch::channel(parts.spreading(&settings).own);
    let node = settings.consul.node_name.as_deref().map(Arc::from);
    watching.spawn(discovery::follow_own(parts.consul.clone(), node, own_tx));
    let discovery = Discovery::new(&parts.consul, own, parts.discovery(&settings, public, clients, &drain));
    watching.spawn(discovery.run());
    tasks.spawn(deciding.run());
    // Locks of orders are given back before the program ends.
    let ordering = Drain::new();
    tasks.spawn({
        let (manager, draining) = (parts.manager.clone(), ordering.draining());
        async move { manager.run(draining).await }
    });
    let (manager, unreachable) = (parts.manager.clone(), Arc::clone(&parts.unreachable));
    tasks.spawn(observer::tell_untrusted(manager, unreachable, settings.acme.ca_cert.clone()));
    let admin_drain = Drain::new();
    if let Some(socket) = sockets.metrics {
        let server = admin_server(socket, &parts, &drain, admin_drain.clone())?;
        tasks.spawn(server);
    }

    let running = Workers::start(jobs).map_err(|error| format!("cannot start a thread: {error}"))?;
    notify(&[NotifyState::Ready]);
    let result = until_ended(running, &drain, settings.shutdown_grace, &mut signals, &parts).await?;
    let last_work = async {
        watching.shutdown().await;
        // Whatever it is, it is not worth waiting for much longer once it was told to give up.
        let most = LAST_WORK + Duration::from_secs(1);
        if time::timeout(most, ordering.finish(LAST_WORK)).await.is_err() {
            tracing::debug!(target: "tricot", "orders for certificates were given up");
        }
        admin_drain.finish(Duration::from_millis(200)).await;
        tasks.shutdown().await;
    };
    tokio::select! {
        () = last_work => {
            tracing::info!(target: "tricot", cut = parts.metrics.cut.requests(), "stopped");
            result
        }
        signal = signals.end() => Err(at_once(signal)),
    }
}

/// Makes what can be made without asking anybody, as a start does.
///
/// # Errors
///
/// What would keep it from starting.
pub(super) fn check(settings: &Settings) -> Result<(), String> {
    consul(settings)?;
    settings.acme.ca_cert.as_deref().map(trust).transpose()?;
    if let Some(dir) = &settings.acme.cache_dir {
        files::could_make(dir).map_err(|why| format!("TRICOT_CERT_CACHE_DIR is {}: {why}", dir.display()))?;
    }
    if let Some(file) = &settings.config_dump {
        files::could_write(file).map_err(|why| format!("TRICOT_CONFIG_DUMP is {}: {why}", file.display()))?;
    }
    Ok(())
}

/// What all workers share.
struct Parts {
    consul: Consul,
    store: Arc<dyn KvStore>,
    manager: Manager,
    current: Arc<Current>,
    metrics: Metrics,
    shown: Arc<Shown>,
    asking: Arc<ClientConfig>,
    /// Told when the certificate authority could not be reached.
    unreachable: Arc<Notify>,
    outbound: Arc<Outbound>,
    token: Option<Token>,
    /// Held while failed orders are tried again.
    retrying: Arc<tokio::sync::Mutex<()>>,
}

impl Parts {
    async fn new(settings: &Settings) -> Result<Self, String> {
        let metrics = Metrics::new();
        let consul = consul(settings)?;
        let mut store: Arc<dyn KvStore> =
            Arc::new(ConsulKv::new(consul.clone(), &*settings.consul.kv_prefix));
        if let Some(dir) = &settings.acme.cache_dir {
            let copies = DirStore::open(dir).await.map_err(|error| {
                format!("TRICOT_CERT_CACHE_DIR is {}: {}", dir.display(), log::chain(&error))
            })?;
            store = Arc::new(Mirror::new(store, copies));
        }
        let asking = on_demand::system_trust().or_else(|error| {
            // Needed only for those who are asked over HTTPS.
            tracing::debug!(target: "tricot", %error, "no certificate authority is trusted");
            tls::client_config(tls::provider(), RootCertStore::empty()).map(Arc::new)
        });
        let asking = asking.map_err(|error| error.to_string())?;
        let orders = Orders::new(&metrics);
        let unreachable = orders.unreachable();
        let manager = Manager::new(Arc::clone(&store), acme_options(settings, &asking, orders)?);
        Ok(Self {
            manager: manager.map_err(|error| log::chain(&error))?,
            consul,
            store,
            current: Arc::default(),
            metrics,
            shown: Arc::default(),
            asking,
            unreachable,
            outbound: Arc::new(Outbound::new()),
            token: settings.consul.token.clone(),
            retrying: Arc::default(),
        })
    }

    fn client(&self, settings: &Settings) -> Client {
        let pool =
            PoolOptions::default().with_idle_timeout(settings.proxy.idle_timeout).with_max_idle(MAX_IDLE);
        let connector = TimeoutLayer::connect(settings.proxy.connect_timeout).layer(TcpConnector::default());
        let tls = TlsLayer::new(Arc::clone(&self.outbound)).handshake_within(settings.proxy.connect_timeout);
        ClientLayer::new().tls_layer(tls).pool(pool).layer(BoxConnector::new(connector))
    }

    fn inbound(&self, settings: &Settings, wanted: on_demand::Wanted) -> Result<Inbound, String> {
        let certs = self.manager.certificates();
        let tickets = tls::tickets().map_err(|error| error.to_string())?;
        let config = tls::server_config(tls::provider(), certs.clone(), Some(tickets));
        let mut config = config.map_err(|error| error.to_string())?;
        config.alpn_protocols = ALPN.map(Vec::from).into();
        Ok(Inbound::new(certs, Arc::new(config), wanted, settings.acme.on_demand_wait))
    }

    /// From requests of clients to answers of instances.
    fn proxy(
        &self,
        settings: &Settings,
        client: Client,
    ) -> impl tower::Service<
        meshlib::Conn,
        Response = (),
        Error = meshlib::Error,
        Future = impl Future<Output = Result<(), meshlib::Error>> + std::marker::Send,
    > + Clone
    + std::marker::Send
    + 'static {
        let send = Send::new(client, self.metrics.clone(), settings.proxy.response_timeout);
        let route =
            Route::new(Arc::clone(&self.current), self.manager.certificates(), send, self.metrics.clone());
        let mut headers = HeadersLayer::new();
        if settings.proxy.forwarded == super::args::Forwarded::Rfc7239 {
            headers = headers.forwarded(Forwarded::Rfc7239);
        }
        if !settings.listen.trusted_proxies.is_empty() {
            let networks = settings.listen.trusted_proxies.clone();
            headers = headers.trusting(move |ip| networks.iter().any(|network| network.contains(&ip)));
        }
        let compress = settings.proxy.compression.clone().map(CompressLayer::new);
        let service = ServiceBuilder::new()
            .layer(option_layer(compress))
            .layer(headers)
            .layer(UpgradeLayer::new())
            .service(route);
        let service = Access::new(service, settings.access_log, &self.metrics, Arc::clone(&self.current));
        let options = ServerOptions::default().with_max_fields(128).with_date(false);
        HttpServer::with_options(service, options)
    }

    fn spreading(&self, settings: &Settings) -> Spreading {
        let own = Own { node: settings.consul.node_name.as_deref().map(Arc::from), site: None };
        Spreading { balancing: settings.proxy.balancing, own }
    }

    fn discovery(&self, settings: &Settings, public_port: u16, clients: Vec<Client>, drain: &Drain) -> For {
        let statuses = match settings.proxy.health {
            Health::Passing => vec![Status::Passing],
            Health::PassingAndWarning => vec![Status::Passing, Status::Warning],
        };
        let paths = match settings.proxy.path_match {
            PathMatch::Prefix => Paths::Bytes,
            PathMatch::Segment => Paths::Segments,
        };
        let ask = settings.acme.ask.clone();
        let builder = Builder::new(self.spreading(settings), statuses, paths, ask, self.metrics.clone());
        let builder = builder.with_public_port(public_port);
        For {
            builder,
            current: Arc::clone(&self.current),
            manager: self.manager.clone(),
            metrics: self.metrics.clone(),
            shown: Arc::clone(&self.shown),
            drain: drain.clone(),
            source: Source::new(&settings.consul),
            clients,
            dump: settings.config_dump.clone(),
        }
    }

    /// Reads what is not followed by itself again.
    fn reload(&self) {
        let Some(Token::File { path, .. }) = &self.token else {
            tracing::info!(
                target: "tricot",
                "HUP: no file with a token for Consul is set; certificates and keys for Consul are followed without it"
            );
            return;
        };
        let read = Token::read(path).map_err(|error| log::chain(&error)).and_then(|token| {
            let token = meshlib_consul::Token::new(token.secret().expose().as_str());
            self.consul.set_token(&token).map_err(|error| log::chain(&error))
        });
        let path = path.display();
        match read {
            Ok(()) => tracing::info!(target: "tricot", %path, "HUP: token for Consul read again"),
            Err(error) => {
                tracing::error!(target: "tricot", %path, error, "HUP: the token for Consul stays as it is");
            }
        }
    }

    /// Has orders that have failed tried at once, whatever was wrong with them.
    fn retry(&self) {
        let (manager, retrying) = (self.manager.clone(), Arc::clone(&self.retrying));
        // Ends with the names, or with a store that fails.
        tokio::spawn(async move {
            let Ok(_alone) = retrying.try_lock() else { return };
            let mut names = 0;
            for failed in manager.view().into_iter().filter(|view| view.retry_after.is_some()) {
                let name = &*failed.name;
                if let Err(error) = manager.retry(name).await {
                    let error = log::chain(&error);
                    tracing::error!(target: "tricot", name, error, "USR1: the pauses after failed orders stay");
                    return;
                }
                names += 1;
                tracing::info!(target: "tricot", name, "USR1: a failed order is tried again");
            }
            if names == 0 {
                tracing::info!(target: "tricot", "USR1: no order has failed");
            }
        });
    }
}

fn server<S>(name: &str, socket: TcpListener, service: S, drain: &Drain, observer: Listening) -> Job
where
    S: tower::Service<
            meshlib::Conn,
            Error = meshlib::Error,
            Future: std::marker::Send,
            Response: std::marker::Send,
        > + Clone
        + std::marker::Send
        + 'static,
{
    let drain = drain.clone();
    Job::new(format!("the {name} server"), async move {
        let server = Server::from_listener(Listener::from_std(socket)?).observe(Arc::new(observer));
        server.serve(service, drain).await
    })
}

fn admin_server(
    socket: TcpListener,
    parts: &Parts,
    drain: &Drain,
    admin_drain: Drain,
) -> Result<impl Future<Output = ()> + use<>, String> {
    let failed = |error: io::Error| format!("cannot serve metrics: {error}");
    let pages = admin::pages(
        parts.metrics.clone(),
        parts.consul.clone(),
        parts.manager.clone(),
        Arc::clone(&parts.current),
        Arc::clone(&parts.shown),
        drain.draining(),
    );
    let addr = socket.local_addr().map_err(failed)?;
    let listener = Listener::from_std(socket).map_err(failed)?;
    tracing::info!(target: "tricot", %addr, "listening for metrics");
    Ok(async move {
        let server = Server::from_listener(listener).evict_beyond(ADMIN_CONNECTIONS);
        if let Err(error) = server.serve(HttpServer::new(pages), admin_drain).await {
            tracing::error!(target: "tricot", %error, "metrics are not served any more");
        }
    })
}

/// Waits until all workers have ended, and returns how. A signal, and the first that fails, start the drain.
///
/// # Errors
///
/// A second signal: nothing is to be waited for any more.
async fn until_ended(
    mut workers: Workers,
    drain: &Drain,
    grace: Duration,
    signals: &mut Signals,
    parts: &Parts,
) -> Result<Result<(), String>, String> {
    let mut failure = None;
    loop {
        tokio::select! {
            failed = workers.failure() => match failed {
                None => return Ok(failure.map_or(Ok(()), Err)),
                Some(error) => {
                    let error = log::chain(&error);
                    tracing::error!(target: "tricot", error, "draining");
                    failure.get_or_insert(error);
                }
            },
            signal = signals.next() => {
                let signal = match signal {
                    Asked::End(signal) => signal,
                    Asked::Reload => {
                        parts.reload();
                        continue;
                    }
                    Asked::Retry => {
                        parts.retry();
                        continue;
                    }
                };
                if drain.is_started() {
                    return Err(at_once(signal));
                }
                tracing::info!(target: "tricot", signal, ?grace, "draining");
            }
        }
        if !drain.is_started() {
            notify(&[NotifyState::Stopping]);
            parts.metrics.cut.within(grace);
            drain.start();
            let drain = drain.clone();
            tokio::spawn(async move { drain.finish(grace).await });
        }
    }
}

fn at_once(signal: &str) -> String {
    format!("a second signal ({signal}): exiting at once")
}

/// Tells the service manager, if there is one that listens.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(target: "tricot", %error, "the service manager was not told");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user: Signal,
}

/// What a signal asks for.
enum Asked {
    /// To end, by this signal.
    End(&'static str),
    /// To read again what is not followed by itself.
    Reload,
    /// To try again what has failed. Apart from the other, which may happen by a clock and must not end a pause.
    Retry,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// What the next signal asks for.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End("TERM"),
            _ = self.interrupt.recv() => Asked::End("INT"),
            _ = self.hang_up.recv() => Asked::Reload,
            _ = self.user.recv() => Asked::Retry,
        }
    }

    /// The next signal that ends the program.
    async fn end(&mut self) -> &'static str {
        loop {
            if let Asked::End(signal) = self.next().await {
                return signal;
            }
        }
    }
}

fn consul(settings: &Settings) -> Result<Consul, String> {
    let consul = &settings.consul;
    let mut tls = TlsOptions::new();
    if let Some(ca) = &consul.ca_cert {
        tls = tls.with_ca_file(ca);
    }
    if let Some(client) = &consul.client_cert {
        tls = tls.with_certificate(&client.cert, &client.key);
    }
    if consul.skip_verify {
        tls = tls.with_verify(Verify::Nothing);
    }
    let token = consul.token.as_ref();
    let token = token.map(|token| meshlib_consul::Token::new(token.secret().expose().as_str()));
    let mut config = Config::new(consul.address.to_string()).with_token(token).with_tls(tls);
    if let Some(datacenter) = &consul.datacenter {
        config = config.with_datacenter(&**datacenter);
    }
    Consul::new(config).map_err(|error| files::about_consul(consul, &error))
}

fn acme_options(
    settings: &Settings,
    asking: &Arc<ClientConfig>,
    orders: Orders,
) -> Result<AcmeOptions, String> {
    let acme = &settings.acme;
    let trust = match &acme.ca_cert {
        Some(path) => Arc::new(trust(path)?),
        None => Arc::clone(asking),
    };
    let kinds = acme.challenges.iter().map(|challenge| match challenge {
        Challenge::Http01 => ChallengeKind::Http01,
        Challenge::TlsAlpn01 => ChallengeKind::TlsAlpn01,
    });
    let node = settings.consul.node_name.as_deref().unwrap_or("tricot");
    let mut options = AcmeOptions::new(trust)
        .with_directory(acme.directory.url())
        .with_challenges(kinds)
        .with_lock_ttl(acme.lock_ttl)
        .with_preload(acme.warmup)
        .with_self_signed_name("tricot")
        .with_node(node)
        .with_observer(Arc::new(orders));
    if let Some(email) = &acme.email {
        options = options.with_contact(&**email);
    }
    if let Some(profile) = &acme.profile {
        options = options.with_profile(&**profile);
    }
    if let Some(account) = &acme.external_account {
        let account = ExternalAccount::from_key(&*account.kid, account.hmac_key.expose().as_slice());
        options = options.with_external_account(account);
    }
    Ok(options)
}

/// Trust in the authorities of a file.
fn trust(path: &Path) -> Result<ClientConfig, String> {
    let failed = |error: &dyn std::error::Error| format!("TRICOT_ACME_CA_CERT: {}", log::chain(error));
    let trusted = tls::pem::authorities([path.to_owned()]).map_err(|error| failed(&error))?;
    let mut roots = RootCertStore::empty();
    roots.extend(trusted.roots);
    tls::client_config(tls::provider(), roots).map_err(|error| failed(&error))
}
