//! What is in the catalog: services by their tags, nodes.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use futures::stream::BoxStream;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::Instant;

use crate::api::AgentSelf;
use crate::api::CatalogNode;
use crate::api::ServiceTags;
use crate::ask::Ask;
use crate::ask::Consistency;
use crate::client::Answer;
use crate::client::Consul;
use crate::emptiness::Seen;
use crate::error::ConsulError;
use crate::follow::Name;
use crate::forgotten::Forgotten;
use crate::hub::Changed;
use crate::hub::Subscription;
use crate::instance::Instances;
use crate::pump::pump;
use crate::watch::Degraded;
use crate::watch::Level;
use crate::watch::Watch;
use crate::watch::same_health;

/// How long the first level waits for the first answers of all services.
const FIRST: Duration = Duration::from_secs(5);
/// First requests are spread over this time for each doubling of the number of services.
const SPREAD: Duration = Duration::from_millis(250);
/// How long a service that has no instance any more may be listed still.
const GONE_WITHIN: Duration = Duration::from_secs(1);
/// Time between two looks at a catalog that is suspiciously empty.
const DOUBT: Duration = Duration::from_secs(10);

/// All wanted services with their instances, as they are.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Services {
    /// The instances of each service by its name, whatever their states. A service of which nothing is known yet is left
    /// out, one that is gone, too.
    pub all: Arc<BTreeMap<Arc<str>, Instances>>,
    /// The names among them that are other than in the level before, and those that are gone.
    pub changed: Vec<Arc<str>>,
    /// Whether the catalog has been read and each wanted service is known. While Consul cannot be reached from the
    /// beginning on there are items that say no more than that.
    pub complete: bool,
    /// Why this may be out of date, if so: for the catalog as a whole, else for one of the services.
    pub degraded: Option<Degraded>,
}

impl Services {
    /// Whether Consul shows nothing at all, not even itself, and this is what was there before, or whether it shows no
    /// instance of any service that it lists. Most often the token has no rights to read services and nodes.
    pub fn is_suspicious_empty(&self) -> bool {
        matches!(self.degraded, Some(Degraded::SuspiciousEmpty))
    }
}

/// A node as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Its address.
    pub address: Arc<str>,
    /// Its datacenter.
    pub datacenter: Arc<str>,
    /// Where it stands: the value of [`Config::site_key`](crate::Config::site_key) in its metadata, else the zone that
    /// newer servers know.
    pub site: Option<Arc<str>>,
    /// Its metadata.
    pub meta: Arc<BTreeMap<String, String>>,
}

/// What an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentInfo {
    /// The name of its node.
    pub node: Arc<str>,
    /// Its datacenter.
    pub datacenter: Arc<str>,
}

