//! Following Consul, and making a table of what it says.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use meshlib::Drain;
use meshlib::tls::acme::Manager;
use meshlib_consul::Consul;
use meshlib_consul::ConsulError;
use meshlib_consul::Instance;
use meshlib_consul::Services;
use meshlib_consul::watch::Degraded;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::Instant;

use super::backend::Own;
use super::metrics::Metrics;
use super::outage::Lost;
use super::outage::Source;
use super::route::Current;
use super::send::Client;
use super::shown::Shown;
use super::table::Builder;
use super::table::Changes;
use super::tags;

/// Time between the end of a table and the next one, at least, and so many times what making it took: what follows Consul
/// runs on the same thread.
const PACE: (Duration, u32) = (Duration::from_millis(100), 5);
/// How long a first table waits for what is not known yet: without it a site that is there would be a 404.
const FIRST: Duration = Duration::from_secs(5);
/// How long the addresses of a host name count, and how long finding them may take.
const RESOLVED_FOR: Duration = Duration::from_secs(60);
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// Most lines of a difference that are logged; beyond it they are counted.
const MAX_LINES: usize = 50;

/// Makes a new table when something has changed.
pub(super) struct Discovery {
    services: BoxStream<'static, Services>,
    own: watch::Receiver<Own>,
    builder: Builder,
    current: Arc<Current>,
    manager: Manager,
    metrics: Metrics,
    shown: Arc<Shown>,
    drain: Drain,
    source: Source,
    clients: Vec<Client>,
    dump: Option<PathBuf>,
    hosts: Hosts,
    latest: Option<Services>,
    degraded: bool,
    /// Whether it was said that Consul shows nothing.
    blind: bool,
    /// Whether it was said that Consul has lost everything.
    forgotten: bool,
    lost: Lost,
}

/// What discovery works for.
pub(super) struct For {
    pub(super) builder: Builder,
    pub(super) current: Arc<Current>,
    pub(super) manager: Manager,
    pub(super) metrics: Metrics,
    pub(super) shown: Arc<Shown>,
    /// Nothing more is said about Consul once it has begun.
    pub(super) drain: Drain,
    pub(super) source: Source,
    pub(super) clients: Vec<Client>,
    pub(super) dump: Option<PathBuf>,
}

impl Discovery {
    pub(super) fn new(consul: &Consul, own: watch::Receiver<Own>, works_for: For) -> Self {
        let For { builder, current, manager, metrics, shown, drain, source, clients, dump } = works_for;
        let services = consul.services(|_, tags| tags.iter().any(|tag| tags::is_meant(tag)));
        Self {
            services,
            own,
            builder,
            current,
            manager,
            metrics,
            shown,
            drain,
            source,
            clients,
            dump,
            hosts: Hosts::default(),
            latest: None,
            degraded: false,
            blind: false,
            forgotten: false,
            lost: Lost::default(),
        }
    }

    /// Follows until the task is dropped.
    pub(super) async fn run(mut self) {
        let mut due: Option<Instant> = None;
        // When the next table may be made, after the first one.
        let mut next = Instant::now();
        loop {
            let wait = due.unwrap_or_else(|| Instant::now() + RESOLVED_FOR);
            tokio::select! {
                Some(services) = self.services.next() => {
                    self.judge(&services);
                    // A catalog that was never read is no catalog without services.
                    if services.degraded.is_none() || !services.all.is_empty() {
                        let at = match (self.current.get().is_some(), services.complete) {
                            (true, _) => next,
                            (false, true) => Instant::now(),
                            (false, false) => Instant::now() + FIRST,
                        };
                        due = Some(due.map_or(at, |due| due.min(at)));
                        self.latest = Some(services);
                    }
                }
                Ok(()) = self.own.changed() => {
                    let own = self.own.borrow_and_update().clone();
                    self.builder.moved(own);
                    if self.current.get().is_some() {
                        due.get_or_insert(next);
                    }
                }
                () = self.hosts.found() => {
                    if self.current.get().is_some() {
                        due.get_or_insert(next);
                    }
                }
                () = time::sleep_until(wait) => {
                    if due.take().is_some() {
                        let began = Instant::now();
                        self.build();
                        let took = began.elapsed();
                        tracing::debug!(target: "tricot", ?took, "table made");
                        next = Instant::now() + PACE.0.max(took * PACE.1);
                    }
                    self.hosts.refresh();
                }
            }
        }
    }

