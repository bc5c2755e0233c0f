//! A configuration with every socket it needs, and running it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join;
use meshlib::Drain;
use meshlib::Draining;
use tokio::task::JoinSet;

use super::Prepared;
use super::admin::Knows;
use super::admin::Shown;
use super::admin::pages;
use super::config::Generation;
use super::metrics::Metrics;
use super::reload::Reloads;
use super::running::Plan;
use super::running::Running;
use crate::kit::admin::AdminSocket;
use crate::kit::ending::Ending;
use crate::kit::limits::Room;
use crate::kit::load;
use crate::kit::load::ConfigError;
use crate::kit::load::Problem;
use crate::kit::loading::Loading;
use crate::kit::sockets::Passed;
use crate::kit::workers;
use crate::kit::workers::Job;
use crate::kit::workers::Workers;

/// Everything that can fail before the first connection has not.
#[derive(Debug)]
pub struct Bound {
    plan: Plan,
    workers: usize,
    admin: AdminSocket,
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
        let settings = self.config.admin.clone();
        let whole = self.config.place.clone();
        let metrics = Metrics::new(self.config.generation, settings.metrics_interval);
        let passed_admin = passed.next("admin");
        let plan = Plan::first(self, workers, &mut passed);
        let admin = match passed_admin {
            Some(socket) => AdminSocket::from_std(socket),
            None => AdminSocket::open(settings.addr),
        };
        passed.close_rest();
        let admin = admin.map_err(|error| {
            let text = format!("cannot listen at {} for admin requests: {error}", settings.addr);
            Problem::new(settings.place.unwrap_or(whole), text)
        });
        match (plan, admin) {
            (Ok(plan), Ok(admin)) => Ok(Bound { plan, workers, admin, metrics }),
            (Ok(_), Err(problem)) => Err(problem.into()),
            (Err(error), Ok(_)) => Err(error),
            (Err(error), Err(problem)) => Err(ConfigError::new(problem, error.problems().iter().cloned())),
        }
    }
}

impl Bound {
    /// Where each server listens, in the order of the configuration.
    pub fn servers(&self) -> impl Iterator<Item = SocketAddr> {
        self.plan.addrs()
    }

    /// Where admin requests are answered.
    pub fn admin(&self) -> SocketAddr {
        self.admin.addr()
    }

    /// Whether the admin address must be printed on stdout, as scripts of generation A expect.
    pub(super) fn announces_admin(&self) -> bool {
        self.plan.prepared.config.generation == Generation::Proxies
    }

    /// Serves until it has ended. Whoever asks for `/shutdown` begins the end, too. What `reloads` gives replaces what is
    /// served, as a whole or not at all.
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
    pub async fn run(self, ending: Ending, reloads: Reloads) -> io::Result<()> {
        let Self { plan, workers, admin, metrics } = self;
        let drain = ending.drain();
        let cut_off = ForceOnDrop(Some(drain.clone()));
        let (workers, hands) = Workers::waiting(workers)?;
        hands.give((0..hands.count()).map(|_| Job::new("the drain", stays(drain.clone(), drain.draining()))));
        let shown = Arc::new(Shown::default());
        let room = Room::of_process(&metrics.registry);
        let mut watching = JoinSet::new();
        watching.spawn(room.clone().watch(drain.clone()));
        let loading = Loading::new(&metrics.registry, reloads.source());
        let settings = plan.prepared.config.admin.clone();
        let generation = plan.prepared.config.generation;
        let mut running =
            Running::new(hands, drain.clone(), metrics.clone(), Arc::clone(&shown), room.limit());
        running.switch(plan);
        let knows = Knows { shown, metrics, room, loading: loading.clone(), drain: drain.clone() };
        let pages = pages(&settings, generation, knows, &ending);
        let admin = admin.serve(pages)?;
        let reloading = reload(running, reloads, loading, drain);
        let (result, ()) = join(workers.until_ended(&ending), reloading).await;
        cut_off.disarm();
        admin.end().await;
        result.map_err(io::Error::other)
    }

    /// How long streams may go on when the program is told to end.
    pub fn grace(&self) -> Duration {
        self.plan.prepared.config.admin.grace
    }
}

/// Replaces what runs whenever that is asked for, until the end begins.
async fn reload(mut running: Running, mut reloads: Reloads, loading: Loading, drain: &Drain) {
    let mut serving = running.summary();
    loop {
        tokio::select! {
            biased;
            () = drain.started() => return,
            () = reloads.asked() => {}
        }
        loading.begin();
        // Files may be slow, and the end does not wait for them.
        let loaded = tokio::select! {
            biased;
            () = drain.started() => return,
            loaded = reloads.load() => loaded,
        };
        let planned = loaded.and_then(|prepared| running.plan(prepared).map_err(|error| error.to_string()));
        if drain.is_started() {
            return;
        }
        match planned {
            Ok(plan) => {
                let later = running.switch(plan);
                serving = running.summary();
                tracing::info!(target: "linkerd_tcp::app", serving, "the configuration was loaded again");
                if !later.is_empty() {
                    let later = later.join(", ");
                    tracing::warn!(target: "linkerd_tcp::app", later, "changed, and in force after the next start");
                }
                loading.succeeded(&serving);
            }
            Err(error) => {
                let line = load::in_one_line(&error);
                tracing::error!(target: "linkerd_tcp::app", error = %line, "the configuration was not loaded again; all goes on as before");
                loading.failed(&error, &serving);
                // What is good of the files that are followed is used.
                running.look();
            }
        }
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
