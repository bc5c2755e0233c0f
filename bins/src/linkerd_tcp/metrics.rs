//! Metrics under the names of the original program.
//!
//! Which names there are follows from the language of the configuration: files with `proxies` give the names of 0.0.x,
//! files with `routers` those of 0.1.x. Dashboards made for either go on working.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use meshlib::Endpoint;
use meshlib::Error;
use meshlib::balance::ReplicaState;
use meshlib::balance::View;
use meshlib::observe::Observer;
use meshlib::observe::prometheus::Gauge;
use meshlib::observe::prometheus::Registry;
use meshlib::observe::prometheus::RegistryOptions;

use super::config::Generation;
use super::config::model::Server;
use crate::kit::metrics::of_process;
use crate::kit::state::Totals;

mod both_languages;
mod proxies;
mod routers;

/// All metrics of a process.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) registry: Registry,
    generation: Generation,
    /// The streams at an address, whichever of the servers that were there one after the other has them.
    streams: Arc<Mutex<BTreeMap<(String, SocketAddr), Gauge>>>,
}

/// What a series is about, as far as it says so.
#[derive(Debug)]
pub(super) struct About<'a> {
    pub(super) label: &'a str,
    pub(super) addr: Option<&'a str>,
    pub(super) dst: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
}

impl Metrics {
    /// `window` is how far minima, maxima and percentiles look back.
    pub(super) fn new(generation: Generation, window: Duration) -> Self {
        let registry = Registry::with_options(RegistryOptions::default().with_window(window));
        of_process(&registry, "linkerd-tcp");
        if generation == Generation::Proxies {
            registry.series_gauge("metrics_count", "Number of series.");
        }
        Self { registry, generation, streams: Arc::default() }
    }

    /// What happens at a listening address. Handshakes are counted where there are any.
    pub(super) fn server(&self, label: &str, addr: SocketAddr, server: &Server) -> Arc<dyn Observer> {
        let registry = &self.registry;
        let tls = server.tls.is_some();
        let original: Arc<dyn Observer> = match self.generation {
            Generation::Proxies => Arc::new(proxies::Server::new(registry, label, addr, tls)),
            Generation::Routers => {
                let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
                let streams = streams.entry((label.to_owned(), addr)).or_default().clone();
                Arc::new(routers::Server::new(registry, label, addr, &server.dst, tls, streams))
            }
        };
        Arc::new(both_languages::Server::new(registry, label, &server.dst, tls, original))
    }

    /// What has been served since the start.
    pub(super) fn totals(&self) -> Totals {
        both_languages::totals(&self.registry)
    }

    /// Forgets series that are about what is gone.
    pub(super) fn retain(&self, lives: impl Fn(&About<'_>) -> bool) {
        self.registry.forget(|_, labels| {
            let Some(label) = ["proxy", "rt", "router"].into_iter().find_map(|name| labels.get(name)) else {
                return false;
            };
            let addr = labels.get("srv").or_else(|| labels.get("srv_addr"));
            !lives(&About { label, addr, dst: labels.get("dst"), namespace: labels.get("namespace") })
        });
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|(label, addr), _| {
            lives(&About { label, addr: Some(&addr.to_string()), dst: None, namespace: None })
        });
    }

    /// What happens on the way to the endpoints of `dst`.
    pub(super) fn destination(&self, label: &str, dst: &str) -> Arc<dyn Observer> {
        match self.generation {
            Generation::Proxies => Arc::new(proxies::Destination::new(&self.registry, label)),
            Generation::Routers => Arc::new(routers::Destination::new(&self.registry, label, dst)),
        }
    }

    /// What a balancer knows, read when the metrics are. `spares` counts connections that wait for a client.
    pub(super) fn balancer(
        &self,
        label: &str,
        dst: &str,
        view: &View,
        spares: impl Fn() -> usize + Clone + Send + Sync + 'static,
    ) {
        both_languages::balancer(&self.registry, label, dst, view);
        match self.generation {
            Generation::Proxies => proxies::balancer(&self.registry, label, view, spares),
            Generation::Routers => routers::balancer(&self.registry, label, dst, view),
        }
    }

    /// What happens when namerd is asked.
    pub(super) fn resolver(&self, label: &str, namespace: &str) -> Arc<dyn Observer> {
        match self.generation {
            Generation::Proxies => Arc::new(proxies::Resolver::new(&self.registry)),
            Generation::Routers => Arc::new(routers::Resolver::new(&self.registry, label, namespace)),
        }
    }
}

/// Says which endpoint of a destination could not be connected, and why.
fn log_failure(router: &str, dst: &str, endpoint: &Endpoint, error: &Error) {
    tracing::info!(
        target: "linkerd_tcp::balancer::endpoint",
        router,
        dst,
        endpoint = %endpoint.addr,
        error = %error.chain(),
        "cannot connect"
    );
}

/// How many endpoints of a balancer are in one of these states; `None` if the balancer is gone.
fn endpoints(view: &View, counted: impl Fn(ReplicaState) -> bool) -> f64 {
    view.state().map_or(0.0, |state| {
        state.replicas.replicas().iter().filter(|replica| counted(replica.state())).count() as f64
    })
}

/// Endpoints that left discovery while connections to them live.
fn retired(view: &View) -> f64 {
    view.state().map_or(0.0, |state| state.retired as f64)
}

/// Connections that are being opened.
fn connecting(view: &View) -> f64 {
    let count = |state: meshlib::balance::ViewState| {
        // Added up as integers: the sum of no floats at all is minus zero.
        state.replicas.replicas().iter().map(|replica| u64::from(replica.connecting())).sum::<u64>() as f64
    };
    view.state().map_or(0.0, count)
}
