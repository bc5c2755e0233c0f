//! Following Consul, and making a table of what it says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use meshlib::Drain;
use meshlib::tls::acme::Manager;
use meshlib_consul::Consul;
use meshlib_consul::ConsulError;
use meshlib_consul::Services;
use meshlib_consul::watch::Degraded;
use tokio::sync::watch;
use tokio::time;
use tokio::time::Instant;

use super::addresses;
use super::addresses::Addresses;
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
    addresses: Addresses,
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
            addresses: Addresses::default(),
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
        let mut refresh = Instant::now() + addresses::REFRESH;
        loop {
            let wait = due.map_or(refresh, |due| due.min(refresh));
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
                () = self.addresses.found() => {
                    if self.current.get().is_some() {
                        due.get_or_insert(next);
                    }
                }
                () = time::sleep_until(wait) => {
                    if due.take_if(|due| *due <= Instant::now()).is_some() {
                        let began = Instant::now();
                        self.build();
                        let took = began.elapsed();
                        tracing::debug!(target: "tricot", ?took, "table made");
                        next = Instant::now() + PACE.0.max(took * PACE.1);
                    }
                    self.addresses.refresh();
                    refresh = Instant::now() + addresses::REFRESH;
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
        let addresses = &mut self.addresses;
        addresses.begin();
        let instances = services.all.values().flat_map(|instances| instances.iter());
        let (routes, changes) =
            self.builder.build(instances.map(|instance| (instance, addresses.of(instance))));
        if let Some(names) = &changes.names
            && let Err(error) = self.manager.want(&**names)
        {
            tracing::warn!(target: "tricot", %error, "no certificate for a name of a tag");
        }
        let rules = routes.table.len();
        self.current.set(Arc::new(routes));
        // Whoever reads of a rule may rely on it.
        log(&changes, first);
        match (before.map_or(0, |before| before.table.len()), rules) {
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
