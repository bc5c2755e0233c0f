//! Servers that run, and what another configuration changes about them.
//!
//! [`Running::plan`] does everything that can fail: it opens the sockets that are missing. [`Running::switch`] cannot fail.
//! A server that would be no different stays as it is; one that would be gets another one beside it, on the same
//! sockets, before it stops accepting, so that nobody who connects is turned away. Streams go on as they began.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use meshlib::Drain;
use meshlib::ListenOptions;
use meshlib::Listener;
use meshlib::Resolver;
use meshlib::observe::Observer;
use meshlib::tls;
use meshlib::tls::Reloading;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::task;
use tokio::task::JoinSet;
use tokio::time;

use super::Prepared;
use super::admin::Shown;
use super::admin::ShownDestination;
use super::admin::ShownTls;
use super::config::Config;
use super::config::model;
use super::config::model::Server;
use super::metrics::Metrics;
use super::namespace;
use super::own::Own;
use super::tls::ClientTls;
use super::tls::ServerConfigs;
use super::tls::ServerTls;
use super::wire::Destination;
use crate::kit::limits::Room;
use crate::kit::load::ConfigError;
use crate::kit::load::Problem;
use crate::kit::sockets;
use crate::kit::sockets::Passed;
use crate::kit::workers;
use crate::kit::workers::Hands;
use crate::kit::workers::Job;

/// How often certificates and keys are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// A configuration with a socket for each of its servers that is to be started.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) prepared: Prepared,
    /// One for each server, in the order of the configuration.
    servers: Vec<Start>,
}

/// What becomes of a server.
#[derive(Debug)]
enum Start {
    /// The one that runs is no different: the number of its router and its own.
    Stays(usize, usize),
    /// It is started on these sockets, in the place of one that runs: the number of its router and its own.
    Begins(Sockets, Option<(usize, usize)>),
}

/// The sockets of a server, one for each worker.
#[derive(Debug)]
struct Sockets {
    addr: SocketAddr,
    serving: Vec<TcpListener>,
    /// The same again, for a server that may come after this one.
    kept: Vec<TcpListener>,
    /// Whether the service manager has opened them, whatever the address of the configuration is.
    is_passed: bool,
}

/// What runs.
pub(super) struct Running {
    hands: Hands,
    drain: Drain,
    metrics: Metrics,
    shown: Arc<Shown>,
    /// How many connections all servers together may have.
    room: Arc<Semaphore>,
    config: Option<Config>,
    routers: Vec<Router>,
    /// Told when certificates and keys are to be looked at.
    look: watch::Sender<()>,
}

/// The servers of a router and what they share.
struct Router {
    label: String,
    /// As it would be written: where endpoints come from, and what else all servers share.
    source: Value,
    shared: Value,
    resolver: Arc<dyn Resolver<String>>,
    destinations: BTreeMap<String, (Destination, Followed<tls::ClientTls>)>,
    servers: Vec<Live>,
}

/// A server that runs.
struct Live {
    /// The address that the configuration gives, and the one that it has.
    asked: SocketAddr,
    addr: SocketAddr,
    server: Server,
    buffer: usize,
    /// The limit of connections, which those of servers before this one count for, too.
    limit: Option<Room>,
    /// Says when that is full, for as long as this lives.
    _watching: JoinSet<()>,
    kept: Vec<TcpListener>,
    is_passed: bool,
    drain: Drain,
    tls: Followed<ServerConfigs>,
}

/// What is made of files, if there are any, with a task that follows them for as long as this lives.
struct Followed<T> {
    made: Option<Arc<Reloading<T, ConfigError>>>,
    _task: JoinSet<()>,
}

impl Sockets {
    fn new((addr, serving): (SocketAddr, Vec<TcpListener>), is_passed: bool) -> io::Result<Self> {
        let kept = again(&serving)?;
        Ok(Self { addr, serving, kept, is_passed })
    }
}

fn again(sockets: &[TcpListener]) -> io::Result<Vec<TcpListener>> {
    sockets.iter().map(TcpListener::try_clone).collect()
}

