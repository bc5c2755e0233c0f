//! From instances and their tags to a table that requests are looked up in.

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
use super::tag_problems::TagProblems;
use super::tags::Backend as Speaks;
use super::tags::DEFAULT_PRIORITY;
use super::tags::HostPattern;
use super::tags::Redirect;

/// What a request can be sent to.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Shared with the table before if no rule has come or gone.
    pub(super) table: Arc<Table<Rule>>,
    /// For names that a wildcard stands for: whom to ask before a certificate is ordered.
    pub(super) on_demand: Table<Option<Uri>>,
    /// Names that have a certificate without being asked for.
    pub(super) names: Arc<BTreeSet<String>>,
}

/// What else follows from the instances, and what is other than it was.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Names that need a certificate, if they are not those of the table before.
    pub(super) names: Option<Arc<BTreeSet<String>>>,
    /// One line per rule and instance, for people: those that have come, and those that have gone.
    pub(super) new: BTreeSet<Arc<str>>,
    pub(super) gone: BTreeSet<Arc<str>>,
    /// Addresses that no instance has any more.
    pub(super) gone_addrs: HashSet<SocketAddr>,
    /// Whether services have gone.
    pub(super) fewer_services: bool,
    /// How many instances under rules must not be used, by service. All services are in it.
    pub(super) unused: Vec<(Arc<str>, usize)>,
}

/// An instance under a rule that must not get requests.
#[derive(Clone, Debug)]
pub(super) struct Unused {
    pub(super) rule: Arc<str>,
    pub(super) known: Arc<Known>,
    pub(super) why: &'static str,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    Proxy(Arc<Group>),
    Redirect(Arc<Redirect>),
}

/// Makes a table after another. What has not changed is kept, and costs a look at it and no more.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) spreading: Spreading,
    statuses: Vec<Status>,
    paths: Paths,
    ask: Option<Uri>,
    /// The port of HTTPS as clients see it.
    public_port: u16,
    metrics: Metrics,
    known: HashMap<Key, Entry>,
    groups: HashMap<Arc<GroupKey>, Slot>,
    redirects: HashSet<Redirect>,
    table: Arc<Table<Rule>>,
    names: Arc<BTreeSet<String>>,
    /// Whether groups are made anew.
    moved: bool,
    /// Counts tables, so that what the last one has not seen is told from the rest.
    generation: u64,
    /// Problems that were told already.
    told: HashSet<String>,
}

/// By what a group is known again: host, path and priority of its rules.
type GroupKey = (String, Box<str>, u32);

/// A group, and which requests come to it.
#[derive(Debug)]
struct Slot {
    group: Arc<Group>,
    pattern: HostPattern,
}

/// What is known of an instance, and what became of it.
#[derive(Debug)]
struct Entry {
    known: Arc<Known>,
    addrs: Vec<SocketAddr>,
    parts: Vec<Part>,
    generation: u64,
}

/// An instance at one of its addresses, under one rule.
#[derive(Debug)]
struct Part {
    key: Arc<GroupKey>,
    /// Nothing if it must not get requests.
    endpoint: Option<Endpoint>,
    /// Why it must not.
    unused: Option<&'static str>,
    line: Arc<str>,
}

/// What a group is made of.
#[derive(Default)]
struct Members {
    /// Those that may get requests.
    endpoints: Vec<Endpoint>,
    /// The first by name of the services under the rule, for requests that no instance answers. Nothing: there are none.
    service: Option<Arc<str>>,
}

