//! The endpoints of one service.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use futures::stream::BoxStream;
use meshlib::Endpoint;
use meshlib::Resolution;
use meshlib::Resolver;
use meshlib::Update;
use meshlib::Weight;
use meshlib::resolve::Dns;
use meshlib::resolve::ResolveError;
use tokio::time;
use tokio::time::Instant;

use crate::ask::Consistency;
use crate::client::Consul;
use crate::follow::Found;
use crate::follow::Name;
use crate::hub::Subscription;
use crate::instance::Instance;
use crate::instance::Instances;
use crate::instance::Status;
use crate::watch::Degraded;
use crate::watch::Level;

/// How long the addresses of all host names may take to be found.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Time after which host names are looked up again.
const LOOK_UP_EVERY: Duration = Duration::from_secs(30);

/// One service: a [`Resolver`] of its endpoints, whatever target it is asked for.
///
/// Endpoints are the instances that have one of the wanted states, by default passing and warning, with their weights for
/// that state. A service that nobody has registered is [`Update::NotFound`]; one without an instance that can be used is
/// an empty set. While Consul fails the last set stays, and until it has been well for 10 s endpoints only come: an agent
/// that was started again may not know yet what it knew. Where [`Consul::services`] of the same client finds everything
/// [forgotten](Degraded::Forgotten), it is 5 min instead, or until all services that it follows are back.
///
/// An instance that is registered with a host name has an endpoint for each of its addresses, looked up every 30 s.
///
/// # Examples
///
/// ```
/// use meshlib::{BalanceLayer, TcpConnector};
/// use meshlib_consul::{Config, Consul, Status};
/// use tower::Layer;
///
/// # fn main() -> Result<(), meshlib_consul::ConfigError> {
/// let consul = Consul::new(Config::default())?;
/// let web = consul.service("web").statuses([Status::Passing]).tag("primary");
/// let connect = BalanceLayer::new(web, "web").layer(TcpConnector::default());
/// # drop(connect);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Service {
    consul: Consul,
    name: Name,
    select: Select,
}

/// Which instances are taken.
#[derive(Clone, Debug)]
struct Select {
    statuses: Arc<[Status]>,
    tag: Option<Arc<str>>,
}

impl Consul {
    /// The service of this name.
    pub fn service(&self, name: impl Into<Arc<str>>) -> Service {
        let name = Name { service: name.into(), datacenter: None, consistency: Consistency::Stale };
        let select = Select { statuses: [Status::Passing, Status::Warning].into(), tag: None };
        Service { consul: self.clone(), name, select }
    }
}

impl Service {
    /// Sets which states an instance may be in. Default passing and warning.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = Status>) -> Self {
        self.select.statuses = statuses.into_iter().collect();
        self
    }

    /// Takes only instances with this tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Arc<str>>) -> Self {
        self.select.tag = Some(tag.into());
        self
    }

    /// Sets the datacenter. Default that of the client.
    #[must_use]
    pub fn datacenter(mut self, datacenter: impl Into<Arc<str>>) -> Self {
        self.name.datacenter = Some(datacenter.into());
        self
    }

    /// Sets how sure an answer must be. Default [`Consistency::Stale`].
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.name.consistency = consistency;
        self
    }

    /// All its instances, whatever their states and tags, now and after each change.
    ///
    /// The [`value`](Level::value) of a level is `Some(Some(instances))`, `Some(None)` if nobody has registered the service,
    /// and `None` as long as Consul has not answered. The stream has no end. It must be polled inside a tokio runtime.
    ///
    /// It is for looking at a service. A balancer follows the service by itself and not in step with this stream: what one of
    /// them has seen the other may see a moment later.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use futures::StreamExt;
    /// use meshlib_consul::{Config, Consul};
    ///
    /// # async fn example() -> Result<(), meshlib_consul::ConfigError> {
    /// let consul = Consul::new(Config::default())?;
    /// let mut levels = consul.service("web").instances();
    /// while let Some(level) = levels.next().await {
    ///     match level.value {
    ///         Some(Some(instances)) => println!("{} instances", instances.len()),
    ///         Some(None) => println!("nobody has registered it"),
    ///         None => println!("Consul has not answered yet"),
    ///     }
    ///     if let Some(why) = level.degraded {
    ///         println!("this may be out of date: {why:?}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn instances(&self) -> BoxStream<'static, Level<Option<Instances>>> {
        let (consul, name) = (self.consul.clone(), self.name.clone());
        stream::unfold((None, consul, name), |(subscription, consul, name)| async move {
            let mut subscription = subscription
                .unwrap_or_else(|| Subscription::new(&consul, name.clone(), None, Duration::ZERO));
            let level = subscription.next().await;
            let level = level.map(|found| (!found.is_absent()).then_some(found.instances));
            Some((level, (Some(subscription), consul, name)))
        })
        .boxed()
    }
}

