//! Serving until a signal ends it.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;

use http::StatusCode;
use meshlib::Drain;
use meshlib::ListenOptions;
use meshlib::Listener;
use meshlib::Server;
use meshlib::http::admin::Router;
use meshlib::http::admin::status;
use meshlib::tproxy::Intercept;
use meshlib::tproxy::rules::Tool;
use serde_json::Value;
use tokio::task;
use tokio::task::JoinSet;
use tower::service_fn;

use super::args::Args;
use super::loops::Loops;
use super::plan::Plan;
use super::privileges;
use super::privileges::Keep;
use super::rules;
use super::watch;
use super::watch::Watch;
use super::wire::Wire;
use crate::kit::admin;
use crate::kit::admin::AdminSocket;
use crate::kit::cli::Failure;
use crate::kit::ending::Ending;
use crate::kit::limits::Room;
use crate::kit::loading::Loading;
use crate::kit::signals;
use crate::kit::signals::Order;
use crate::kit::signals::Signals;
use crate::kit::state::Certificate;
use crate::kit::state::Destination;
use crate::kit::state::Reload;
use crate::kit::state::Source;
use crate::kit::state::Totals;
use crate::kit::state::Watching;
use crate::kit::units::listed;
use crate::kit::workers;
use crate::kit::workers::Job;
use crate::kit::workers::Workers;

/// Runs the proxy until a signal ends it.
pub(super) async fn serve(args: &Args, given: Value, plan: Plan, tool: Option<Tool>) -> Result<(), Failure> {
    // Before any rule is set, so that no signal leaves one behind.
    let mut signals =
        Signals::install().map_err(|error| Failure::Runtime(format!("cannot handle signals: {error}")))?;
    let using = match plan.rules.intercept {
        Intercept::Redirect => "Using NAT rules for iptables",
        _ => "Using Tproxy rules for iptables",
    };
    tracing::info!(target: "tproxy_poc", "{using}");
    tracing::info!(target: "tproxy_poc", "Setting up listener");
    let workers = args.proxy.workers.map_or_else(workers::usual, usize::from);
    let listeners = listen(args, &plan, workers)?;
    let admin = args.proxy.metrics.map(|addr| {
        AdminSocket::open(addr)
            .map_err(|error| Failure::Runtime(format!("cannot listen at {addr} for --metrics: {error}")))
    });
    let admin = admin.transpose()?;
    let wire = Arc::new(Wire::new(&args.proxy, &plan, Loops::new(plan.addrs.clone(), tool.is_some())));
    let watch = match tool {
        None => {
            check(&plan);
            None
        }
        Some(tool) => {
            tracing::info!(target: "tproxy_poc", "Setting up iptables");
            tracing::info!(target: "tproxy_poc", "Configuring route table");
            let applied = rules::apply(plan.rules.clone(), tool)?;
            let intact = wire.metrics.rules_intact.clone();
            Some(Arc::new(Watch::new(applied, args.proxy.keep_rules, intact)))
        }
    };
    let intercept = plan.rules.intercept;
    let ending = Ending::after(release(watch.clone()), Drain::new(), args.proxy.drain_timeout);
    let of_process = Room::of_process(&wire.metrics.registry);
    let own = args.proxy.max_connections.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
    let own = own.map(|most| Room::new("--max-connections", most));
    let rooms = [of_process].into_iter().chain(own).collect();
    let serving = Serving { args, given, intercept, wire, ending, rooms, watch: watch.clone() };
    let result = serving.run(listeners, admin, &mut signals).await;
    if let Some(watch) = watch {
        watch.remove()?;
    }
    result
}

/// Looks at rules that somebody else has set, if it may.
fn check(plan: &Plan) {
    if privileges::for_rules().is_err() {
        tracing::info!(target: "tproxy_poc", "rules of somebody else, which cannot be looked at without CAP_NET_ADMIN");
        return;
    }
    match rules::check_any(plan.rules.clone()) {
        Ok(differences) => {
            if let Some(difference) = differences.first() {
                let differences = differences.len();
                tracing::warn!(target: "tproxy_poc", differences, first = %difference, "the rules that somebody else has set differ");
            }
        }
        Err(error) => tracing::warn!(target: "tproxy_poc", %error, "cannot look at the rules"),
    }
}

/// A proxy whose sockets listen and whose rules are set.
struct Serving<'a> {
    args: &'a Args,
    /// The arguments as pages show them.
    given: Value,
    intercept: Intercept,
    wire: Arc<Wire>,
    ending: Ending,
    rooms: Vec<Room>,
    /// The rules that are its own.
    watch: Option<Arc<Watch>>,
}

