//! The layers between a client and its endpoint.

use std::sync::Arc;
use std::time::Duration;

use meshlib::BalanceLayer;
use meshlib::Conn;
use meshlib::Error;
use meshlib::ForwardOptions;
use meshlib::Gate;
use meshlib::Io;
use meshlib::Refusal;
use meshlib::Resolver;
use meshlib::Session;
use meshlib::TcpConnector;
use meshlib::TcpProxy;
use meshlib::TimeoutLayer;
use meshlib::TlsLayer;
use meshlib::Transferred;
use meshlib::backoff::Backoff;
use meshlib::balance::Accrual;
use meshlib::balance::Attempts;
use meshlib::balance::Balancer;
use meshlib::balance::CrowdGate;
use meshlib::balance::LeastLoaded;
use meshlib::balance::PeakEwma;
use meshlib::balance::Policy;
use meshlib::balance::View;
use meshlib::balance::Waiting;
use meshlib::connect::SpareLayer;
use meshlib::observe::Observer;
use tower::Layer;
use tower::ServiceBuilder;
use tower::util::BoxCloneService;
use tower::util::BoxCloneSyncService;

use super::config::Generation;
use super::config::model::Client;
use super::config::model::LoadBalancer;
use super::config::model::Server;
use super::metrics::Metrics;
use super::tls::AcceptPolicy;
use super::tls::ClientTls;
use super::tls::ConnectPolicy;
use super::tls::ServerTls;
use crate::kit::reasons::Reasons;

/// How long a client waits for an endpoint where nothing is configured.
const WAIT: Duration = Duration::from_secs(10);
/// How long it waits where discovery says that there is nothing to wait for.
const ABSENT: Duration = Duration::from_secs(1);
/// How long a connection may wait for a client.
const SPARE_AGE: Duration = Duration::from_secs(60);
/// Destinations of one server whose destination has the client's server name in it.
const MAX_NAMES: usize = 1_000;

type Connect = BoxCloneSyncService<Session, Io, Error>;
type Serve = BoxCloneService<Conn, Transferred, Error>;

/// How much longer a client may take in all than it may wait for an endpoint. Where both would end together, the wait ends
/// first and says why; timers are exact to a millisecond.
const AFTER_WAITING: Duration = Duration::from_millis(5);

/// The way to the endpoints of one destination, shared by all servers and workers.
pub(super) struct Destination {
    /// For clients that wait in this way; servers differ in it.
    connect: Box<dyn Fn(Waiting) -> Connect + Send + Sync>,
    most: usize,
    view: Option<View>,
    gate: Option<CrowdGate>,
    reasons: Reasons,
}

/// How long a client of this server waits, of whom there are not more than `most`.
fn waiting(server: &Server, most: usize) -> Waiting {
    match server.connect_timeout {
        Some(limit) => Waiting::new(most, limit),
        None => Waiting::new(most, WAIT).with_absent(ABSENT),
    }
}