/// By what an instance is known again.
type Key = (Arc<str>, Arc<str>, Arc<str>, Arc<str>, Arc<str>, u16);

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
        Self {
            spreading,
            statuses,
            paths,
            ask,
            public_port: HTTPS,
            metrics,
            known: HashMap::new(),
            groups: HashMap::new(),
            redirects: HashSet::new(),
            table: Arc::default(),
            names: Arc::default(),
            moved: true,
            generation: 0,
            told: HashSet::new(),
        }
    }

    /// Redirects without a port lead to this one of their hosts. Default: 443.
    pub(super) fn with_public_port(mut self, port: u16) -> Self {
        self.public_port = port;
        self
    }

    /// Groups are made anew for a proxy that is elsewhere.
    pub(super) fn moved(&mut self, own: Own) {
        self.spreading.own = own;
        self.moved = true;
    }

    /// The table of all instances, service by service, each with the addresses that it can be reached at. Those without
    /// one are under their rules all the same.
    pub(super) fn build<'a>(
        &mut self,
        instances: impl IntoIterator<Item = (&'a Arc<Instance>, Vec<SocketAddr>)>,
    ) -> (Routes, Changes) {
        self.generation += 1;
        let mut changes = Changes::default();
        // Groups that are other than they were.
        let mut touched: HashMap<Arc<GroupKey>, Members> = HashMap::new();
        let mut rules_changed = std::mem::take(&mut self.moved);
        if rules_changed {
            touched.extend(self.groups.drain().map(|(key, _)| (key, Members::default())));
        }
        let renew = rules_changed;
        let (mut redirects, mut on_demand) = (HashSet::new(), Table::builder());
        let public_port = self.public_port;
        for (instance, addrs) in instances {
            let key = key(instance);
            let is_same = self
                .known
                .get(&key)
                .is_some_and(|entry| !renew && entry.known.is_of(instance) && entry.addrs == addrs);
            if !is_same {
                let known = self.know(&key, instance);
                let parts = self.parts(&known, &addrs, &mut rules_changed);
                changes.come(&parts, &mut touched);
                let (addrs, generation) = (addrs, self.generation);
                let entry = Entry { known, addrs, parts, generation };
                if let Some(before) = self.known.insert(key.clone(), entry) {
                    changes.go(before, &mut touched);
                }
            }
            let Some(entry) = self.known.get_mut(&key) else { continue };
            entry.generation = self.generation;
            let registration = &entry.known.registration;
            redirects.extend(registration.redirects.iter().cloned().map(|mut redirect| {
                // As on the port for HTTP: whoever has come here is to find the way on.
                let port = redirect.to_port.unwrap_or(public_port);
                redirect.to_port = Some(port).filter(|port| *port != HTTPS);
                redirect
            }));
            for frontend in &registration.frontends {
                if !matches!(frontend.host, HostPattern::Exact(_)) {
                    let ask = registration.ask.clone().or_else(|| self.ask.clone());
                    on_demand = on_demand.rule(host(&frontend.host), "", u32::from(ask.is_some()), ask);
                }
            }
            changes.count(&instance.service, &entry.parts);
        }
        let mut gone_services = HashSet::new();
        let generation = self.generation;
        for (_, gone) in self.known.extract_if(|_, entry| entry.generation != generation) {
            gone_services.insert(Arc::clone(&gone.known.instance.service));
            changes.go(gone, &mut touched);
        }
        self.fill(&mut touched, &mut changes, &mut gone_services);
        changes.fewer_services = !gone_services.is_empty();
        for (key, members) in touched {
            rules_changed |= self.set(&key, members);
        }
        if redirects != self.redirects {
            rules_changed = true;
            changes.redirected(&self.redirects, &redirects);
            self.redirects = redirects;
        }
        if rules_changed {
            self.names = Arc::new(self.names());
            changes.names = Some(Arc::clone(&self.names));
            self.tell_private_hosts();
            self.table = Arc::new(self.table());
        }
        // What is the same before and after has neither come nor gone.
        let both: Vec<_> = changes.new.intersection(&changes.gone).cloned().collect();
        for line in both {
            changes.new.remove(&line);
            changes.gone.remove(&line);
        }
        self.metrics.rules.set(i64::try_from(self.table.len()).unwrap_or(i64::MAX));
        self.metrics.table_builds.inc();
        let (table, names) = (Arc::clone(&self.table), Arc::clone(&self.names));
        (Routes { table, on_demand: on_demand.build(), names }, changes)
    }

    /// An instance under each of its rules.
    fn parts(&mut self, known: &Arc<Known>, addrs: &[SocketAddr], new_groups: &mut bool) -> Vec<Part> {
        let mut parts = Vec::new();
        for frontend in &known.registration.frontends {
            let key = Arc::new((frontend.host.to_string(), frontend.path.clone(), frontend.priority));
            let (key, group) = match self.groups.get_key_value(&key) {
                Some((key, slot)) => (Arc::clone(key), Arc::clone(&slot.group)),
                None => {
                    *new_groups = true;
                    let name = format!("{}{} {}", key.0, key.1, key.2);
                    let group = Arc::new(Group::new(&key.0, &name, &self.spreading, &self.metrics));
                    let slot = Slot { group: Arc::clone(&group), pattern: frontend.host.clone() };
                    self.groups.insert(Arc::clone(&key), slot);
                    (key, group)
                }
            };
            let weight = known.weight(&self.statuses);
            let tls = frontend.backend == Speaks::Https;
            // One without an address is under its rules all the same.
            let none = addrs.is_empty().then_some(None);
            for addr in addrs.iter().copied().map(Some).chain(none) {
                let usable = addr.zip(weight);
                let unused = usable.is_none().then(|| known.unused(&self.statuses));
                let endpoint = usable.map(|(addr, weight)| {
                    group.backend(addr, known, frontend.backend, &self.metrics).endpoint(addr, weight)
                });
                let line = line(&group, known, addr, unused, tls).into();
                parts.push(Part { key: Arc::clone(&key), endpoint, unused, line });
            }
        }
        parts
    }

    /// Finds the members of groups that are other than they were, and whether what seems to be gone is there elsewhere.
    fn fill(
        &self,
        touched: &mut HashMap<Arc<GroupKey>, Members>,
        changes: &mut Changes,
        gone_services: &mut HashSet<Arc<str>>,
    ) {
        if touched.is_empty() && changes.gone_addrs.is_empty() && gone_services.is_empty() {
            return;
        }
        for entry in self.known.values() {
            let service = &entry.known.instance.service;
            gone_services.remove(service);
            for addr in &entry.addrs {
                changes.gone_addrs.remove(addr);
            }
            for part in &entry.parts {
                let Some(members) = touched.get_mut(&part.key) else { continue };
                members.endpoints.extend(part.endpoint.clone());
                if members.service.as_ref().is_none_or(|first| service < first) {
                    members.service = Some(Arc::clone(service));
                }
            }
        }
    }

    /// Sets what a group is made of. True if it has gone.
    fn set(&mut self, key: &Arc<GroupKey>, members: Members) -> bool {
        let Members { mut endpoints, service: Some(service) } = members else {
            return self.groups.remove(key).is_some();
        };
        let Some(Slot { group, .. }) = self.groups.get(key) else { return false };
        // In an order of their own, so that the same set is seen to be the same.
        endpoints.sort_by(|a, b| (a.addr, &a.instance).cmp(&(b.addr, &b.instance)));
        group.set_service(&service, &self.metrics);
        group.set(endpoints);
        false
    }

    /// The names that need a certificate.
    fn names(&self) -> BTreeSet<String> {
        let hosts = self.groups.iter().filter(|(_, slot)| slot.pattern.is_public_name());
        let redirects = self.redirects.iter().map(|redirect| &redirect.from_host);
        let redirects = redirects.filter(|host| host.is_public_name());
        hosts.map(|(key, _)| key.0.clone()).chain(redirects.map(|host| host.as_str().to_owned())).collect()
    }

    /// Whether this was not told yet, as far as is remembered.
    fn is_new(&mut self, told: String) -> bool {
        if self.told.len() >= MAX_TOLD {
            self.told.clear();
        }
        self.told.insert(told)
    }

    /// Says which hosts no certificate is ordered for, once each.
    fn tell_private_hosts(&mut self) {
        let of_groups = self.groups.values().filter_map(|slot| match &slot.pattern {
            HostPattern::Exact(host) => Some(host),
            _ => None,
        });
        let all = of_groups.chain(self.redirects.iter().map(|redirect| &redirect.from_host));
        let hosts: BTreeSet<_> = all.filter(|host| !host.is_public_name()).map(ToString::to_string).collect();
        for host in hosts {
            if self.is_new(format!("host {host}")) {
                tracing::info!(
                    target: "tricot",
                    host,
                    "no certificate is ordered for such a host; its clients see a self-signed one"
                );
            }
        }
    }

    fn table(&self) -> Table<Rule> {
        let mut table = Table::builder().paths(self.paths);
        // Before the groups, so that of two rules for the same place the redirect is the one.
        for redirect in &self.redirects {
            let (host, path) = (Host::exact(redirect.from_host.as_str()), redirect.from_path.clone());
            table = table.rule(host, path, DEFAULT_PRIORITY, Rule::Redirect(Arc::new(redirect.clone())));
        }
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_unstable_by_key(|(key, _)| *key);
        for (key, Slot { group, pattern }) in groups {
            table = table.rule(host(pattern), key.1.clone(), key.2, Rule::Proxy(Arc::clone(group)));
        }
        table.build()
    }

    /// What is known about an instance, read from its tags only if they are new.
    fn know(&mut self, key: &Key, instance: &Arc<Instance>) -> Arc<Known> {
        if let Some(Entry { known, .. }) = self.known.get(key)
            && known.is_of(instance)
        {
            return Arc::clone(known);
        }
        let known = Known::new(Arc::clone(instance), &self.metrics);
        for problem in &known.registration.problems {
            let told = format!("{}: {problem}", instance.service);
            if self.is_new(told) {
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
        self.known.values().map(|entry| Arc::clone(&entry.known.instance.service)).collect()
    }

    /// All groups.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values().map(|slot| &slot.group)
    }

    /// The instances under rules that must not get requests, in no order.
    pub(super) fn unused(&self) -> Vec<Unused> {
        let parts = self.known.values().flat_map(|entry| entry.parts.iter().map(|part| (&entry.known, part)));
        let unused = parts.filter_map(|(known, part)| {
            let rule = Arc::clone(&self.groups.get(&part.key)?.group.name);
            Some(Unused { rule, known: Arc::clone(known), why: part.unused? })
        });
        unused.collect()
    }

    /// What is wrong with tags.
    pub(super) fn tag_problems(&self) -> TagProblems {
        TagProblems::of(self.known.values().map(|entry| &*entry.known))
    }

    /// One line per rule and instance, for people, in no order.
    pub(super) fn lines(&self) -> Vec<Arc<str>> {
        let parts = self.known.values().flat_map(|entry| &entry.parts);
        parts.map(|part| Arc::clone(&part.line)).chain(self.redirects.iter().map(redirect_line)).collect()
    }
}