impl Plan {
    /// Opens every socket, for so many workers, or takes those that were passed under the label of a router.
    ///
    /// # Errors
    ///
    /// All addresses that cannot be listened at, each with the place that names it.
    pub(super) fn first(
        prepared: Prepared,
        workers: usize,
        passed: &mut Passed,
    ) -> Result<Self, ConfigError> {
        let open = |label: &str, server: &Server| match passed.next(label) {
            Some(socket) => Sockets::new(sockets::share(socket, workers)?, true),
            None => listen(server, workers),
        };
        Self::new(prepared, |_, _| None, open)
    }

    fn new(
        prepared: Prepared,
        mut running: impl FnMut(&model::Router, &Server) -> Option<io::Result<Start>>,
        mut open: impl FnMut(&str, &Server) -> io::Result<Sockets>,
    ) -> Result<Self, ConfigError> {
        let (mut servers, mut problems) = (Vec::new(), Vec::new());
        for router in &prepared.config.routers {
            for server in &router.servers {
                let opened = running(router, server)
                    .unwrap_or_else(|| open(&router.label, server).map(|it| Start::Begins(it, None)));
                match opened {
                    Ok(start) => servers.push(start),
                    Err(error) => {
                        let text = format!("cannot listen at {}: {error}", server.addr);
                        problems.push(Problem::new(server.place.clone(), text));
                    }
                }
            }
        }
        ConfigError::unless_none(problems)?;
        Ok(Self { prepared, servers })
    }

    /// Where each server listens, in the order of the configuration.
    pub(super) fn addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.servers.iter().filter_map(|start| match start {
            Start::Begins(sockets, _) => Some(sockets.addr),
            Start::Stays(..) => None,
        })
    }
}

impl Running {
    /// Nothing, yet.
    pub(super) fn new(
        hands: Hands,
        drain: Drain,
        metrics: Metrics,
        shown: Arc<Shown>,
        room: Arc<Semaphore>,
    ) -> Self {
        let (routers, look) = (Vec::new(), watch::channel(()).0);
        Self { hands, drain, metrics, shown, room, config: None, routers, look }
    }

    /// What another configuration would change. Opens the sockets that it needs.
    ///
    /// # Errors
    ///
    /// All that speaks against it; nothing has changed then.
    pub(super) fn plan(&self, prepared: Prepared) -> Result<Plan, ConfigError> {
        let generation = prepared.config.generation;
        if self.config.as_ref().is_some_and(|config| config.generation != generation) {
            let text = "another language than before (`proxies` or `routers`), and with it other names of metrics: \
                        this needs another start";
            return Err(super::whole(&prepared.config, text.into()));
        }
        let mut taken: Vec<(usize, usize)> = Vec::new();
        let config = prepared.config.clone();
        let digests: Vec<_> = prepared.routers.iter().map(|router| router.names.digest()).collect();
        let digest = |router: &model::Router| {
            let n = config.routers.iter().position(|it| it.label == router.label);
            n.map_or(0, |n| digests[n])
        };
        let running = |router: &model::Router, server: &Server| {
            let (r, s) = self.find(&router.label, server.addr, &taken)?;
            taken.push((r, s));
            let (old, live) = (&self.routers[r], &self.routers[r].servers[s]);
            let is_same = old.label == router.label
                && old.source == source(&config, router, digest(router))
                && old.shared == shared(&config, router)
                && (live.buffer, &live.server.dst) == (config.buffer_size, &server.dst)
                && live.server.to_value(generation) == server.to_value(generation);
            if is_same {
                return Some(Ok(Start::Stays(r, s)));
            }
            let sockets =
                again(&live.kept).and_then(|again| Sockets::new((live.addr, again), live.is_passed));
            Some(sockets.map(|sockets| Start::Begins(sockets, Some((r, s)))))
        };
        let workers = self.hands.count();
        let open = |_: &str, server: &Server| {
            listen(server, workers).map_err(|error| {
                let mut own = self.routers.iter().flat_map(|router| &router.servers);
                let is_own = error.kind() == io::ErrorKind::AddrInUse
                    && own.any(|live| live.addr.port() == server.addr.port());
                if !is_own {
                    return error;
                }
                let why = "this program has that port at another address, and gives it up at its end";
                io::Error::other(format!("{error}: {why}"))
            })
        };
        Plan::new(prepared, running, open)
    }