impl Destination {
    pub(super) fn new(
        label: &str,
        server: &Server,
        client: &Client,
        tls: Option<Arc<ClientTls>>,
        generation: Generation,
        resolver: &Arc<dyn Resolver<String>>,
        metrics: &Metrics,
    ) -> Self {
        let dst = &server.dst;
        log_settings(label, dst, client);
        let reasons = Reasons::default();
        let observer = reasons.observe(metrics.destination(label, dst));
        let connector = match tls {
            Some(tls) => BoxCloneSyncService::layer().layer(
                TlsLayer::new(ConnectPolicy(tls)).handshake_within(WAIT).layer(TcpConnector::default()),
            ),
            None => BoxCloneSyncService::layer().layer(TcpConnector::default()),
        };
        let attempt = TimeoutLayer::connect(client.attempt()).layer(connector);
        let penalty = client.fail_fast.penalty;
        let failures = u32::try_from(client.fail_fast.max_failures).unwrap_or(u32::MAX);
        let accrual = Accrual::new(Policy::Consecutive(failures))
            .with_penalty(Backoff::new(penalty, penalty.saturating_mul(5)).exact())
            .with_cool_down(Some(Backoff::new(Duration::from_millis(10), Duration::from_secs(1))));
        // Where the listener holds clients back, nobody has to be turned away.
        let most = if generation == Generation::Proxies { usize::MAX } else { client.max_waiters };
        // Who fills up the spares has as much time as a client; the servers' clients have what is theirs.
        let wait = waiting(server, most);

        let balancer: Box<dyn Balancer> = match client.load_balancer {
            LoadBalancer::Ewma => Box::new(PeakEwma::new()),
            _ => Box::new(LeastLoaded::new()),
        };

        if server.is_routed_by_sni() {
            let template = dst.clone();
            let name = move |session: &Session| by_server_name(&template, session);
            let balance = BalanceLayer::by(Arc::clone(resolver), name)
                .max_names(MAX_NAMES)
                .balancer(balancer)
                .accrual(accrual)
                .attempts(Attempts::unlimited())
                .wait(wait)
                .observe(observer)
                .layer(attempt);
            let connect = Box::new(move |wait| BoxCloneSyncService::new(balance.with_waiting(wait)));
            return Self { connect, most, view: None, gate: None, reasons };
        }
        let balance = BalanceLayer::new(Arc::clone(resolver), dst.clone())
            .balancer(balancer)
            .accrual(accrual)
            .attempts(Attempts::unlimited())
            .wait(wait)
            .observe(observer)
            .layer(attempt);
        // Resolved from the start, so that the first client finds endpoints.
        balance.start();
        let view = balance.view();
        let gate = (generation == Generation::Proxies).then(|| balance.gate(client.max_waiters));
        let connect: Box<dyn Fn(Waiting) -> Connect + Send + Sync> = if client.min_connections == 0 {
            metrics.balancer(label, dst, &view, || 0);
            Box::new(move |wait| BoxCloneSyncService::new(balance.with_waiting(wait)))
        } else {
            let spare = SpareLayer::new(client.min_connections).max_age(SPARE_AGE).layer(balance);
            spare.start();
            let ready = spare.clone();
            metrics.balancer(label, dst, &view, move || ready.ready());
            Box::new(move |wait| BoxCloneSyncService::new(spare.with_waiting(wait)))
        };
        Self { connect, most, view: Some(view), gate, reasons }
    }

    /// What is known about the endpoints, unless the destination depends on the client.
    pub(super) fn view(&self) -> Option<View> {
        self.view.clone()
    }

    /// Why endpoints could not be connected.
    pub(super) fn reasons(&self) -> Reasons {
        self.reasons.clone()
    }

    /// Holds listeners back while clients wait, in generation A.
    pub(super) fn gate(&self) -> Option<impl Gate + use<>> {
        self.gate.clone()
    }

    /// What a server does with its connections.
    pub(super) fn service(
        &self,
        server: &Server,
        tls: Option<Arc<ServerTls>>,
        buffer: usize,
        observer: Arc<dyn Observer>,
    ) -> Serve {
        let forward = ForwardOptions::default()
            .with_buffer_bytes(buffer)
            .with_idle_timeout(server.idle_timeout)
            .with_half_close_timeout(server.half_close_timeout)
            .with_lifetime(server.connection_lifetime)
            .with_lifetime_jitter(server.lifetime_jitter);
        let wait = waiting(server, self.most);
        let proxy = TcpProxy::new((self.connect)(wait))
            .connect_within(Some(wait.limit.saturating_add(AFTER_WAITING)))
            .forward(forward)
            .observe(Arc::clone(&observer));
        let within = server.handshake_timeout;
        match tls {
            None => BoxCloneService::new(proxy),
            Some(tls) => BoxCloneService::new(
                ServiceBuilder::new()
                    .layer(
                        TlsLayer::new(AcceptPolicy { tls, within })
                            .handshake_within(within)
                            .observe(observer),
                    )
                    .service(proxy),
            ),
        }
    }
}

/// The destination with the name that the client asked for in it.
fn by_server_name(template: &str, session: &Session) -> Result<String, Error> {
    let name = session.server_name.as_deref().ok_or(Error::Refused(Refusal::NoServerName))?;
    Ok(template.replace("{sni}", name))
}

/// A client section whose prefix never matched before may do so now: what is in force is said.
fn log_settings(label: &str, dst: &str, client: &Client) {
    tracing::info!(
        target: "linkerd_tcp::app",
        router = label,
        dst,
        tls = client.tls.as_ref().map(|tls| tls.dns_name.as_str()),
        connect_timeout = ?client.attempt(),
        max_waiters = client.max_waiters,
        min_connections = client.min_connections,
        fail_fast = ?client.fail_fast,
        load_balancer = ?client.load_balancer,
        "client settings"
    );
}
