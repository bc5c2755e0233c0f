//! Metrics, health, and the rules in force, on an address of their own.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::SystemTime;

use http::StatusCode;
use meshlib::Drain;
use meshlib::balance::ReplicaState;
use meshlib::http::admin::Router;
use meshlib::http::admin::json;
use meshlib::http::admin::text;
use meshlib::observe::prometheus::Registry;
use meshlib::tls::acme::Manager;
use meshlib::tls::acme::NameState;
use meshlib::tls::acme::NameView;
use meshlib_consul::Consul;
use serde_json::Value;
use tokio::time::Instant;

use super::backend::Backend;
use super::group::Group;
use super::metrics::Metrics;
use super::parts::Parts;
use super::route::Current;
use super::table::Builder;
use super::table::Unused;
use crate::admin;
use crate::loading::Loading;
use crate::state::Certificate;
use crate::state::Destination;
use crate::state::EndpointState;
use crate::state::Reload;
use crate::state::Source;
use crate::state::Totals;
use crate::state::Watching;
use crate::state::endpoints;
use crate::state::unix_ms;

/// What pages show of the table in force.
#[derive(Debug, Default)]
pub(super) struct Shown(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lines: Vec<Arc<str>>,
    groups: Vec<Arc<Group>>,
    unused: Vec<Unused>,
    /// How many instances of each service are unused.
    unused_of: Vec<(Arc<str>, usize)>,
    made: Option<Instant>,
    degraded: Option<String>,
}

impl Shown {
    /// Sets what pages show. `unused_of` says how many instances of each service are unused.
    pub(super) fn set(&self, builder: &Builder, unused_of: Vec<(Arc<str>, usize)>) {
        let mut state = self.lock();
        state.lines = builder.lines();
        state.groups = builder.groups().cloned().collect();
        state.unused = builder.unused();
        state.unused_of = unused_of;
        state.made = Some(Instant::now());
    }

    pub(super) fn set_degraded(&self, degraded: Option<String>) {
        self.lock().degraded = degraded;
    }

    fn groups(&self) -> Vec<Arc<Group>> {
        self.lock().groups.clone()
    }

    /// The rules with their instances and how these do.
    pub(super) fn rules(&self) -> Value {
        let (mut lines, mut groups, mut unused, degraded) = {
            let state = self.lock();
            (state.lines.clone(), state.groups.clone(), state.unused.clone(), state.degraded.clone())
        };
        unused.sort_by(|a, b| (&a.rule, &a.known.instance.id).cmp(&(&b.rule, &b.known.instance.id)));
        lines.sort_unstable();
        lines.dedup();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
        let groups: Vec<Value> = groups.iter().map(|group| rule(group, &unused)).collect();
        serde_json::json!({ "rules": groups, "text": lines, "degraded": degraded })
    }