impl<T> Resolver<T> for Service {
    fn resolve(&self, _: T) -> Resolution {
        let (consul, name, select) = (self.consul.clone(), self.name.clone(), self.select.clone());
        let start = stream::once(async move {
            let hosts = Hosts::new(consul.shared.config.dns.clone());
            let service = Arc::clone(&name.service);
            let subscription = Subscription::new(&consul, name, None, Duration::ZERO);
            Resolving {
                subscription,
                service,
                select,
                hosts,
                level: None,
                told: None,
                failed: false,
                more: None,
            }
        });
        Resolution::new(
            start
                .map(|resolving| {
                    stream::unfold(resolving, |mut resolving| async move {
                        let item = resolving.next().await;
                        Some((item, resolving))
                    })
                })
                .flatten(),
        )
    }
}

/// A client resolves the names of services.
impl<T: AsRef<str>> Resolver<T> for Consul {
    fn resolve(&self, target: T) -> Resolution {
        self.service(target.as_ref()).resolve(())
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("select", &self.select)
            .finish_non_exhaustive()
    }
}

struct Resolving {
    subscription: Subscription,
    service: Arc<str>,
    select: Select,
    hosts: Hosts,
    level: Option<Level<Found>>,
    told: Option<Update>,
    /// Whether an error was told after that.
    failed: bool,
    /// What is to be told next.
    more: Option<ResolveError>,
}

impl Resolving {
    /// The next update, or why the last one may be out of date.
    async fn next(&mut self) -> Result<Update, ResolveError> {
        if let Some(error) = self.more.take() {
            self.failed = true;
            return Err(error);
        }
        loop {
            match self.hosts.again_at() {
                None => self.level = Some(self.subscription.next().await),
                Some(at) => tokio::select! {
                    level = self.subscription.next() => self.level = Some(level),
                    () = time::sleep_until(at) => {}
                },
            }
            let Some(level) = self.level.clone() else { continue };
            let update = match level.value {
                Some(found) => Some(self.update(&found).await),
                // Nothing can be found where there is no way to.
                None => match &level.degraded {
                    Some(Degraded::Failing(error)) if error.is_unknown_datacenter() => Some(Update::NotFound),
                    _ => None,
                },
            };
            let error = level.degraded.and_then(|degraded| self.error(degraded));
            let is_news = update.is_some() && update != self.told;
            match (update, error) {
                (Some(update), error) if is_news => {
                    self.told = Some(update.clone());
                    (self.failed, self.more) = (false, error);
                    return Ok(update);
                }
                (_, Some(error)) => {
                    self.failed = true;
                    return Err(error);
                }
                // That it works again is worth an update that says the same.
                (Some(update), None) if self.failed => {
                    self.failed = false;
                    return Ok(update);
                }
                _ => {}
            }
        }
    }

