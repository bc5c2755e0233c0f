//! A configuration with every socket it needs, and running it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use meshlib::Drain;
use meshlib::Draining;
use meshlib::ListenOptions;
use meshlib::Listener;
use meshlib::balance::View;
use tokio::sync::Semaphore;
use tokio::sync::watch;

use super::Prepared;
use super::admin::pages;
use super::config::Generation;
use super::metrics::Metrics;
use super::namespace;
use super::wire::Destination;
use crate::admin::AdminSocket;
use crate::ending::Ending;
use crate::load::ConfigError;
use crate::load::Place;
use crate::load::Problem;
use crate::sockets;
use crate::sockets::Passed;
use crate::workers;
use crate::workers::Job;
use crate::workers::Workers;

/// Everything that can fail before the first connection has not.
#[derive(Debug)]
pub struct Bound {
    prepared: Prepared,
    workers: usize,
    admin: AdminSocket,
    /// One socket per worker for each server, in the order of the configuration.
    servers: Vec<(SocketAddr, Vec<TcpListener>)>,
    metrics: Metrics,
}

impl Prepared {
    /// Opens every socket. `workers` threads will serve; without a number as many as the configuration says, or one per
    /// processor.
    ///
    /// # Errors
    ///
    /// All addresses that cannot be listened at, each with the place that names it.
    pub fn bind(self, workers: Option<usize>) -> Result<Bound, ConfigError> {
        self.bind_with(workers, Passed::default())
    }

    /// The same with sockets that were passed: the first that is called `admin` is for admin requests, those called like a
    /// proxy or router are for its servers, in their order, whatever the addresses of the configuration are.
    ///
    /// # Errors
    ///
    /// As of [`bind`](Self::bind).
    pub fn bind_with(self, workers: Option<usize>, mut passed: Passed) -> Result<Bound, ConfigError> {
        let workers = workers.or(self.config.workers).unwrap_or_else(workers::usual).max(1);
        let passed_admin = passed.next("admin");
        let mut problems = Vec::new();
        let mut servers = Vec::new();
        for (router, _, server) in self.servers() {
            let sockets = match passed.next(&self.config.routers[router].label) {
                Some(socket) => sockets::share(socket, workers),
                None => workers::listen(server.addr, &ListenOptions::default(), workers),
            };
            match sockets {
                Ok(sockets) => servers.push(sockets),
                Err(error) => {
                    let text = format!("cannot listen at {}: {error}", server.addr);
                    problems.push(Problem::new(server.place.clone(), text));
                }
            }
        }
        let admin_addr = self.config.admin.addr;
        let admin = match passed_admin {
            Some(socket) => AdminSocket::from_std(socket),
            None => AdminSocket::open(admin_addr),
        };
        passed.close_rest();
        let admin = admin.map_err(|error| {
            let text = format!("cannot listen at {admin_addr} for admin requests: {error}");
            Problem::new(self.config.admin.place.clone().unwrap_or_else(Place::nowhere), text)
        });
        let mut problems = problems.into_iter();
        match (problems.next(), admin) {
            (None, Ok(admin)) => {
                let metrics = Metrics::new(self.config.generation, self.config.admin.metrics_interval);
                Ok(Bound { prepared: self, workers, admin, servers, metrics })
            }
            (None, Err(first)) => Err(ConfigError::new(first, [])),
            (Some(first), admin) => Err(ConfigError::new(first, problems.chain(admin.err()))),
        }
    }
}

impl Bound {
    /// Where each server listens, in the order of the configuration.
    pub fn servers(&self) -> impl Iterator<Item = SocketAddr> {
        self.servers.iter().map(|(addr, _)| *addr)
    }

    /// Where admin requests are answered.
    pub fn admin(&self) -> SocketAddr {
        self.admin.addr()
    }

    /// Whether the admin address must be printed on stdout, as scripts of generation A expect.
    pub(super) fn announces_admin(&self) -> bool {
        self.prepared.config.generation == Generation::Proxies
    }

