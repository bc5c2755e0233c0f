//! What is made of the settings, once for all workers.

use std::path::Path;
use std::sync::Arc;

use meshlib::BoxConnector;
use meshlib::Drain;
use meshlib::TcpConnector;
use meshlib::TimeoutLayer;
use meshlib::TlsLayer;
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
use tokio::sync::Notify;
use tower::Layer;
use tower::ServiceBuilder;
use tower::util::option_layer;

use super::access::Access;
use super::args::Challenge;
use super::args::Health;
use super::args::PathMatch;
use super::args::Settings;
use super::args::Token;
use super::backend::Own;
use super::discovery::For;
use super::files;
use super::group::Spreading;
use super::metrics::Metrics;
use super::mirror::Mirror;
use super::observer::Orders;
use super::on_demand;
use super::outage::Source;
use super::policy::Inbound;
use super::policy::Outbound;
use super::route::Current;
use super::route::Route;
use super::send::Client;
use super::send::Send;
use super::shown::Shown;
use super::table::Builder;
use crate::kit::log;

/// What all workers share.
pub(super) struct Parts {
    pub(super) consul: Consul,
    pub(super) store: Arc<dyn KvStore>,
    pub(super) manager: Manager,
    pub(super) current: Arc<Current>,
    pub(super) metrics: Metrics,
    pub(super) shown: Arc<Shown>,
    pub(super) asking: Arc<ClientConfig>,
    /// Told when the certificate authority could not be reached.
    pub(super) unreachable: Arc<Notify>,
    outbound: Arc<Outbound>,
    token: Option<Token>,
    /// Held while failed orders are tried again.
    retrying: Arc<tokio::sync::Mutex<()>>,
}

impl Parts {
    pub(super) async fn new(settings: &Settings) -> Result<Self, String> {
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
            token: settings.consul.token.clone()?,
            retrying: Arc::default(),
        })
    }

    pub(super) fn client(&self, settings: &Settings) -> Client {
        let pool = PoolOptions::default().with_idle_timeout(settings.proxy.idle_timeout);
        let connector = TimeoutLayer::connect(settings.proxy.connect_timeout).layer(TcpConnector::default());
        let tls = TlsLayer::new(Arc::clone(&self.outbound)).handshake_within(settings.proxy.connect_timeout);
        ClientLayer::new().tls_layer(tls).pool(pool).layer(BoxConnector::new(connector))
    }

    pub(super) fn inbound(&self, settings: &Settings, wanted: on_demand::Wanted) -> Result<Inbound, String> {
        let certs = self.manager.certificates();
        let config = tls::http_server_config(tls::provider(), certs.clone());
        let config = config.map_err(|error| error.to_string())?;
        Ok(Inbound::new(certs, Arc::new(config), wanted, settings.acme.on_demand_wait))
    }

    /// From requests of clients to answers of instances.
    pub(super) fn proxy(
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
        let options = ServerOptions::default().with_date(false);
        HttpServer::with_options(service, options)
    }

    pub(super) fn spreading(&self, settings: &Settings) -> Spreading {
        let own = Own { node: settings.consul.node_name.as_deref().map(Arc::from), site: None };
        Spreading { balancing: settings.proxy.balancing, own }
    }

    pub(super) fn discovery(
        &self,
        settings: &Settings,
        public_port: u16,
        clients: Vec<Client>,
        drain: &Drain,
    ) -> For {
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

    /// Reads what is not followed by itself again. False if there is no such thing.
    ///
    /// # Errors
    ///
    /// What is wrong with it; it stays as it is then.
    pub(super) fn reload(&self) -> Result<bool, String> {
        let Some(Token::File { path, .. }) = &self.token else {
            tracing::info!(
                target: "tricot",
                "HUP: no file with a token for Consul is set; certificates and keys for Consul are followed without it"
            );
            return Ok(false);
        };
        let read = Token::read(path).map_err(|error| log::chain(&error)).and_then(|token| {
            let token = meshlib_consul::Token::new(token.secret().expose().as_str());
            self.consul.set_token(&token).map_err(|error| log::chain(&error))
        });
        let path = path.display();
        match read {
            Ok(()) => {
                tracing::info!(target: "tricot", %path, "HUP: token for Consul read again");
                Ok(true)
            }
            Err(error) => {
                tracing::error!(target: "tricot", %path, error, "HUP: the token for Consul stays as it is");
                Err(format!("{path}: {error}"))
            }
        }
    }

    /// Has orders that have failed tried at once, whatever was wrong with them.
    pub(super) fn retry(&self) {
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

/// Makes what can be made without asking anybody, as a start does.
///
/// # Errors
///
/// All that would keep it from starting.
pub(super) fn check(settings: &Settings) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    problems.extend(consul(settings).err());
    problems.extend(settings.acme.ca_cert.as_deref().and_then(|path| trust(path).err()));
    if let Some(dir) = &settings.acme.cache_dir {
        let made = files::could_make(dir);
        problems.extend(made.err().map(|why| format!("TRICOT_CERT_CACHE_DIR is {}: {why}", dir.display())));
    }
    if let Some(file) = &settings.config_dump {
        let written = files::could_write(file);
        problems.extend(written.err().map(|why| format!("TRICOT_CONFIG_DUMP is {}: {why}", file.display())));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
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
    let token = consul.token.as_ref().map_err(String::clone)?;
    let token = token.as_ref().map(|token| meshlib_consul::Token::new(token.secret().expose().as_str()));
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