    async fn update(&mut self, found: &Found) -> Update {
        if found.is_absent() {
            return Update::NotFound;
        }
        let taken: Vec<_> = found.instances.iter().filter(|instance| self.select.takes(instance)).collect();
        self.hosts.look_up(taken.iter().map(|instance| &***instance)).await;
        let endpoints = taken.into_iter().flat_map(|instance| {
            let weight = self.select.weight(instance);
            let addrs = match instance.addr() {
                Some(addr) => vec![addr],
                None => self.hosts.addrs(instance),
            };
            addrs.into_iter().filter_map(move |addr| Some(instance.endpoint(addr).with_weight(weight?)))
        });
        Update::endpoints(endpoints.collect::<Vec<Endpoint>>())
    }

    /// An answer that is a little old is an answer.
    fn error(&self, degraded: Degraded) -> Option<ResolveError> {
        match degraded {
            Degraded::NoLeader | Degraded::Lagging(_) | Degraded::Forgotten { .. } => None,
            Degraded::SuspiciousEmpty => Some(ResolveError::Undecided {
                name: Arc::clone(&self.service),
                reason: "everything has vanished from the catalog".to_owned(),
            }),
            Degraded::Failing(error) => Some(error.into()),
        }
    }
}

impl Select {
    fn takes(&self, instance: &Instance) -> bool {
        self.statuses.contains(&instance.status)
            && self.tag.as_ref().is_none_or(|tag| instance.tags.contains(tag))
            && self.weight(instance).is_some()
    }

    /// Whoever wants critical instances wants them to be used.
    fn weight(&self, instance: &Instance) -> Option<Weight> {
        match instance.status {
            Status::Critical | Status::Maintenance => Weight::new(f64::from(instance.weights.passing)).ok(),
            _ => instance.weight(),
        }
    }
}

/// The addresses of host names that instances are registered with.
struct Hosts {
    dns: Dns,
    found: HashMap<Arc<str>, Vec<IpAddr>>,
    looked: Option<Instant>,
}

impl Hosts {
    fn new(dns: Dns) -> Self {
        Self { dns, found: HashMap::new(), looked: None }
    }

    fn again_at(&self) -> Option<Instant> {
        self.looked.filter(|_| !self.found.is_empty()).map(|at| at + LOOK_UP_EVERY)
    }

    /// Looks up those that are new, or all when it is time. What cannot be found keeps the addresses it had.
    async fn look_up(&mut self, instances: impl Iterator<Item = &Instance>) {
        let hosts: HashSet<_> = instances
            .filter(|instance| instance.addr().is_none())
            .map(|instance| Arc::clone(&instance.address))
            .collect();
        self.found.retain(|host, _| hosts.contains(host));
        if hosts.is_empty() {
            return;
        }
        let is_due = self.again_at().is_none_or(|at| at <= Instant::now());
        let wanted = hosts.into_iter().filter(|host| is_due || !self.found.contains_key(host));
        let dns = &self.dns;
        let answers = stream::iter(wanted)
            .map(|host| async move {
                let answer = time::timeout(LOOK_UP, dns.resolve(format!("{host}:1")).next()).await;
                (host, answer)
            })
            .buffer_unordered(16)
            .collect::<Vec<_>>()
            .await;
        for (host, answer) in answers {
            if let Ok(Some(Ok(Update::Endpoints(endpoints)))) = answer {
                self.found.insert(host, endpoints.iter().map(|endpoint| endpoint.addr.ip()).collect());
            } else {
                self.found.entry(host).or_insert_with_key(|host| {
                    tracing::warn!(%host, "instances with this host name are left out: it has no address");
                    Vec::new()
                });
            }
        }
        if is_due {
            self.looked = Some(Instant::now());
        }
    }

    fn addrs(&self, instance: &Instance) -> Vec<SocketAddr> {
        let ips = self.found.get(&instance.address).map(Vec::as_slice).unwrap_or_default();
        ips.iter().map(|ip| SocketAddr::new(*ip, instance.port)).collect()
    }
}
