//! Pages for operators.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use http::StatusCode;
use meshlib::Drain;
use meshlib::balance::View;
use meshlib::http::admin::Access;
use meshlib::http::admin::Router;
use meshlib::http::admin::status;
use meshlib::observe::prometheus::Registry;
use serde_json::Value;

use super::config::Generation;
use super::config::model;
use super::metrics::Metrics;
use super::own::Own;
use super::tls;
use super::tls::ClientTls;
use super::tls::ServerTls;
use crate::kit::admin;
use crate::kit::ending::Ending;
use crate::kit::limits::Room;
use crate::kit::load::ConfigError;
use crate::kit::loading::Loading;
use crate::kit::reasons::Reasons;
use crate::kit::state::Certificate;
use crate::kit::state::Destination;
use crate::kit::state::Reload;
use crate::kit::state::Source;
use crate::kit::state::Totals;
use crate::kit::state::Watching;
use crate::kit::state::endpoints;

/// What pages show of the configuration in force.
#[derive(Default)]
pub(super) struct Shown(Mutex<Current>);

#[derive(Default)]
struct Current {
    config: Value,
    destinations: Arc<[ShownDestination]>,
    tls: Arc<ShownTls>,
    /// The limits of servers.
    rooms: Vec<Room>,
}

/// What is made of files with certificates, each with the label of its router.
#[derive(Default)]
pub(super) struct ShownTls {
    pub(super) servers: Vec<(String, model::ServerTls, Arc<ServerTls>)>,
    pub(super) clients: Vec<(String, Arc<ClientTls>)>,
    /// The certificates that others are shown.
    pub(super) own: Arc<Own>,
}

impl ShownTls {
    /// The label of each router, a role, and why what is used in it is older than the files, if it is.
    fn loaded(&self) -> impl Iterator<Item = (&str, &'static str, Option<String>)> {
        let servers =
            self.servers.iter().map(|(router, _, tls)| (router.as_str(), "server", why(tls.failure())));
        let clients =
            self.clients.iter().map(|(router, tls)| (router.as_str(), "client", why(tls.failure())));
        servers.chain(clients)
    }
}

/// In one line.
fn why(failure: Option<Arc<ConfigError>>) -> Option<String> {
    let problems = failure?.problems().iter().map(|problem| problem.text.clone()).collect::<Vec<_>>();
    Some(problems.join("; "))
}

/// A destination with the servers that lead to it.
pub(super) struct ShownDestination {
    pub(super) router: String,
    pub(super) dst: String,
    pub(super) listens: Vec<String>,
    /// Absent where the destination depends on the client.
    pub(super) view: Option<View>,
    pub(super) reasons: Reasons,
    pub(super) tls: Option<String>,
}

impl Shown {
    /// Shows another configuration from now on.
    pub(super) fn set(
        &self,
        config: Value,
        destinations: Vec<ShownDestination>,
        tls: ShownTls,
        rooms: Vec<Room>,
    ) {
        *self.lock() = Current { config, destinations: destinations.into(), tls: Arc::new(tls), rooms };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn destinations(&self) -> Arc<[ShownDestination]> {
        Arc::clone(&self.lock().destinations)
    }

    fn tls(&self) -> Arc<ShownTls> {
        Arc::clone(&self.lock().tls)
    }

    /// The certificates that clients are shown, and those that endpoints and namerd are. The latter are as their files were a
    /// few seconds ago; these are followed, but namerd's are used again after HUP only.
    fn certificates(&self) -> Vec<Certificate> {
        let shown = self.tls();
        let mut certificates = Vec::new();
        // Servers may share them.
        let mut seen = HashSet::new();
        for (_, settings, tls) in &shown.servers {
            let failure = why(tls.failure()).map(|why| format!("its files cannot be loaded: {why}"));
            for (identity, leaf) in tls::shown(settings, tls) {
                let file = identity.certs.first().map(|file| file.path.display().to_string());
                if !seen.contains(&leaf) {
                    let mut certificate = Certificate::of(&leaf, "server", file);
                    certificate.error = certificate.error.or_else(|| failure.clone());
                    certificates.push(certificate);
                    seen.insert(leaf);
                }
            }
        }
        for (path, leaf) in shown.own.leaves() {
            if !seen.contains(leaf.as_ref()) {
                certificates.push(Certificate::of(&leaf, "client", Some(path.display().to_string())));
                seen.insert(leaf.to_vec());
            }
        }
        certificates
    }
}

/// What this program knows about itself.
pub(super) struct Knows {
    pub(super) shown: Arc<Shown>,
    pub(super) metrics: Metrics,
    pub(super) room: Room,
    pub(super) loading: Loading,
    pub(super) drain: Drain,
}

impl Source for Knows {
    fn totals(&self) -> Totals {
        self.metrics.totals()
    }