    /// Says when Consul begins to fail, when it is back, and what it has lost.
    fn judge(&mut self, services: &Services) {
        if self.drain.is_started() {
            // Connections to Consul that a worker has opened end with the worker.
            return;
        }
        let reason = services.degraded.as_ref().map(|degraded| self.source.reason(degraded));
        self.shown.set_degraded(reason.clone());
        let blind = services.is_suspicious_empty();
        let forgotten = matches!(services.degraded, Some(Degraded::Forgotten { .. }));
        let was_degraded = std::mem::replace(&mut self.degraded, reason.is_some());
        let given_up = self.lost.judge(services);
        self.metrics.lost_services.set(i64::try_from(self.lost.count()).unwrap_or(i64::MAX));
        if given_up > 0 {
            tracing::warn!(target: "tricot", services = given_up, "services that Consul has lost are given up");
        }
        match reason {
            _ if blind && !self.blind => {
                tracing::error!(
                    target: "tricot",
                    "Consul shows this token no service, not even itself, or none of their instances; \
                     its policy needs service_prefix \"\" and node_prefix \"\" with the policy \"read\""
                );
            }
            Some(reason) if forgotten && !self.forgotten => {
                tracing::warn!(target: "tricot", reason, "Consul has come back empty; the rules stay for a while");
            }
            // It is an error in the log already.
            Some(_) if is_denied(services.degraded.as_ref()) => {}
            Some(reason) if !was_degraded || self.forgotten && !forgotten => {
                tracing::warn!(target: "tricot", reason, "Consul cannot be relied on; the rules stay as they are");
            }
            None if was_degraded && given_up == 0 => tracing::info!(target: "tricot", "Consul is back"),
            _ => {}
        }
        (self.blind, self.forgotten) = (blind, forgotten);
    }

    fn build(&mut self) {
        let Some(services) = &self.latest else { return };
        let before = self.current.get();
        let first = before.is_none();
        let hosts = &mut self.hosts;
        let instances = services.all.values().flat_map(|instances| instances.iter());
        let (routes, changes) =
            self.builder.build(instances.map(|instance| (instance, hosts.addrs(instance))));
        if let Some(names) = &changes.names
            && let Err(error) = self.manager.want(names)
        {
            tracing::warn!(target: "tricot", %error, "no certificate for a name of a tag");
        }
        match (before.map_or(0, |before| before.table.len()), routes.table.len()) {
            (0, 0) => {}
            (rules, 0) => {
                let gone = format!(
                    "all {rules} rules are gone: no service in Consul has a tag for this program any more, \
                     and every request gets 404"
                );
                tracing::error!(target: "tricot", "{gone}");
                self.shown.set_gone(Some(gone));
            }
            _ => self.shown.set_gone(None),
        }
        self.current.set(Arc::new(routes));
        // Whoever reads of a rule may rely on it.
        log(&changes, first);
        for client in &self.clients {
            // Requests on the way to them go on.
            changes.gone_addrs.iter().for_each(|addr| client.forget(*addr));
        }
        if changes.fewer_services {
            let services = self.builder.services();
            self.metrics.retain_services(|service| services.contains(service));
        }
        self.shown.set(&self.builder, changes.unused);
        let instances = self.shown.tag_problems();
        self.metrics.tag_problems.set(i64::try_from(instances).unwrap_or(i64::MAX));
        if let Some(path) = &self.dump
            && let Err(error) = super::shown::dump(path, &self.shown.rules())
        {
            tracing::warn!(target: "tricot", path = %path.display(), %error, "cannot write the rules");
        }
    }
}

fn is_denied(degraded: Option<&Degraded>) -> bool {
    matches!(degraded, Some(Degraded::Failing(ConsulError::Denied { .. })))
}

