//! Running the parts until a signal.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use meshlib::AcceptProxyHeaderLayer;
use meshlib::Drain;
use meshlib::Listener;
use meshlib::Server;
use meshlib::TlsLayer;
use meshlib::http::HttpServer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;
use tower::Layer;
use tower::ServiceBuilder;
use tower::util::option_layer;

use super::admin;
use super::admin::Knows;
use super::args::Settings;
use super::discovery;
use super::discovery::Discovery;
use super::observer;
use super::observer::Listening;
use super::on_demand::on_demand;
use super::parts::Parts;
use super::plain::ToHttps;
use super::send::Client;
use super::sockets::Bound;
use super::sockets::Sockets;
use crate::kit::admin::AdminSocket;
use crate::kit::ending::Ending;
use crate::kit::limits::Room;
use crate::kit::loading::Loading;
use crate::kit::log;
use crate::kit::signals::Order;
use crate::kit::signals::Signals;
use crate::kit::units::listed;
use crate::kit::workers;
use crate::kit::workers::Job;
use crate::kit::workers::Workers;

/// How long a client may take for its handshake, beside the time that a certificate is waited for.
const HANDSHAKE: Duration = Duration::from_secs(10);
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
    let workers = settings.workers.unwrap_or_else(workers::usual);
    let sockets = Sockets::open(&settings.listen, workers)?;
    let parts = Parts::new(&settings).await?;
    let grace = settings.shutdown_grace;
    let cut = parts.metrics.cut.clone();
    let ending = Ending::after(async move { cut.within(grace) }, Drain::new(), grace);
    let drain = ending.drain();
    let mut tasks = JoinSet::new();

    let (wanted, deciding) = on_demand(
        Arc::clone(&parts.current),
        parts.manager.clone(),
        Arc::clone(&parts.store),
        parts.asking.clone(),
        settings.acme.directory.is_lets_encrypt(),
    );
    let clients: Vec<Client> = (0..workers).map(|_| parts.client(&settings)).collect();
    let room = Room::of_process(&parts.metrics.registry);
    tasks.spawn(room.clone().watch(drain.clone()));
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
            jobs.push(server("HTTP", socket, service, drain, &room, Listening::new(&parts.metrics, "http")));
        }
    }
    let status = format!("serving HTTPS at {}", listed(sockets.https.iter().map(|bound| bound.addr)));
    let inbound = Arc::new(parts.inbound(&settings, wanted)?);
    for Bound { addr, sockets } in sockets.https {
        tracing::info!(target: "tricot", %addr, "listening for HTTPS");
        for ((jobs, socket), client) in jobs.iter_mut().zip(sockets).zip(&clients) {
            let observer = Listening::new(&parts.metrics, "https");
            let service = ServiceBuilder::new()
                .layer(option_layer(behind.clone()))
                .layer(
                    TlsLayer::new(Arc::clone(&inbound))
                        .handshake_within(HANDSHAKE + settings.acme.on_demand_wait.unwrap_or_default())
                        .observe(Arc::new(observer.clone())),
                )
                .layer(observer.handshakes())
                .service(parts.proxy(&settings, client.clone()));
            jobs.push(server("HTTPS", socket, service, drain, &room, observer));
        }
    }

    let mut watching = JoinSet::new();
    let (own_tx, own) = watch::channel(parts.spreading(&settings).own);
    let node = settings.consul.node_name.as_deref().map(Arc::from);
    watching.spawn(discovery::follow_own(parts.consul.clone(), node, own_tx));
    let discovery = Discovery::new(&parts.consul, own, parts.discovery(&settings, public, clients, drain));
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
    let loading = Loading::new(&parts.metrics.registry, None);
    let admin = sockets.metrics.map(|socket| {
        let knows = Knows::new(&parts, settings.given.clone(), loading.clone(), drain.clone(), room);
        let pages = admin::pages(knows, parts.consul.clone());
        AdminSocket::from_std(socket)
            .and_then(|socket| socket.serve(pages))
            .map_err(|error| format!("cannot serve metrics: {error}"))
    });
    let admin = admin.transpose()?;

    let running = Workers::start(jobs).map_err(|error| format!("cannot start a thread: {error}"))?;
    let serving = async {
        let result = running.until_ended(&ending).await;
        watching.shutdown().await;
        // Whatever it is, it is not worth waiting for much longer once it was told to give up.
        let most = LAST_WORK + Duration::from_secs(1);
        if time::timeout(most, ordering.finish(LAST_WORK)).await.is_err() {
            tracing::debug!(target: "tricot", "orders for certificates were given up");
        }
        if let Some(admin) = admin {
            admin.end().await;
        }
        tasks.shutdown().await;
        tracing::info!(target: "tricot", cut = parts.metrics.cut.requests(), "stopped");
        result.map_err(|error| log::chain(&error))
    };
    let heed = |order| match order {
        Order::Reload => {
            loading.begin();
            match parts.reload() {
                Ok(true) => loading.succeeded(&status),
                Ok(false) => loading.unchanged(&status),
                Err(error) => loading.failed(&error, &status),
            }
        }
        Order::Retry => parts.retry(),
    };
    ending.serve(serving, &status, &mut signals, heed).await.map_err(|interrupted| interrupted.to_string())?
}

fn server<S>(
    name: &str,
    socket: TcpListener,
    service: S,
    drain: &Drain,
    room: &Room,
    observer: Listening,
) -> Job
where
    S: tower::Service<meshlib::Conn, Error = meshlib::Error, Future: Send, Response: Send>
        + Clone
        + Send
        + 'static,
{
    let (drain, room) = (drain.clone(), room.limit());
    Job::new(format!("the {name} server"), async move {
        let server = Server::from_listener(Listener::from_std(socket)?).share_limit(room);
        server.observe(Arc::new(observer)).serve(service, drain).await
    })
}