    fn destinations(&self, most: usize) -> (Vec<Destination>, usize) {
        let (mut room, mut left_off) = (most, 0);
        let shown = self.shown.destinations();
        let all = shown.iter().map(|shown| {
            let state = shown.view.as_ref().and_then(View::state);
            let mut destination = Destination {
                router: shown.router.clone(),
                dst: shown.dst.clone(),
                listens: shown.listens.clone(),
                answer: if shown.view.is_some() { "pending" } else { "sni" }.to_owned(),
                ..Destination::default()
            };
            if let Some(state) = &state {
                left_off += endpoints(&mut destination, state, &mut room, |_, row| {
                    row.tls.clone_from(&shown.tls);
                    shown.reasons.explain(row);
                });
            }
            destination
        });
        (all.collect(), left_off)
    }

    fn certificates(&self) -> Vec<Certificate> {
        self.shown.certificates()
    }

    fn read_files(&self) {
        self.shown.tls().own.read();
    }

    fn unready(&self) -> Vec<String> {
        let shown = self.shown.destinations();
        let unresolved = shown.iter().filter_map(|shown| {
            let state = shown.view.as_ref()?.state().filter(|state| state.resolved.is_none())?;
            Some(format!("{}: {} is not resolved yet", shown.router, state.name))
        });
        self.drain.is_started().then(|| "draining".into()).into_iter().chain(unresolved).collect()
    }

    fn problems(&self) -> Vec<String> {
        let tls = self.shown.tls();
        let old = tls.loaded().filter_map(|(router, role, why)| {
            Some(format!(
                "{router}: files of its {role} TLS cannot be loaded, those from before are used: {}",
                why?
            ))
        });
        // Servers may share them.
        let old: BTreeSet<_> = old.collect();
        let rooms = self.shown.lock().rooms.clone();
        let full = rooms.iter().chain([&self.room]).filter_map(Room::problem);
        old.into_iter().chain(full).collect()
    }

    fn config(&self) -> Value {
        self.shown.lock().config.clone()
    }

    fn reload(&self) -> Reload {
        self.loading.state()
    }
}

/// The pages that all programs have, and by POST `/shutdown` and `/abort`.
pub(super) fn pages(
    settings: &model::Admin,
    generation: Generation,
    knows: Knows,
    ending: &Ending,
) -> Router {
    // Generation A listens on all interfaces unless told otherwise; reading is harmless there, stopping is not.
    let open = settings.explicit_addr || generation == Generation::Routers;
    let access = if open { Access::Anybody } else { Access::Loopback };
    let registry = knows.metrics.registry.clone();
    let refresh = {
        let (registry, shown) = (registry.clone(), Arc::clone(&knows.shown));
        move || {
            expiries(&registry, &shown);
            loaded(&registry, &shown);
        }
    };
    let ending = ending.clone();
    admin::pages(registry, refresh, Watching::new("linkerd-tcp", knows))
        .hiding_methods()
        // The original has nothing there.
        .get("/", |request| admin::front(request, || status(StatusCode::NOT_FOUND)))
        .post("/shutdown", access, move |_| {
            if ending.begin() {
                tracing::info!(target: "linkerd_tcp::app", grace = ?ending.grace(), "asked to shut down; draining");
            }
            status(StatusCode::OK)
        })
        .post("/abort", access, |_| {
            tracing::error!(target: "linkerd_tcp::admin", "asked to abort");
            std::process::exit(1)
        })
}

/// When certificates end, as metrics.
fn expiries(registry: &Registry, shown: &Shown) {
    const NAME: &str = "tls_certificate_not_after_timestamp_seconds";

    registry.forget(|name, _| name == NAME);
    for certificate in shown.certificates() {
        let Some(not_after) = certificate.not_after_ms else { continue };
        let subject = certificate.names.first().map_or("", String::as_str);
        let labels = [("subject", subject)];
        let gauge = registry.gauge(NAME, "When a certificate ends.", &labels);
        let seconds = i64::try_from(not_after / 1000).unwrap_or(i64::MAX);
        // Of several for one name the first to end is the one to worry about.
        if gauge.get() == 0 || seconds < gauge.get() {
            gauge.set(seconds);
        }
    }
}

/// Whether what is made of files is what is in them, as metrics.
fn loaded(registry: &Registry, shown: &Shown) {
    const NAME: &str = "tls_last_reload_successful";
    const HELP: &str = "Whether the certificates, keys and authorities that a router uses towards clients and endpoints are those in its files now.";

    registry.forget(|name, _| name == NAME);
    let tls = shown.tls();
    let mut all: BTreeMap<_, bool> = BTreeMap::new();
    for (router, role, why) in tls.loaded() {
        *all.entry((router, role)).or_insert(true) &= why.is_none();
    }
    for ((router, role), good) in all {
        registry.gauge(NAME, HELP, &[("role", role), ("router", router)]).set(good.into());
    }
}