impl Consul {
    /// Every service that `wanted` says yes to, by its name and the tags of all its instances, with all its instances.
    ///
    /// The first item comes when all of them are known, or after 5 s with those that are. Each further one follows a
    /// change of any. Its map is shared with the last one: reading costs nothing, and who keeps no item costs no copy.
    /// Services are followed as their tags become of interest, and dropped as they cease to be or vanish. While Consul is
    /// not well, and until it has been for 10 s, nothing is dropped, neither services nor instances, states that get worse
    /// and tags that go are not believed, and whatever is new comes at once.
    ///
    /// If all wanted services vanish while Consul is not well, as they do where it has lost its data, this is
    /// [`Degraded::Forgotten`], and they are dropped only when it has been well for 5 min. Each that is back before is
    /// followed at once. Until all are back or the time is over, losses of whatever else are doubted as well.
    ///
    /// If everything vanishes at once, even Consul itself, what was known is kept, and [`Services::is_suspicious_empty`]
    /// says so; likewise if nothing is shown from the beginning on, which is not complete then.
    ///
    /// The stream has no end. It must be polled inside a tokio runtime.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(consul: meshlib_consul::Consul) {
    /// use futures::StreamExt;
    ///
    /// let mut exposed = consul.services(|_, tags| tags.iter().any(|tag| tag.starts_with("tricot ")));
    /// while let Some(services) = exposed.next().await {
    ///     println!("{} services, changed: {:?}", services.all.len(), services.changed);
    /// }
    /// # }
    /// ```
    pub fn services(
        &self,
        wanted: impl Fn(&str, &[Arc<str>]) -> bool + Send + 'static,
    ) -> BoxStream<'static, Services> {
        let consul = self.clone();
        let wanted: Wanted = Box::new(wanted);
        stream::unfold(Start::Not(consul, wanted), |start| async move {
            let mut following = match start {
                Start::Not(consul, wanted) => Box::new(Following::new(consul, wanted)),
                Start::Done(following) => following,
            };
            let services = following.next().await;
            Some((services, Start::Done(following)))
        })
        .boxed()
    }

    /// The names of all services with the tags of all their instances, as they change.
    ///
    /// The stream has no end. It must be polled inside a tokio runtime.
    pub fn service_names(&self) -> BoxStream<'static, Level<Arc<ServiceTags>>> {
        let consul = self.clone();
        stream::unfold((None, consul), |(watch, consul)| async move {
            let mut watch = watch.unwrap_or_else(|| names(&consul));
            let level = watch.next().await;
            Some((level, (Some(watch), consul)))
        })
        .boxed()
    }

    /// A node as it changes. `None` as value: there is none of this name.
    ///
    /// The stream has no end. It must be polled inside a tokio runtime.
    pub fn node(&self, name: impl Into<Arc<str>>) -> BoxStream<'static, Level<Option<NodeInfo>>> {
        let (consul, name): (Self, Arc<str>) = (self.clone(), name.into());
        stream::unfold((None, consul, name), |(watch, consul, name)| async move {
            let mut watch = watch.unwrap_or_else(|| node(&consul, &name));
            let level = watch.next().await;
            Some((level, (Some(watch), consul, name)))
        })
        .boxed()
    }

    /// The node and the datacenter of the agent that is asked. Needs the right to read agents.
    ///
    /// # Errors
    ///
    /// If Consul cannot be asked, or denies it.
    pub async fn agent(&self) -> Result<AgentInfo, ConsulError> {
        let ask = Ask::get("/v1/agent/self");
        let what = Arc::clone(&ask.what);
        let answer = self.ask_ok(ask).await?;
        let agent = serde_json::from_slice::<AgentSelf>(&answer.body);
        let config = agent.map_err(|error| ConsulError::decode(&what, error))?.config;
        Ok(AgentInfo { node: config.node_name, datacenter: config.datacenter })
    }

    /// The datacenters that are known, the nearest first.
    ///
    /// # Errors
    ///
    /// If Consul cannot be asked, or denies it.
    pub async fn datacenters(&self) -> Result<Vec<Arc<str>>, ConsulError> {
        let ask = Ask::get("/v1/catalog/datacenters");
        let what = Arc::clone(&ask.what);
        let answer = self.ask_ok(ask).await?;
        serde_json::from_slice(&answer.body).map_err(|error| ConsulError::decode(&what, error))
    }
}

fn names(consul: &Consul) -> Watch<Arc<ServiceTags>> {
    let ask = consul.catalog(Ask::get("/v1/catalog/services"), None, Consistency::Stale);
    Watch::new(consul, ask, |answer: &Answer| Ok(Arc::new(serde_json::from_slice(&answer.body)?)))
}

fn node(consul: &Consul, name: &str) -> Watch<Option<NodeInfo>> {
    let ask = consul.catalog(Ask::get("/v1/catalog/node/").segment(name), None, Consistency::Stale);
    let site_key = Arc::clone(&consul.shared.config.site_key);
    Watch::new(consul, ask, move |answer: &Answer| {
        let found: Option<CatalogNode> = serde_json::from_slice(&answer.body)?;
        Ok(found.map(|found| {
            let site = found.node.site(&site_key);
            NodeInfo {
                name: found.node.node,
                address: found.node.address.into(),
                datacenter: found.node.datacenter,
                site,
                meta: Arc::new(found.node.meta),
            }
        }))
    })
    // Woken by every registration of a node there is.
    .pause(Duration::from_secs(1))
}

type Wanted = Box<dyn Fn(&str, &[Arc<str>]) -> bool + Send>;

enum Start {
    Not(Consul, Wanted),
    Done(Box<Following>),
}