    /// Serves until it has ended. Whoever asks for `/shutdown` begins the end, too. What is sent as `reload` makes it look
    /// at certificates and keys at once.
    ///
    /// Runs the control tasks (discovery, admin, reloading) on the caller's runtime and connections on threads of their
    /// own.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started, or if a listening socket broke or a server panicked: that is logged at once and
    /// begins the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forces the drain: connections are cut and the threads end.
    pub async fn run(self, ending: Ending, reload: watch::Receiver<()>) -> io::Result<()> {
        let Self { prepared, workers, admin, servers, metrics } = self;
        let drain = ending.drain();
        let mut jobs: Vec<Vec<Job>> = (0..workers).map(|_| Vec::new()).collect();
        let mut views: Vec<(String, View)> = Vec::new();
        let mut reloading = tls_reloads(&prepared, &reload);
        let mut sockets = servers.into_iter();

        for (config, router) in prepared.config.routers.iter().zip(&prepared.routers) {
            let observer = metrics.resolver(&config.label, namespace(&config.resolver).unwrap_or_default());
            let resolver = router.names.observed(observer);
            let mut destinations: BTreeMap<&str, Destination> = BTreeMap::new();
            for (n, server) in config.servers.iter().enumerate() {
                let Some((addr, listeners)) = sockets.next() else { break };
                if !destinations.contains_key(server.dst.as_str()) {
                    let client = config.client.for_destination(&server.dst);
                    let tls = router.clients[n].clone();
                    let generation = prepared.config.generation;
                    let destination = Destination::new(
                        &config.label,
                        server,
                        &client,
                        tls,
                        generation,
                        &resolver,
                        &metrics,
                    );
                    if let Some(view) = destination.view() {
                        views.push((config.label.clone(), view));
                    }
                    destinations.insert(&server.dst, destination);
                }
                let destination = &destinations[server.dst.as_str()];
                let observer = metrics.server(&config.label, addr, server);
                let tls = router.servers[n].clone();
                let limit =
                    server.max_connections.map(|n| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS))));
                tracing::info!(target: "linkerd_tcp::app", router = %config.label, %addr, dst = %server.dst, workers, "listening");
                for (worker, listener) in listeners.into_iter().enumerate() {
                    let buffer = prepared.config.buffer_size;
                    let service = destination.service(server, tls.clone(), buffer, Arc::clone(&observer));
                    let (gate, limit) = (destination.gate(), limit.clone());
                    let (observer, drain) = (Arc::clone(&observer), drain.clone());
                    jobs[worker].push(Job::new(format!("server {addr} of {}", config.label), async move {
                        let mut server =
                            meshlib::Server::from_listener(Listener::from_std(listener)?).observe(observer);
                        if let Some(limit) = limit {
                            server = server.share_limit(limit);
                        }
                        if let Some(gate) = gate {
                            server = server.gate(gate);
                        }
                        server.serve(service, drain).await
                    }));
                }
            }
        }
        for jobs in &mut jobs {
            jobs.push(Job::new("the drain", stays(drain.clone(), drain.draining())));
        }
        let admin = admin.serve(pages(&prepared.config, &metrics, views, &ending))?;
        let cut_off = ForceOnDrop(Some(drain.clone()));
        let result = Workers::start(jobs)?.until_ended(&ending).await.map_err(io::Error::other);
        cut_off.disarm();
        reloading.abort_all();
        admin.end().await;
        result
    }

    /// How long streams may go on when the program is told to end.
    pub fn grace(&self) -> Duration {
        self.prepared.config.admin.grace
    }
}

/// Keeps a worker until the drain has finished: the connections of a server that failed go on as long as others. The
/// piece of work keeps the drain from seeming finished before this worker began.
async fn stays(drain: Drain, work: Draining) -> io::Result<()> {
    work.started().await;
    drop(work);
    tokio::select! {
        _ = drain.finish(Duration::MAX) => {}
        () = drain.forced() => {}
    }
    Ok(())
}

/// Forces a drain unless what it guards has ended well.
struct ForceOnDrop(Option<Drain>);

impl ForceOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for ForceOnDrop {
    fn drop(&mut self) {
        if let Some(drain) = &self.0 {
            drain.force();
        }
    }
}

/// Tasks that follow certificate and key files, at once when told to.
fn tls_reloads(prepared: &Prepared, reload: &watch::Receiver<()>) -> tokio::task::JoinSet<()> {
    const INTERVAL: Duration = Duration::from_secs(1);
    let mut tasks = tokio::task::JoinSet::new();
    for router in &prepared.routers {
        for tls in router.servers.iter().flatten() {
            let (tls, reload) = (Arc::clone(tls), reload.clone());
            tasks.spawn(async move { tls.follow_or(INTERVAL, reload).await });
        }
        for tls in router.clients.iter().flatten() {
            let (tls, reload) = (Arc::clone(tls), reload.clone());
            tasks.spawn(async move { tls.follow_or(INTERVAL, reload).await });
        }
    }
    tasks
}
