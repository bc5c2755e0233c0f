//! From instances and their tags to a table that requests are looked up in.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;
use meshlib::Endpoint;
use meshlib::http::route::Host;
use meshlib::http::route::Paths;
use meshlib::http::route::Table;
use meshlib_consul::Instance;
use meshlib_consul::Status;

use super::backend::Known;
use super::backend::Own;
use super::group::Group;
use super::group::Spreading;
use super::metrics::Metrics;
use super::tags::Backend as Speaks;
use super::tags::DEFAULT_PRIORITY;
use super::tags::HostPattern;
use super::tags::Redirect;

/// What a request can be sent to, and whatever else follows from the instances.
#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) table: Table<Rule>,
    /// Names that need a certificate.
    pub(super) names: BTreeSet<String>,
    /// For names that a wildcard stands for: whom to ask before a certificate is ordered.
    pub(super) on_demand: Table<Option<Uri>>,
    /// One line per rule and instance, for people.
    pub(super) lines: BTreeSet<String>,
    /// How many instances under rules must not be used, by service. All services are in it.
    pub(super) unused: BTreeMap<Arc<str>, usize>,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    Proxy(Arc<Group>),
    Redirect(Arc<Redirect>),
}

/// Makes a table after another, keeping what has not changed.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) spreading: Spreading,
    statuses: Vec<Status>,
    paths: Paths,
    ask: Option<Uri>,
    /// The port of HTTPS as clients see it.
    public_port: u16,
    metrics: Metrics,
    known: HashMap<Key, Arc<Known>>,
    groups: HashMap<GroupKey, Arc<Group>>,
    /// Problems that were told already.
    told: HashSet<String>,
}

/// By what a group is known again: host, path and priority of its rules.
type GroupKey = (String, Box<str>, u32);
/// What a group is made of.
struct Members {
    host: Host,
    /// Those that may get requests.
    endpoints: Vec<Endpoint>,
    /// The first by name of the services under the rule, for requests that no instance answers.
    service: Arc<str>,
}

/// By what an instance is known again.
type Key = (Arc<str>, Arc<str>, Arc<str>, Arc<str>, u16);

/// The port that URLs of HTTPS do not name, RFC 9110 section 4.2.2.
const HTTPS: u16 = 443;

/// More problems than these are forgotten, and told again.
const MAX_TOLD: usize = 10_000;

impl Builder {
    pub(super) fn new(
        spreading: Spreading,
        statuses: Vec<Status>,
        paths: Paths,
        ask: Option<Uri>,
        metrics: Metrics,
    ) -> Self {
        let (known, groups, told) = (HashMap::new(), HashMap::new(), HashSet::new());
        let public_port = HTTPS;
        Self { spreading, statuses, paths, ask, public_port, metrics, known, groups, told }
    }

    /// Redirects without a port lead to this one of their hosts. Default: 443.
    pub(super) fn with_public_port(mut self, port: u16) -> Self {
        self.public_port = port;
        self
    }

    /// Groups are made anew for a proxy that is elsewhere.
    pub(super) fn moved(&mut self, own: Own) {
        self.spreading.own = own;
        self.groups.clear();
    }