/// Follows the names, and each that is wanted.
struct Following {
    consul: Consul,
    wanted: Wanted,
    names: tokio::sync::watch::Receiver<Level<Arc<ServiceTags>>>,
    /// Ends with this.
    _tasks: JoinSet<()>,
    /// The names that are believed in.
    believed: Option<Arc<ServiceTags>>,
    /// When a catalog that is suspiciously empty is looked at again.
    again: Option<Instant>,
    catalog: Option<Degraded>,
    subscriptions: HashMap<Arc<str>, Subscription>,
    tap: Arc<Changed>,
    /// Those whose first answer has not come.
    unknown: HashSet<Arc<str>>,
    degraded: BTreeMap<Arc<str>, Degraded>,
    all: Arc<BTreeMap<Arc<str>, Instances>>,
    changed: HashSet<Arc<str>>,
    /// Until then the first level waits; nothing once it was told.
    first_until: Option<Instant>,
    told: Option<Option<Degraded>>,
    /// What was told of completeness.
    complete: bool,
    /// Whether there ever was a service.
    seen: bool,
    /// Since when services are listed and none is shown.
    hidden_since: Option<Instant>,
    forgotten: Forgotten,
}

impl Following {
    fn new(consul: Consul, wanted: Wanted) -> Self {
        let mut tasks = JoinSet::new();
        let names = pump(&mut tasks, names(&consul));
        let forgotten = Forgotten::new(&consul.shared.doubt);
        Self {
            consul,
            wanted,
            names,
            _tasks: tasks,
            believed: None,
            again: None,
            catalog: None,
            subscriptions: HashMap::new(),
            tap: Arc::default(),
            unknown: HashSet::new(),
            degraded: BTreeMap::new(),
            all: Arc::default(),
            changed: HashSet::new(),
            first_until: None,
            told: None,
            complete: false,
            seen: false,
            hidden_since: None,
            forgotten,
        }
    }

    async fn next(&mut self) -> Services {
        loop {
            let far = Instant::now() + Duration::from_secs(3600);
            let hidden_until = self.hidden_since.map(|since| since + GONE_WITHIN);
            let due = match hidden_until.filter(|until| *until > Instant::now()) {
                None => [self.first_until, self.again],
                until => [until, self.again],
            };
            let due = due.into_iter().flatten().min().unwrap_or(far);
            let tap = Arc::clone(&self.tap);
            tokio::select! {
                Ok(()) = self.names.changed() => self.renamed().await,
                () = tap.wait() => self.update(),
                () = time::sleep_until(due) => {
                    if self.again.is_some_and(|at| at <= Instant::now()) {
                        self.renamed().await;
                    }
                }
            }
            if let Some(services) = self.level() {
                return services;
            }
        }
    }

    /// The level, if there is something to tell.
    fn level(&mut self) -> Option<Services> {
        let hidden = self.hides_instances();
        if self.told.is_none() {
            let until = self.first_until?;
            if !self.unknown.is_empty() && Instant::now() < until || hidden == Some(false) {
                return None;
            }
            self.first_until = None;
        }
        let hidden = (hidden == Some(true)).then_some(Degraded::SuspiciousEmpty);
        let of_all = self.catalog.clone().or_else(|| self.forgotten.degraded());
        let degraded = of_all.or_else(|| self.degraded.values().next().cloned()).or(hidden);
        let is_same = self.told.as_ref().is_some_and(|told| same_health(told.as_ref(), degraded.as_ref()));
        let complete = self.believed.is_some() && self.unknown.is_empty() && self.hidden_since.is_none();
        if self.changed.is_empty() && is_same && (self.complete || !complete) {
            return None;
        }
        self.complete = complete;
        self.told = Some(degraded.clone());
        let mut changed: Vec<_> = self.changed.drain().collect();
        changed.sort_unstable();
        Some(Services { all: Arc::clone(&self.all), changed, complete, degraded })
    }

    /// Whether services are listed, and there never was an instance of any: the token may read services, and not nodes.
    /// Nothing if that is not so; false if they may as well have gone just now.
    fn hides_instances(&mut self) -> Option<bool> {
        if self.seen || self.subscriptions.is_empty() || !self.unknown.is_empty() {
            self.hidden_since = None;
            return None;
        }
        let now = Instant::now();
        Some(now >= *self.hidden_since.get_or_insert(now) + GONE_WITHIN)
    }

