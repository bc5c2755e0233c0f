//! Serving until a signal ends it.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use meshlib::Drain;
use meshlib::ListenOptions;
use meshlib::Listener;
use meshlib::Server;
use meshlib::tproxy::Intercept;
use meshlib::tproxy::rules::Tool;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::Semaphore;
use tokio::task;
use tower::service_fn;

use super::Failure;
use super::args::Args;
use super::loops::Loops;
use super::pages;
use super::plan::Plan;
use super::privileges;
use super::privileges::Keep;
use super::rules;
use super::rules::Applied;
use super::wire::Wire;
use crate::log;
use crate::workers;
use crate::workers::Job;
use crate::workers::Workers;

/// Runs the proxy until a signal ends it.
pub(super) async fn serve(args: &Args, plan: Plan, tool: Option<Tool>) -> Result<(), Failure> {
    // Before any rule is set, so that no signal leaves one behind.
    let mut signals = Signals::install()?;
    let using = match plan.rules.intercept {
        Intercept::Redirect => "Using NAT rules for iptables",
        _ => "Using Tproxy rules for iptables",
    };
    tracing::info!(target: "tproxy_poc", "{using}");
    tracing::info!(target: "tproxy_poc", "Setting up listener");
    let workers = args.workers.map_or_else(workers::usual, usize::from);
    let listeners = listen(args, &plan, workers)?;
    let metrics_server = args.metrics.map(pages::listen).transpose()?;
    let wire = Arc::new(Wire::new(args, &plan, Loops::new(plan.addrs.clone(), tool.is_some())));
    let applied = match tool {
        None => {
            check(&plan);
            None
        }
        Some(tool) => {
            tracing::info!(target: "tproxy_poc", "Setting up iptables");
            tracing::info!(target: "tproxy_poc", "Configuring route table");
            let applied = rules::apply(plan.rules.clone(), tool)?;
            (!args.keep_rules).then(|| Arc::new(applied))
        }
    };
    let intercept = plan.rules.intercept;
    let serving = Serving { args, intercept, wire, drain: Drain::new(), applied: applied.clone() };
    let result = serving.run(listeners, metrics_server, &mut signals).await;
    if let Some(applied) = applied {
        applied.remove()?;
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
            for difference in differences {
                tracing::warn!(target: "tproxy_poc", %difference, "the rules that somebody else has set differ");
            }
        }
        Err(error) => tracing::warn!(target: "tproxy_poc", %error, "cannot look at the rules"),
    }
}

/// A proxy whose sockets listen and whose rules are set.
struct Serving<'a> {
    args: &'a Args,
    intercept: Intercept,
    wire: Arc<Wire>,
    drain: Drain,
    /// Rules that go when the proxy does.
    applied: Option<Arc<Applied>>,
}

impl Serving<'_> {
    /// Serves until the drain has finished.
    async fn run(
        self,
        listeners: Vec<Vec<TcpListener>>,
        pages: Option<Server>,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::Runtime(error.to_string());
        let mut workers = Workers::start(self.jobs(listeners)).map_err(failed)?;
        let kept = if self.applied.is_some() { Keep::SocketsAndRules } else { Keep::Sockets };
        let control = privileges::keep(kept).map_err(failed)?;
        tracing::info!(target: "tproxy_poc", control, "capabilities");
        let pages_drain = Drain::new();
        let pages = pages.map(|server| {
            tracing::info!(target: "tproxy_poc", addr = %server.local_addr(), "metrics");
            tokio::spawn(server.serve(pages::pages(&self.wire.metrics, &self.drain), pages_drain.clone()))
        });
        let result = self.until_ended(&mut workers, signals).await;
        pages_drain.finish(Duration::from_millis(500)).await;
        if let Some(pages) = pages {
            pages.abort();
        }
        result
    }

    /// What each worker does.
    fn jobs(&self, listeners: Vec<Vec<TcpListener>>) -> Vec<Vec<Job>> {
        let limit = self.args.max_connections.map(|most| {
            Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)))
        });
        let intercept = self.intercept;
        let job = |listener| {
            let (wire, drain, limit) = (Arc::clone(&self.wire), self.drain.clone(), limit.clone());
            Job::new("server", async move {
                privileges::keep(Keep::Sockets)?;
                let mut server =
                    Server::from_listener(Listener::from_std(listener)?.intercepting(Some(intercept))?);
                if let Some(limit) = limit {
                    server = server.share_limit(limit);
                }
                server.serve(service_fn(move |conn| Arc::clone(&wire).serve(conn)), drain).await
            })
        };
        listeners.into_iter().map(|listeners| listeners.into_iter().map(job).collect()).collect()
    }

    /// Waits until all workers have ended. A signal, and the first that fails, start the drain.
    async fn until_ended(&self, workers: &mut Workers, signals: &mut Signals) -> Result<(), Failure> {
        let mut first = None;
        let mut is_ending = false;
        loop {
            tokio::select! {
                failure = workers.failure() => match failure {
                    None => return first.map_or(Ok(()), Err),
                    Some(error) => {
                        let error = log::chain(&error);
                        tracing::error!(target: "tproxy_poc", error, "draining");
                        first.get_or_insert(Failure::Runtime(error));
                    }
                },
                signal = signals.next() => {
                    if is_ending {
                        return Err(Failure::Runtime(format!("a second signal ({signal}): exiting at once")));
                    }
                    tracing::info!(target: "tproxy_poc", signal, grace = ?self.args.drain_timeout, "draining");
                }
            }
            if !is_ending {
                is_ending = true;
                tokio::spawn(end(self.drain.clone(), self.args.drain_timeout, self.applied.clone()));
            }
        }
    }
}

/// Sends new connections past the proxy, then lets the others end.
async fn end(drain: Drain, grace: Duration, applied: Option<Arc<Applied>>) {
    if let Some(applied) = applied {
        let released = task::spawn_blocking(move || applied.release()).await;
        if let Ok(Err(error)) = released {
            tracing::error!(target: "tproxy_poc", %error, "connections still come here");
        }
    }
    drain.finish(grace).await;
}

/// The sockets of each worker, one for each address.
fn listen(args: &Args, plan: &Plan, workers: usize) -> Result<Vec<Vec<TcpListener>>, Failure> {
    let has_v4 = plan.addrs.iter().any(SocketAddr::is_ipv4);
    let options = ListenOptions::default()
        .with_backlog(args.backlog)
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

/// The signals that end the program, and the one that would leave its rules behind.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> Result<Self, Failure> {
        let install =
            |kind| signal(kind).map_err(|error| Failure::Runtime(format!("cannot handle signals: {error}")));
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hangup: install(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "TERM",
                _ = self.interrupt.recv() => return "INT",
                _ = self.hangup.recv() => {
                    tracing::info!(target: "tproxy_poc", signal = "HUP", "there is nothing to load again");
                }
            }
        }
    }
}