    /// The rules with their instances, as they are shown by all programs, and how many instances were left off.
    fn destinations(&self, most: usize) -> (Vec<Destination>, usize) {
        let (groups, unused) = {
            let state = self.lock();
            (state.groups.clone(), state.unused.clone())
        };
        let (mut room, mut left_off) = (most, 0);
        let mut of: HashMap<&str, Vec<&Unused>> = HashMap::new();
        for it in &unused {
            of.entry(&it.rule).or_default().push(it);
        }
        let destinations = groups.iter().map(|group| {
            let mut destination = Destination {
                router: group.host.to_string(),
                dst: group.name.to_string(),
                answer: "bound".to_owned(),
                ..Destination::default()
            };
            if let Some(state) = group.view().state() {
                left_off += endpoints(&mut destination, &state, &mut room, |endpoint, row| {
                    let Some(backend) = Backend::of(endpoint) else { return };
                    row.node = Some(backend.instance().node.to_string());
                    row.tls = backend.speaks_tls().then(|| "unverified".to_owned());
                });
            }
            let unused = of.remove(&*group.name).unwrap_or_default();
            let shown = unused.len().min(room);
            (room, left_off) = (room - shown, left_off + unused.len() - shown);
            destination.endpoints.extend(unused.iter().take(shown).map(|it| {
                let instance = &it.known.instance;
                EndpointState {
                    addr: format!("{}:{}", instance.address, instance.port),
                    node: Some(instance.node.to_string()),
                    state: "unused".to_owned(),
                    why: Some(it.why.to_owned()),
                    ..EndpointState::default()
                }
            }));
            destination
        });
        let mut destinations: Vec<Destination> = destinations.collect();
        destinations.sort_by(|a, b| (&a.router, &a.dst).cmp(&(&b.router, &b.dst)));
        (destinations, left_off)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rule(group: &Group, unused: &[Unused]) -> Value {
    let state = group.view().state();
    let replicas = state.iter().flat_map(|state| state.replicas.replicas());
    let instances: Vec<Value> = replicas
        .map(|replica| {
            let endpoint = replica.endpoint();
            let backend = Backend::of(endpoint);
            let instance = backend.as_deref().map(Backend::instance);
            serde_json::json!({
                "addr": endpoint.addr.to_string(),
                "weight": endpoint.weight.get(),
                "service": instance.map(|it| &*it.service),
                "id": instance.map(|it| &*it.id),
                "node": instance.map(|it| &*it.node),
                "site": instance.and_then(|it| it.site.as_deref()),
                "tls": backend.as_deref().is_some_and(Backend::speaks_tls),
                "state": word(replica.state()),
                "in_flight": replica.in_flight(),
                "picked": replica.picked(),
                "failed": replica.failed(),
            })
        })
        .collect();
    let first = unused.partition_point(|it| it.rule < group.name);
    let unused: Vec<Value> = unused[first..]
        .iter()
        .take_while(|it| it.rule == group.name)
        .map(|Unused { known, why, .. }| {
            let instance = &known.instance;
            serde_json::json!({
                "addr": format!("{}:{}", instance.address, instance.port),
                "service": &*instance.service,
                "id": &*instance.id,
                "node": &*instance.node,
                "site": instance.site.as_deref(),
                "why": why,
            })
        })
        .collect();
    serde_json::json!({ "rule": &*group.name, "host": &*group.host, "instances": instances, "unused": unused })
}

fn word(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Ready => "usable",
        _ => "ejected",
    }
}

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
}

impl Knows {
    /// `given` are the arguments in force.
    pub(super) fn new(parts: &Parts, given: Value, loading: Loading, drain: Drain) -> Self {
        Self {
            metrics: parts.metrics.clone(),
            manager: parts.manager.clone(),
            current: Arc::clone(&parts.current),
            shown: Arc::clone(&parts.shown),
            given,
            loading,
            drain,
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
    for ((service, state), n) in backends(shown) {
        let labels = [("service", &*service), ("state", state)];
        registry.gauge("tricot_backends", "Instances under rules, by how they do.", &labels).set(n);
    }
    if let Some(made) = shown.lock().made {
        registry
            .gauge("tricot_table_age_seconds", "Time since the table was made.", &[])
            .set(i64::try_from(made.elapsed().as_secs()).unwrap_or(i64::MAX));
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

/// How many instances of each service are under rules, by how they do.
fn backends(shown: &Shown) -> BTreeMap<(Arc<str>, &'static str), i64> {
    let mut states = BTreeMap::new();
    let unused_of = shown.lock().unused_of.clone();
    for (service, unused) in unused_of {
        for state in ["usable", "ejected", "draining"] {
            states.insert((Arc::clone(&service), state), 0);
        }
        states.insert((service, "critical"), i64::try_from(unused).unwrap_or(i64::MAX));
    }
    for group in shown.groups() {
        let Some(state) = group.view().state() else { continue };
        for replica in state.replicas.replicas() {
            let Some(backend) = Backend::of(replica.endpoint()) else { continue };
            *states.entry((Arc::clone(&backend.instance().service), word(replica.state()))).or_default() += 1;
        }
        // Those that have left are known by their number only.
        if let Some(service) = group.service() {
            *states.entry((service, "draining")).or_default() +=
                i64::try_from(state.retired).unwrap_or(i64::MAX);
        }
    }
    states
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

/// Writes the rules to a file: all or nothing.
pub(super) fn dump(path: &Path, rules: &Value) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = std::fs::File::create(&beside)?;
    serde_json::to_writer_pretty(&mut file, rules)?;
    file.write_all(b"\n")?;
    std::fs::rename(beside, path)
}