impl Changes {
    fn come(&mut self, parts: &[Part], touched: &mut HashMap<Arc<GroupKey>, Members>) {
        for part in parts {
            touched.entry(Arc::clone(&part.key)).or_default();
            self.new.insert(Arc::clone(&part.line));
        }
    }

    fn go(&mut self, entry: Entry, touched: &mut HashMap<Arc<GroupKey>, Members>) {
        for part in entry.parts {
            touched.entry(part.key).or_default();
            self.gone.insert(part.line);
        }
        self.gone_addrs.extend(entry.addrs);
    }

    /// Counts instances that must not be used; those of one service come one after the other.
    fn count(&mut self, service: &Arc<str>, parts: &[Part]) {
        if parts.is_empty() {
            return;
        }
        let unused = parts.iter().filter(|part| part.endpoint.is_none()).count();
        match self.unused.last_mut() {
            Some((last, n)) if last == service => *n += unused,
            _ => self.unused.push((Arc::clone(service), unused)),
        }
    }

    fn redirected(&mut self, before: &HashSet<Redirect>, now: &HashSet<Redirect>) {
        self.new.extend(now.difference(before).map(redirect_line));
        self.gone.extend(before.difference(now).map(redirect_line));
    }
}

fn redirect_line(redirect: &Redirect) -> Arc<str> {
    let Redirect { from_host, from_path, status, .. } = redirect;
    format!("{}{from_path} redirects to {} ({status})", from_host.as_str(), redirect.target()).into()
}

fn key(instance: &Instance) -> Key {
    let Instance { datacenter, node, service, id, address, port, .. } = instance;
    let [datacenter, node, service, id, address] = [datacenter, node, service, id, address].map(Arc::clone);
    (datacenter, node, service, id, address, *port)
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

fn line(group: &Group, known: &Known, addr: Option<SocketAddr>, unused: Option<&str>, tls: bool) -> String {
    let Instance { service, node, id, status, site, address, port, .. } = &*known.instance;
    let addr = addr.map_or_else(|| format!("{address}:{port}"), |addr| addr.to_string());
    let scheme = if tls { "https" } else { "http" };
    let site = site.as_deref().map(|site| format!(" at {site}")).unwrap_or_default();
    let unused = unused.map(|why| format!(", not used: {why}")).unwrap_or_default();
    format!(
        "{} -> {scheme}://{addr} ({service} {id} on {node}{site}, {}{unused})",
        group.name,
        status.as_str()
    )
}