impl Serving<'_> {
    /// Serves until the drain has finished.
    async fn run(
        self,
        listeners: Vec<Vec<TcpListener>>,
        admin: Option<AdminSocket>,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let workers = Workers::start(self.jobs(listeners)).map_err(Failure::runtime)?;
        let kept = if self.watch.is_some() { Keep::SocketsAndRules } else { Keep::Sockets };
        let control = privileges::keep(kept).map_err(Failure::runtime)?;
        tracing::info!(target: "tproxy_poc", control, "capabilities");
        let admin = admin.map(|socket| socket.serve(self.pages())).transpose().map_err(Failure::runtime)?;
        let mut watching = JoinSet::new();
        self.rooms.iter().cloned().for_each(|room| {
            watching.spawn(room.watch(self.ending.drain().clone()));
        });
        let status = format!("serving at {}", listed(&self.args.intercept.addr));
        let ended = workers.until_ended(&self.ending);
        if let Some(watch) = &self.watch {
            // What is left of it ends with the runtime.
            watching.spawn(watch::run(Arc::clone(watch)));
        }
        let heed = |order| match &self.watch {
            Some(watch) if order == Order::Reload => watch.ask_again(),
            _ => signals::nothing_to_do(order),
        };
        let result = match self.ending.serve(ended, &status, signals, heed).await {
            Ok(result) => result.map_err(Failure::runtime),
            Err(interrupted) => Err(Failure::runtime(interrupted)),
        };
        watching.abort_all();
        if let Some(admin) = admin {
            admin.end().await;
        }
        result
    }

    fn pages(&self) -> Router {
        let registry = self.wire.metrics.registry.clone();
        let knows = Knows {
            wire: Arc::clone(&self.wire),
            rooms: self.rooms.clone(),
            given: self.given.clone(),
            loading: Loading::new(&registry, None),
            drain: self.ending.drain().clone(),
            watch: self.watch.clone(),
        };
        admin::pages(registry, || {}, Watching::new("tproxy-poc", knows))
            .get("/", |request| admin::front(request, || status(StatusCode::NOT_FOUND)))
    }

    /// What each worker does.
    fn jobs(&self, listeners: Vec<Vec<TcpListener>>) -> Vec<Vec<Job>> {
        let intercept = self.intercept;
        let job = |listener| {
            let (wire, drain) = (Arc::clone(&self.wire), self.ending.drain().clone());
            let limits: Vec<_> = self.rooms.iter().map(Room::limit).collect();
            Job::new("server", async move {
                privileges::keep(Keep::Sockets)?;
                let listener = Listener::from_std(listener)?.intercepting(Some(intercept))?;
                let server = limits.into_iter().fold(Server::from_listener(listener), Server::share_limit);
                server.serve(service_fn(move |conn| Arc::clone(&wire).serve(conn)), drain).await
            })
        };
        listeners.into_iter().map(|listeners| listeners.into_iter().map(job).collect()).collect()
    }
}

/// What this program knows about itself.
struct Knows {
    wire: Arc<Wire>,
    rooms: Vec<Room>,
    given: Value,
    loading: Loading,
    drain: Drain,
    watch: Option<Arc<Watch>>,
}

impl Source for Knows {
    fn totals(&self) -> Totals {
        self.wire.metrics.totals()
    }

    fn destinations(&self, _: usize) -> (Vec<Destination>, usize) {
        // Clients say themselves where they go.
        (Vec::new(), 0)
    }

    fn towards(&self) -> Option<String> {
        Some(self.wire.server.in_words())
    }

    fn certificates(&self) -> Vec<Certificate> {
        Vec::new()
    }

    fn unready(&self) -> Vec<String> {
        let draining = self.drain.is_started().then(|| "draining".into());
        draining.into_iter().chain(self.watch.as_ref().and_then(|watch| watch.reason())).collect()
    }

    fn problems(&self) -> Vec<String> {
        self.rooms.iter().filter_map(Room::problem).collect()
    }

    fn config(&self) -> Value {
        self.given.clone()
    }

    fn reload(&self) -> Reload {
        self.loading.state()
    }
}

/// Sends new connections past the proxy.
async fn release(watch: Option<Arc<Watch>>) {
    if let Some(watch) = watch {
        let released = task::spawn_blocking(move || watch.release()).await;
        if let Ok(Err(error)) = released {
            tracing::error!(target: "tproxy_poc", %error, "connections still come here");
        }
    }
}

/// The sockets of each worker, one for each address.
fn listen(args: &Args, plan: &Plan, workers: usize) -> Result<Vec<Vec<TcpListener>>, Failure> {
    let has_v4 = plan.addrs.iter().any(SocketAddr::is_ipv4);
    let options = ListenOptions::default()
        .with_backlog(args.proxy.backlog)
        .with_intercept(Some(plan.rules.intercept))
        .with_only_v6(has_v4);
    let mut all: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for addr in &plan.addrs {
        let (_, sockets) = workers::listen(*addr, &options, workers)
            .map_err(|error| Failure::Runtime(format!("cannot listen at {addr}: {error}")))?;
        all.iter_mut().zip(sockets).for_each(|(worker, socket)| worker.push(socket));
    }
    Ok(all)
}