    /// The server that runs in the place of one of a router: on a socket that was passed for it, else the one at its
    /// address, preferably of this router. What is taken is somebody else's.
    fn find(&self, label: &str, asked: SocketAddr, taken: &[(usize, usize)]) -> Option<(usize, usize)> {
        let all = self.routers.iter().enumerate().flat_map(|(r, router)| {
            router.servers.iter().enumerate().map(move |(s, live)| ((r, s), router.label == label, live))
        });
        let free: Vec<_> = all.filter(|(at, ..)| !taken.contains(at)).collect();
        let passed = free.iter().find(|(_, is_own, live)| *is_own && live.is_passed);
        let mut here = free.iter().filter(|(_, _, live)| live.asked == asked && !live.is_passed);
        let own = here.clone().find(|(_, is_own, _)| *is_own);
        // Any free port is as good as another, but for a server of one's own.
        let found = passed.or(own).or_else(|| here.next().filter(|_| asked.port() != 0));
        found.map(|(at, ..)| *at)
    }

    /// What of another configuration has no effect before the next start, by the names of its fields. These are put back to
    /// what they are.
    fn put_off(&self, config: &mut Config) -> Vec<&'static str> {
        let Some(old) = &self.config else { return Vec::new() };
        let mut names = Vec::new();
        if old.workers != config.workers {
            names.push("workers");
        }
        if old.admin.addr != config.admin.addr || old.admin.explicit_addr != config.admin.explicit_addr {
            names.push("admin: its address");
        }
        if old.admin.metrics_interval != config.admin.metrics_interval {
            names.push("admin.metricsIntervalSecs");
        }
        if old.admin.grace != config.admin.grace {
            names.push("admin.graceSecs");
        }
        (config.workers, config.admin) = (old.workers, old.admin.clone());
        names
    }

    /// A few words about what runs.
    pub(super) fn summary(&self) -> String {
        self.config.as_ref().map(|config| format!("serving {}", config.summary())).unwrap_or_default()
    }

    /// Looks at certificates and keys at once.
    pub(super) fn look(&self) {
        self.look.send_replace(());
    }

    /// Does as planned, and returns what has no effect before the next start. Must be called in a runtime.
    pub(super) fn switch(&mut self, plan: Plan) -> Vec<&'static str> {
        let Plan { prepared, servers } = plan;
        let Prepared { mut config, routers, .. } = prepared;
        let later = self.put_off(&mut config);
        let mut starts = servers.into_iter();
        // Balancers that end, but not before others have asked for the names that they know.
        let mut going = Vec::new();
        let mut old: Vec<Option<Router>> = std::mem::take(&mut self.routers).into_iter().map(Some).collect();
        let mut old_servers: Vec<Vec<Option<Live>>> = old
            .iter_mut()
            .map(|router| {
                router.as_mut().map(|it| it.servers.drain(..).map(Some).collect()).unwrap_or_default()
            })
            .collect();
        for (settings, files) in config.routers.iter().zip(routers) {
            let (source, shared) =
                (source(&config, settings, files.names.digest()), shared(&config, settings));
            let before = old.iter_mut().find(|router| {
                router.as_ref().is_some_and(|it| it.label == settings.label && it.source == source)
            });
            let mut router = match before.and_then(Option::take) {
                Some(router) if router.shared == shared => router,
                // What is known of names stays; how endpoints are connected does not.
                Some(router) => {
                    going.push(router.destinations);
                    Router { shared, destinations: BTreeMap::new(), ..router }
                }
                None => {
                    let namespace = namespace(&settings.resolver).unwrap_or_default();
                    let observer = self.metrics.resolver(&settings.label, namespace);
                    Router {
                        label: settings.label.clone(),
                        source,
                        shared,
                        resolver: files.names.observed(observer),
                        destinations: BTreeMap::new(),
                        servers: Vec::new(),
                    }
                }
            };
            let tls = files.servers.into_iter().zip(files.clients);
            for (server, (tls, client)) in settings.servers.iter().zip(tls) {
                let live = match starts.next() {
                    Some(Start::Stays(r, s)) => old_servers[r][s].take(),
                    Some(Start::Begins(sockets, before)) => {
                        let before = before.and_then(|(r, s)| old_servers[r][s].as_ref());
                        // Those that are connected count for as long as they are.
                        let limit =
                            before.filter(|live| live.server.max_connections == server.max_connections);
                        let limit = limit.and_then(|live| live.limit.clone());
                        Some(self.begin(
                            &config,
                            settings,
                            server,
                            &mut router,
                            (tls, client),
                            sockets,
                            limit,
                        ))
                    }
                    None => None,
                };
                router.servers.extend(live);
            }
            router.destinations.retain(|dst, _| settings.servers.iter().any(|server| server.dst == *dst));
            self.routers.push(router);
        }
        for live in old_servers.into_iter().flatten().flatten() {
            // Another one has its place otherwise.
            if !self.routers.iter().flat_map(|router| &router.servers).any(|it| it.addr == live.addr) {
                tracing::info!(target: "linkerd_tcp::app", addr = %live.addr, dst = %live.server.dst, "no longer listening");
            }
            live.drain.start();
        }
        // The routers that are left over go with their resolvers.
        drop(old);
        tokio::spawn(async move {
            time::sleep(INTERVAL).await;
            drop(going);
        });
        self.metrics.retain(|series| {
            let of_label = config.routers.iter().zip(&self.routers).find(|(_, it)| it.label == series.label);
            let Some((settings, router)) = of_label else { return false };
            let lives = |is_it: &dyn Fn(&Live) -> bool| router.servers.iter().any(is_it);
            series.addr.is_none_or(|addr| lives(&|live| live.addr.to_string() == addr))
                && series.dst.is_none_or(|dst| lives(&|live| live.server.dst == dst))
                && series.namespace.is_none_or(|it| it == namespace(&settings.resolver).unwrap_or_default())
        });
        self.show(&config);
        self.config = Some(config);
        self.look();
        later
    }

    /// Starts a server.
    #[expect(clippy::too_many_arguments, reason = "all that a server is made of")]
    fn begin(
        &self,
        config: &Config,
        settings: &model::Router,
        server: &Server,
        router: &mut Router,
        (tls, client): (Option<Arc<ServerTls>>, Option<Arc<ClientTls>>),
        sockets: Sockets,
        limit: Option<Room>,
    ) -> Live {
        let Sockets { addr, serving, kept, is_passed } = sockets;
        let label = &settings.label;
        let generation = config.generation;
        if !router.destinations.contains_key(&server.dst) {
            let rules = settings.client.for_destination(&server.dst);
            let destination = Destination::new(
                label,
                server,
                &rules,
                client.clone(),
                generation,
                &router.resolver,
                &self.metrics,
            );
            router.destinations.insert(server.dst.clone(), (destination, self.follow(client)));
        }
        let (destination, _) = &router.destinations[&server.dst];
        let observer = self.metrics.server(label, addr, server);
        let room = |most| Room::new(&format!("maxConcurrency of {addr}"), most);
        let limit = server.max_connections.map(|most| limit.unwrap_or_else(|| room(most)));
        let drain = self.drain.part();
        let watching = limit.iter().cloned().map(|room| room.watch(drain.clone())).collect();
        let workers = serving.len();
        tracing::info!(target: "linkerd_tcp::app", router = %label, %addr, dst = %server.dst, workers, "listening");
        let shared = limit.clone();
        let jobs = serving.into_iter().map(|socket| {
            let service = destination.service(server, tls.clone(), config.buffer_size, Arc::clone(&observer));
            let (gate, limit, room) = (destination.gate(), shared.clone(), Arc::clone(&self.room));
            let (observer, drain): (Arc<dyn Observer>, _) = (Arc::clone(&observer), drain.clone());
            // The drain must not seem to be over before the worker has begun.
            let draining = drain.draining();
            Job::new(format!("server {addr} of {label}"), async move {
                let listener = Listener::from_std(socket)?;
                let mut server = meshlib::Server::from_listener(listener).share_limit(room).observe(observer);
                if let Some(limit) = limit {
                    server = server.share_limit(limit.limit());
                }
                if let Some(gate) = gate {
                    server = server.gate(gate);
                }
                let served = server.serve(service, drain).await;
                drop(draining);
                served
            })
        });
        self.hands.give(jobs.collect::<Vec<_>>());
        Live {
            asked: server.addr,
            addr,
            server: server.clone(),
            buffer: config.buffer_size,
            limit,
            _watching: watching,
            kept,
            is_passed,
            drain,
            tls: self.follow(tls),
        }
    }

    /// Follows the files of something.
    fn follow<T: Send + Sync + 'static>(&self, made: Option<Arc<Reloading<T, ConfigError>>>) -> Followed<T> {
        let mut task = JoinSet::new();
        if let Some(made) = made.clone() {
            let look = self.look.subscribe();
            task.spawn(async move { made.follow_or(INTERVAL, look).await });
        }
        Followed { made, _task: task }
    }

    /// Brings what pages show up to date.
    fn show(&self, config: &Config) {
        let mut shown = Vec::new();
        let mut tls = ShownTls::default();
        let mut files = Vec::new();
        for (router, settings) in self.routers.iter().zip(&config.routers) {
            for (dst, (destination, client)) in &router.destinations {
                tls.clients.extend(client.made.clone().map(|made| (router.label.clone(), made)));
                let servers = router.servers.iter().filter(|live| live.server.dst == *dst);
                shown.push(ShownDestination {
                    router: router.label.clone(),
                    dst: dst.clone(),
                    listens: servers.map(|live| live.addr.to_string()).collect(),
                    view: destination.view(),
                    reasons: destination.reasons(),
                    tls: settings.client.for_destination(dst).tls.map(|tls| tls.dns_name),
                });
            }
            let identities = router
                .destinations
                .keys()
                .filter_map(|dst| settings.client.for_destination(dst).tls.and_then(|tls| tls.client_auth));
            let towards_namerd = match &settings.resolver {
                model::ResolverConfig::Namerd(namerd) => namerd.tls.as_ref(),
                model::ResolverConfig::Static(_) => None,
            };
            let identities = identities.chain(towards_namerd.and_then(|tls| tls.client_auth.clone()));
            files.extend(identities.filter_map(|identity| Some(identity.certs.first()?.path.clone())));
            for live in &router.servers {
                let made = live.server.tls.as_ref().zip(live.tls.made.as_ref());
                let of = |(settings, made): (&model::ServerTls, &Arc<ServerTls>)| {
                    (router.label.clone(), settings.clone(), Arc::clone(made))
                };
                tls.servers.extend(made.map(of));
            }
        }
        let servers = self.routers.iter().flat_map(|router| &router.servers);
        let rooms = servers.filter_map(|live| live.limit.clone()).collect();
        let own = Arc::new(Own::new(files));
        tls.own = Arc::clone(&own);
        self.shown.set(config.to_value(), shown, tls, rooms);
        task::spawn_blocking(move || own.read());
    }
}

fn listen(server: &Server, workers: usize) -> io::Result<Sockets> {
    Sockets::new(workers::listen(server.addr, &ListenOptions::default(), workers)?, false)
}

/// Where the endpoints of a router come from, as it would be written, with a digest of the files that it names.
fn source(config: &Config, router: &model::Router, files: u64) -> Value {
    let (source, _) = parts(config, router);
    serde_json::json!({ "files": files, "source": source })
}

/// What else all servers of a router share, as it would be written.
fn shared(config: &Config, router: &model::Router) -> Value {
    parts(config, router).1
}

fn parts(config: &Config, router: &model::Router) -> (Value, Value) {
    let router = model::Router { servers: Vec::new(), ..router.clone() };
    let mut written = router.to_value(config.generation);
    let source =
        ["namerd", "interpreter"].map(|name| written.as_object_mut().and_then(|all| all.remove(name)));
    (source.into_iter().flatten().collect(), written)
}
