//! Metrics, health, and the rules in force, on an address of their own.

use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use meshlib::Drain;
use meshlib::http::admin::Router;
use meshlib::http::admin::json;
use meshlib::http::admin::text;
use meshlib::observe::prometheus::Registry;
use meshlib::tls::acme::Manager;
use meshlib::tls::acme::NameState;
use meshlib::tls::acme::NameView;
use meshlib_consul::Consul;
use serde_json::Value;

use super::metrics::Metrics;
use super::parts::Parts;
use super::route::Current;
use super::shown::Shown;
use crate::kit::admin;
use crate::kit::limits::Room;
use crate::kit::loading::Loading;
use crate::kit::state::Certificate;
use crate::kit::state::Destination;
use crate::kit::state::Reload;
use crate::kit::state::Source;
use crate::kit::state::Totals;
use crate::kit::state::Watching;
use crate::kit::state::unix_ms;

/// What this program knows about itself. A clone knows the same.
#[derive(Clone)]
pub(super) struct Knows {
    metrics: Metrics,
    manager: Manager,
    current: Arc<Current>,
    shown: Arc<Shown>,
    given: Value,
    loading: Loading,
    drain: Drain,
    room: Room,
}

impl Knows {
    /// `given` are the arguments in force.
    pub(super) fn new(parts: &Parts, given: Value, loading: Loading, drain: Drain, room: Room) -> Self {
        Self {
            metrics: parts.metrics.clone(),
            manager: parts.manager.clone(),
            current: Arc::clone(&parts.current),
            shown: Arc::clone(&parts.shown),
            given,
            loading,
            drain,
            room,
        }
    }
}

impl Source for Knows {
    fn totals(&self) -> Totals {
        self.metrics.totals()
    }

    fn destinations(&self, most: usize) -> (Vec<Destination>, usize) {
        self.shown.destinations(most)
    }

    fn certificates(&self) -> Vec<Certificate> {
        let certificate = |view: NameView| Certificate {
            names: vec![view.name.to_string()],
            role: "server".to_owned(),
            not_after_ms: view.not_after.map(unix_ms),
            state: view.state.as_str().to_owned(),
            error: view.error.as_deref().map(str::to_owned),
            ..Certificate::default()
        };
        self.manager.view().into_iter().map(certificate).collect()
    }

    fn unready(&self) -> Vec<String> {
        let reason = match (self.drain.is_started(), self.current.get().is_some()) {
            (true, _) => Some("draining"),
            (false, false) => Some("nothing is known from Consul yet"),
            (false, true) => None,
        };
        reason.map(String::from).into_iter().collect()
    }

    fn problems(&self) -> Vec<String> {
        self.shown.problems().into_iter().chain(self.room.problem()).collect()
    }

    fn config(&self) -> Value {
        self.given.clone()
    }

    fn reload(&self) -> Reload {
        self.loading.state()
    }
}

/// The pages of the admin address.
pub(super) fn pages(knows: Knows, consul: Consul) -> Router {
    let registry = knows.metrics.registry.clone();
    let (healthy, shown, looked_at) = (knows.clone(), Arc::clone(&knows.shown), knows.clone());
    let refresh = move || refresh(&looked_at.metrics, &consul, &looked_at.manager, &looked_at.shown);
    admin::pages(registry, refresh, Watching::new("tricot", knows))
        .get("/", |request| admin::front(request, || text(PATHS)))
        .get("/healthz", move |_| match healthy.unready().pop() {
            None => text("ok\n"),
            Some(reason) => {
                let mut answer = text(reason + "\n");
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                answer
            }
        })
        .get("/rules", move |_| json(shown.rules().to_string()))
}

const PATHS: &str = "\
/dashboard     all of this for people
/metrics       numbers for Prometheus
/live          that the program runs
/ready         that it is ready, or why no requests should be sent here
/healthz       the same, as ok
/rules         the rules in force with their instances, in JSON
/state.json    all that the program knows of itself
/history.json  the last ten minutes, a point for every five seconds
/names.json    the rules with their instances, as other tools show them
/certs.json    the certificates
/config.json   the arguments and variables in force
/log-level     what is logged; PUT /log-level?filter=tricot=debug changes it
";

/// Brings the numbers up to date that are looked at rather than counted.
fn refresh(metrics: &Metrics, consul: &Consul, manager: &Manager, shown: &Shown) {
    let registry = &metrics.registry;
    contacts(registry, consul);
    for ((service, state), n) in shown.backends() {
        let labels = [("service", &*service), ("state", state)];
        registry.gauge("tricot_backends", "Instances under rules, by how they do.", &labels).set(n);
    }
    if let Some(age) = shown.age() {
        registry
            .gauge("tricot_table_age_seconds", "Time since the table was made.", &[])
            .set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    }
    let mut certificates =
        [NameState::Valid, NameState::Renewing, NameState::SelfSigned, NameState::BackingOff]
            .map(|state| (state, 0));
    registry.forget(|name, _| name == "tricot_certificate_not_after_seconds");
    for view in manager.view() {
        certificates.iter_mut().filter(|(state, _)| *state == view.state).for_each(|(_, n)| *n += 1);
        let not_after = view.not_after.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        if let Some(not_after) = not_after {
            registry
                .gauge(
                    "tricot_certificate_not_after_seconds",
                    "When a certificate ends.",
                    &[("name", &view.name)],
                )
                .set(i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX));
        }
    }
    for (state, n) in certificates {
        let labels = [("state", state.as_str())];
        registry
            .gauge("tricot_certificates", "Names that need a certificate, by how they stand.", &labels)
            .set(n);
    }
}

/// How often Consul was asked.
fn contacts(registry: &Registry, consul: &Consul) {
    let stats = consul.stats();
    for (endpoint, counts) in stats.endpoints {
        for (name, help, count) in [
            ("tricot_consul_requests_total", "Requests to Consul that have ended.", counts.requests),
            ("tricot_consul_errors_total", "Requests to Consul without a good answer.", counts.errors),
            (
                "tricot_consul_index_resets_total",
                "How often an index of Consul went back.",
                counts.index_resets,
            ),
        ] {
            let counter = registry.counter(name, help, &[("endpoint", endpoint)]);
            // The admin server runs on one thread, and nobody else counts here.
            counter.add(count.saturating_sub(counter.get()));
        }
    }
    let seconds = stats.last_contact.map_or(-1, |ago| i64::try_from(ago.as_secs()).unwrap_or(i64::MAX));
    registry
        .gauge(
            "tricot_consul_last_contact_seconds",
            "Time since Consul last answered; -1 if it never has.",
            &[],
        )
        .set(seconds);
}