    /// The table of all instances, each with the addresses that it can be reached at, or once without one.
    pub(super) fn build<'a>(
        &mut self,
        instances: impl IntoIterator<Item = (&'a Arc<Instance>, Option<SocketAddr>)>,
    ) -> Routes {
        let mut table = Table::builder().paths(self.paths);
        let mut on_demand = Table::builder();
        let mut routes = Routes::default();
        let mut members: BTreeMap<GroupKey, Members> = BTreeMap::new();
        let mut known = HashMap::with_capacity(self.known.len());
        let mut redirects: HashSet<Redirect> = HashSet::new();
        for (instance, addr) in instances {
            let known_now = self.know(instance);
            known.insert(key(instance), Arc::clone(&known_now));
            let registration = &known_now.registration;
            for frontend in &registration.frontends {
                let text = frontend.host.to_string();
                let group_key = (text, frontend.path.clone(), frontend.priority);
                let group = self.groups.entry(group_key.clone()).or_insert_with(|| {
                    let name = format!("{}{} {}", group_key.0, group_key.1, group_key.2);
                    Arc::new(Group::new(&group_key.0, &name, &self.spreading))
                });
                let usable = addr.zip(known_now.weight(&self.statuses));
                let tls = frontend.backend == Speaks::Https;
                routes.lines.insert(line(group, &known_now, addr, usable.is_some(), tls));
                let service = &instance.service;
                *routes.unused.entry(Arc::clone(service)).or_default() += usize::from(usable.is_none());
                let members = members.entry(group_key).or_insert_with(|| Members {
                    host: host(&frontend.host),
                    endpoints: Vec::new(),
                    service: Arc::clone(service),
                });
                if *service < members.service {
                    members.service = Arc::clone(service);
                }
                if let Some((addr, weight)) = usable {
                    let backend = group.backend(addr, &known_now, frontend.backend, &self.metrics);
                    members.endpoints.push(backend.endpoint(addr, weight));
                }
                match &frontend.host {
                    HostPattern::Exact(name) if frontend.host.is_public_name() => {
                        routes.names.insert(name.to_string());
                    }
                    HostPattern::Exact(_) => {}
                    wildcard => {
                        let ask = registration.ask.clone().or_else(|| self.ask.clone());
                        on_demand = on_demand.rule(host(wildcard), "", u32::from(ask.is_some()), ask);
                    }
                }
            }
            redirects.extend(registration.redirects.iter().cloned());
        }
        self.known = known;
        self.groups.retain(|key, _| members.contains_key(key));
        for mut redirect in redirects {
            // As on the port for HTTP: whoever has come here is to find the way on.
            redirect.to_port =
                Some(redirect.to_port.unwrap_or(self.public_port)).filter(|port| *port != HTTPS);
            let from = redirect.from_host.as_str();
            if redirect.from_host.is_public_name() {
                routes.names.insert(from.to_owned());
            }
            routes.lines.insert(format!(
                "{from}{} redirects to {} ({})",
                redirect.from_path,
                redirect.target(),
                redirect.status
            ));
            // Before the groups, so that of two rules for the same place the redirect is the one.
            let (host, path) = (Host::exact(from), redirect.from_path.clone());
            table = table.rule(host, path, DEFAULT_PRIORITY, Rule::Redirect(Arc::new(redirect)));
        }
        for (group_key, Members { host, mut endpoints, service }) in members {
            let Some(group) = self.groups.get(&group_key) else { continue };
            // In an order of their own, so that the same set is seen to be the same.
            endpoints.sort_by(|a, b| (a.addr, &a.instance).cmp(&(b.addr, &b.instance)));
            group.set_service(&service, &self.metrics);
            group.set(endpoints);
            table = table.rule(host, group_key.1, group_key.2, Rule::Proxy(Arc::clone(group)));
        }
        routes.table = table.build();
        routes.on_demand = on_demand.build();
        self.metrics.rules.set(i64::try_from(routes.table.len()).unwrap_or(i64::MAX));
        self.metrics.table_builds.inc();
        routes
    }

    /// What is known about an instance, read from its tags only if they are new.
    fn know(&mut self, instance: &Arc<Instance>) -> Arc<Known> {
        if let Some(known) = self.known.get(&key(instance))
            && (Arc::ptr_eq(&known.instance, instance) || known.instance == *instance)
        {
            return Arc::clone(known);
        }
        let known = Known::new(Arc::clone(instance), &self.metrics);
        for problem in &known.registration.problems {
            let told = format!("{}: {problem}", instance.service);
            if self.told.len() >= MAX_TOLD {
                self.told.clear();
            }
            if self.told.insert(told) {
                tracing::warn!(
                    target: "tricot",
                    service = %instance.service,
                    node = %instance.node,
                    id = %instance.id,
                    "{problem}"
                );
            }
        }
        Arc::new(known)
    }

    /// The services that are known.
    pub(super) fn services(&self) -> HashSet<Arc<str>> {
        self.known.values().map(|known| Arc::clone(&known.instance.service)).collect()
    }

    /// All groups.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }
}

fn key(instance: &Instance) -> Key {
    let Instance { datacenter, node, id, address, port, .. } = instance;
    (Arc::clone(datacenter), Arc::clone(node), Arc::clone(id), Arc::clone(address), *port)
}

/// The host of a tag as the table knows it.
fn host(pattern: &HostPattern) -> Host {
    match pattern {
        HostPattern::Exact(host) => Host::exact(host.as_str()),
        HostPattern::Suffix(parent) => Host::suffix(parent.as_str()),
        HostPattern::Glob(glob) => {
            let matches = glob.clone();
            Host::pattern(&glob.to_string(), move |host| matches.matches(host))
        }
        HostPattern::Any => Host::Any,
    }
}

fn line(group: &Group, known: &Known, addr: Option<SocketAddr>, usable: bool, tls: bool) -> String {
    let Instance { service, node, id, status, site, address, port, .. } = &*known.instance;
    let addr = addr.map_or_else(|| format!("{address}:{port}"), |addr| addr.to_string());
    let scheme = if tls { "https" } else { "http" };
    let site = site.as_deref().map(|site| format!(" at {site}")).unwrap_or_default();
    let usable = if usable { "" } else { ", not used" };
    format!(
        "{} -> {scheme}://{addr} ({service} {id} on {node}{site}, {}{usable})",
        group.name,
        status.as_str()
    )
}