    /// The names may have changed.
    async fn renamed(&mut self) {
        let level = self.names.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.catalog, level.degraded);
        if let Some(names) = level.value {
            let emptiness = &self.consul.shared.hub.emptiness;
            let was_empty = self.believed.as_ref().is_some_and(|names| names.is_empty());
            if names.is_empty() && !was_empty {
                match emptiness.look(&self.consul, Instant::now()).await {
                    Seen::Nothing => {}
                    // What is there now is told by the watch.
                    Seen::Services => {
                        self.catalog = self.catalog.take().or(before);
                        self.again = Some(Instant::now() + DOUBT);
                        return;
                    }
                    Seen::Hidden | Seen::Unknown => {
                        self.catalog = Some(Degraded::SuspiciousEmpty);
                        self.again = Some(Instant::now() + DOUBT);
                        if self.told.is_none() {
                            self.first_until.get_or_insert_with(Instant::now);
                        }
                        return;
                    }
                }
            }
            let was_told = self.again.take().is_some() && !self.forgotten.is_some();
            let kept = self.follow(&names);
            // That all are forgotten is said by the level.
            if kept > 0 && !was_told && !self.forgotten.is_some() {
                tracing::warn!(
                    services = kept,
                    "services have vanished while consul was not well; they stay until it has been well for a while"
                );
            }
            self.believed = Some(names);
        }
        if self.told.is_none() && (self.believed.is_some() || self.catalog.is_some()) {
            self.first_until.get_or_insert_with(|| Instant::now() + FIRST);
        }
    }

    /// Follows what is wanted now, and nothing else unless losses are doubted. Says how many are followed for that: each
    /// keeps what was known of it.
    fn follow(&mut self, names: &ServiceTags) -> usize {
        let wanted: HashSet<_> =
            names.iter().filter(|(name, tags)| (self.wanted)(name, tags)).map(|(name, _)| name).collect();
        let gone: Vec<_> =
            self.subscriptions.keys().filter(|name| !wanted.contains(name)).map(Arc::clone).collect();
        let is_all = gone.len() == self.subscriptions.len() && !self.all.is_empty();
        let now = Instant::now();
        let doubted = self.forgotten.kept_until(&gone, is_all, now);
        let (gone, kept) = if doubted.is_some() { (Vec::new(), gone.len()) } else { (gone, 0) };
        if kept > 0 {
            // A long doubt may end before its time.
            self.again = doubted.map(|until| until.min(now + DOUBT));
        }
        for name in gone {
            self.subscriptions.remove(&name);
            self.unknown.remove(&name);
            self.degraded.remove(&name);
            self.set(&name, None);
        }
        let new: Vec<_> = wanted.into_iter().filter(|name| !self.subscriptions.contains_key(*name)).collect();
        let doublings = usize::BITS - new.len().leading_zeros();
        let spread = if new.len() > 1 { SPREAD * doublings } else { Duration::ZERO };
        for service in new {
            let name =
                Name { service: Arc::clone(service), datacenter: None, consistency: Consistency::Stale };
            let subscription = Subscription::new(&self.consul, name, Some(Arc::clone(&self.tap)), spread);
            self.subscriptions.insert(Arc::clone(service), subscription);
            self.unknown.insert(Arc::clone(service));
        }
        kept
    }

    /// Takes over what has changed: work for each change, not for each service.
    fn update(&mut self) {
        for name in self.tap.take() {
            let Some(subscription) = self.subscriptions.get(&name) else { continue };
            let Level { value, degraded } = subscription.level();
            match degraded {
                Some(degraded) => {
                    self.degraded.insert(Arc::clone(&name), degraded);
                }
                None => {
                    self.degraded.remove(&name);
                }
            }
            if let Some(found) = value {
                self.unknown.remove(&name);
                self.set(&name, (!found.is_absent()).then_some(found.instances));
            }
        }
    }

    fn set(&mut self, name: &Arc<str>, instances: Option<Instances>) {
        if self.all.get(name) == instances.as_ref() {
            return;
        }
        // A copy of the map only if somebody has kept the last one.
        let all = Arc::make_mut(&mut self.all);
        match instances {
            Some(instances) => all.insert(Arc::clone(name), instances),
            None => all.remove(name),
        };
        self.seen |= !all.is_empty();
        self.changed.insert(Arc::clone(name));
    }
}
