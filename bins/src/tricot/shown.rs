//! The table in force, as pages and files show it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use meshlib::balance::ReplicaState;
use serde_json::Value;
use tokio::time::Instant;

use super::backend::Backend;
use super::group::Group;
use super::table::Builder;
use super::table::Unused;
use super::tag_problems::TagProblems;
use crate::kit::state::Destination;
use crate::kit::state::EndpointState;
use crate::kit::state::endpoints;

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
    /// What to say about rules that have all gone.
    gone: Option<String>,
    tag_problems: TagProblems,
}

impl Shown {
    /// Sets what pages show. `unused_of` says how many instances of each service are unused.
    pub(super) fn set(&self, builder: &Builder, unused_of: Vec<(Arc<str>, usize)>) {
        let mut state = self.lock();
        state.lines = builder.lines();
        state.groups = builder.groups().cloned().collect();
        state.unused = builder.unused();
        state.unused_of = unused_of;
        state.tag_problems = builder.tag_problems();
        state.made = Some(Instant::now());
    }

    pub(super) fn set_degraded(&self, degraded: Option<String>) {
        self.lock().degraded = degraded;
    }

    /// Sets what is wrong with the rules, if all of them have gone.
    pub(super) fn set_gone(&self, gone: Option<String>) {
        self.lock().gone = gone;
    }

    /// What is wrong although requests are welcome, a line for each thing.
    pub(super) fn problems(&self) -> Vec<String> {
        let state = self.lock();
        let degraded = state.degraded.as_ref().map(|reason| format!("Consul cannot be relied on: {reason}"));
        degraded.into_iter().chain(state.gone.clone()).chain(state.tag_problems.line()).collect()
    }

    /// How many instances have tags that cannot be used as they are.
    pub(super) fn tag_problems(&self) -> usize {
        self.lock().tag_problems.instances
    }

    fn groups(&self) -> Vec<Arc<Group>> {
        self.lock().groups.clone()
    }

    /// The rules with their instances and how these do.
    pub(super) fn rules(&self) -> Value {
        let (mut lines, mut groups, mut unused, degraded, tags) = {
            let state = self.lock();
            let tags = state.tag_problems.clone();
            (state.lines.clone(), state.groups.clone(), state.unused.clone(), state.degraded.clone(), tags)
        };
        unused.sort_by(|a, b| (&a.rule, &a.known.instance.id).cmp(&(&b.rule, &b.known.instance.id)));
        lines.sort_unstable();
        lines.dedup();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
        let groups: Vec<Value> = groups.iter().map(|group| rule(group, &unused)).collect();
        serde_json::json!({
            "rules": groups,
            "text": lines,
            "degraded": degraded,
            "tag_problems": tags.shown(),
            "tag_problems_left_off": tags.left_off,
        })
    }

    /// The rules with their instances, as they are shown by all programs, and how many instances were left off.
    pub(super) fn destinations(&self, most: usize) -> (Vec<Destination>, usize) {
        let (mut groups, unused) = {
            let state = self.lock();
            (state.groups.clone(), state.unused.clone())
        };
        groups.sort_by(|a, b| (&a.host, &a.name).cmp(&(&b.host, &b.name)));
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
                    group.reasons().explain(row);
                    // What the balancer counts there are requests that wait for their answer, and it sees no answer break.
                    (row.connecting, row.broken) = (0, backend.broken());
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
        (destinations.collect(), left_off)
    }

    /// How many instances of each service are under rules, by how they do.
    pub(super) fn backends(&self) -> BTreeMap<(Arc<str>, &'static str), i64> {
        let mut states = BTreeMap::new();
        let unused_of = self.lock().unused_of.clone();
        for (service, unused) in unused_of {
            for state in ["usable", "ejected", "draining"] {
                states.insert((Arc::clone(&service), state), 0);
            }
            states.insert((service, "critical"), i64::try_from(unused).unwrap_or(i64::MAX));
        }
        for group in self.groups() {
            let Some(state) = group.view().state() else { continue };
            for replica in state.replicas.replicas() {
                let Some(backend) = Backend::of(replica.endpoint()) else { continue };
                *states
                    .entry((Arc::clone(&backend.instance().service), word(replica.state())))
                    .or_default() += 1;
            }
            // Those that have left are known by their number only.
            if let Some(service) = group.service() {
                *states.entry((service, "draining")).or_default() +=
                    i64::try_from(state.retired).unwrap_or(i64::MAX);
            }
        }
        states
    }

    /// How long ago the table was made, if there is one.
    pub(super) fn age(&self) -> Option<Duration> {
        self.lock().made.map(|made| made.elapsed())
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

/// Writes the rules to a file: all or nothing.
pub(super) fn dump(path: &Path, rules: &Value) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = std::fs::File::create(&beside)?;
    serde_json::to_writer_pretty(&mut file, rules)?;
    file.write_all(b"\n")?;
    std::fs::rename(beside, path)
}