/// Logs the whole table the first time, and then what is different.
fn log(changes: &Changes, first: bool) {
    if first {
        tracing::info!(target: "tricot", rules = changes.new.len(), "rules");
    }
    let new = changes.new.iter().map(|line| ('+', line));
    let gone = changes.gone.iter().map(|line| ('-', line));
    let all = tracing::enabled!(target: "tricot", tracing::Level::DEBUG);
    let mut left_out = 0;
    for (n, (sign, line)) in new.chain(gone).enumerate() {
        if n < MAX_LINES || first || all {
            tracing::info!(target: "tricot", "{sign} {line}");
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        tracing::info!(target: "tricot", left_out, "further differences; /rules has all rules");
    }
}

/// The addresses of instances that are registered with a host name.
#[derive(Default)]
struct Hosts {
    known: HashMap<Arc<str>, (Vec<IpAddr>, Instant)>,
    asking: HashSet<Arc<str>>,
    lookups: JoinSet<(Arc<str>, Option<Vec<IpAddr>>)>,
    /// Names that the last table has used.
    used: HashSet<Arc<str>>,
}

impl Hosts {
    /// Where an instance can be reached, as far as that is known.
    fn addrs(&mut self, instance: &Instance) -> Vec<SocketAddr> {
        if let Some(addr) = instance.addr() {
            return vec![addr];
        }
        let host = &instance.address;
        if self.used.insert(Arc::clone(host)) && !self.known.contains_key(host) {
            self.ask(host);
        }
        let known = self.known.get(host).map(|(ips, _)| ips.as_slice()).unwrap_or_default();
        known.iter().map(|ip| SocketAddr::new(*ip, instance.port)).collect()
    }

    fn ask(&mut self, host: &Arc<str>) {
        if !self.asking.insert(Arc::clone(host)) {
            return;
        }
        let host = Arc::clone(host);
        self.lookups.spawn(async move {
            let found = time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host((host.to_string(), 0))).await;
            let ips = match found {
                Ok(Ok(addrs)) => {
                    let ips: BTreeSet<IpAddr> = addrs.map(|addr| addr.ip()).collect();
                    Some(ips.into_iter().collect())
                }
                Ok(Err(error)) => {
                    tracing::warn!(target: "tricot", %host, %error, "cannot find the address of an instance");
                    None
                }
                Err(_) => {
                    tracing::warn!(target: "tricot", %host, within = ?RESOLVE_WITHIN, "cannot find the address of an instance");
                    None
                }
            };
            (host, ips)
        });
    }

    /// Waits until an address is other than it was.
    async fn found(&mut self) {
        loop {
            let Some(done) = self.lookups.join_next().await else { return std::future::pending().await };
            let Ok((host, ips)) = done else { continue };
            self.asking.remove(&host);
            let Some(ips) = ips else { continue };
            let changed = self.known.get(&host).is_none_or(|(known, _)| *known != ips);
            self.known.insert(host, (ips, Instant::now()));
            if changed {
                return;
            }
        }
    }

    /// Asks again for what is old or unknown, and forgets what no instance has.
    fn refresh(&mut self) {
        let used = std::mem::take(&mut self.used);
        self.known.retain(|host, _| used.contains(host));
        for host in &used {
            if self.known.get(host).is_none_or(|(_, at)| at.elapsed() >= RESOLVED_FOR) {
                self.ask(host);
            }
        }
        self.used = used;
    }
}

/// Follows where the proxy itself is: the site is in the metadata of its node.
pub(super) async fn follow_own(consul: Consul, node: Option<Arc<str>>, own: watch::Sender<Own>) {
    let node = match node {
        Some(node) => node,
        None => match ask_agent(&consul).await {
            Some(node) => node,
            None => return,
        },
    };
    own.send_replace(Own { node: Some(Arc::clone(&node)), site: None });
    let mut infos = consul.node(Arc::clone(&node));
    let (mut seen, mut missing) = (false, false);
    while let Some(level) = infos.next().await {
        let Some(info) = level.value else { continue };
        let Some(info) = info else {
            // A token that loses its rights sees no node either: nothing moves because of that.
            if !std::mem::replace(&mut missing, true) {
                let near = if seen { "what is near stays as it was" } else { "no instance counts as near" };
                tracing::warn!(target: "tricot", %node, "Consul knows no node of this name; {near}");
            }
            continue;
        };
        (seen, missing) = (true, false);
        own.send_if_modified(|own| {
            let changed = own.site != info.site;
            own.site = info.site;
            changed
        });
    }
}

/// The name of the agent's node. Consul may be out of reach for as long as it likes.
async fn ask_agent(consul: &Consul) -> Option<Arc<str>> {
    loop {
        match consul.agent().await {
            Ok(agent) => return Some(agent.node),
            Err(ConsulError::Denied { .. }) => {
                tracing::warn!(
                    target: "tricot",
                    "the name of this node is not set, and Consul does not let us ask for it; no instance counts as near"
                );
                return None;
            }
            Err(error) => {
                tracing::debug!(target: "tricot", %error, "cannot ask Consul for the name of this node yet");
                time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
}
