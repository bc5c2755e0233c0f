//! An instance as a place to send requests to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderMap;
use meshlib::Endpoint;
use meshlib::Metadata;
use meshlib::Weight;
use meshlib_consul::Instance;
use meshlib_consul::Status;

use super::metrics::Metrics;
use super::metrics::Requests;
use super::metrics::ServiceMetrics;
use super::seldom::Seldom;
use super::tags::Backend as Speaks;
use super::tags::Registration;
use super::tags::Spread;

/// An instance with what its tags say.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) instance: Arc<Instance>,
    pub(super) registration: Registration,
    pub(super) metrics: ServiceMetrics,
}

impl Known {
    pub(super) fn new(instance: Arc<Instance>, metrics: &Metrics) -> Self {
        let registration = Registration::from_tags(instance.tags.iter());
        let metrics = metrics.service(&instance.service);
        Self { instance, registration, metrics }
    }

    /// Whether this is what is known of an instance as it is.
    pub(super) fn is_of(&self, instance: &Arc<Instance>) -> bool {
        Arc::ptr_eq(&self.instance, instance) || self.instance == *instance
    }

    /// Why the instance must get no traffic, if that is so.
    pub(super) fn unused(&self, statuses: &[Status]) -> &'static str {
        match self.instance.status {
            Status::Critical => "a check is critical",
            Status::Maintenance => "it is under maintenance",
            Status::Warning if !statuses.contains(&Status::Warning) => {
                "a check warns, and TRICOT_HEALTH is passing"
            }
            Status::Warning if self.instance.weight().is_none() => {
                "a check warns, and its weight for that is 0"
            }
            _ => "its address is a name that is not found yet",
        }
    }

    /// The share of traffic that the instance gets; nothing if it must get none.
    pub(super) fn weight(&self, statuses: &[Status]) -> Option<Weight> {
        let weight = self.instance.weight()?;
        statuses.contains(&self.instance.status).then_some(weight)
    }
}

/// An instance under one rule: what is attached to its endpoint.
#[derive(Debug)]
pub(super) struct Backend {
    known: Arc<Known>,
    speaks: Speaks,
    requests: Requests,
    faults: Arc<Faults>,
}

/// What an instance has done wrong, whatever its tags say.
#[derive(Debug, Default)]
struct Faults {
    /// Answers that it has broken off.
    broken: AtomicU64,
    broke_off: Seldom,
    did_not_answer: Seldom,
}

impl Backend {
    pub(super) fn new(known: Arc<Known>, speaks: Speaks, host: &str, metrics: &Metrics) -> Self {
        let requests = Requests::new(&metrics.registry, host, &known.instance.service);
        Self { known, speaks, requests, faults: Arc::default() }
    }

    /// The same instance as this one was, counting on.
    pub(super) fn after(self, before: &Self) -> Self {
        Self { faults: Arc::clone(&before.faults), ..self }
    }

    pub(super) fn is_of(&self, known: &Arc<Known>, speaks: Speaks) -> bool {
        Arc::ptr_eq(&self.known, known) && self.speaks == speaks
    }

    pub(super) fn instance(&self) -> &Instance {
        &self.known.instance
    }

    pub(super) fn metrics(&self) -> &ServiceMetrics {
        &self.known.metrics
    }

    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Counts an answer that the instance has broken off, and says so now and then.
    pub(super) fn broke_off(&self, metrics: &Metrics, error: &str) {
        let instance = self.instance();
        self.faults.broken.fetch_add(1, Ordering::Relaxed);
        metrics.backend_error(&instance.service, &instance.node, "body");
        if let Some(times) = self.faults.broke_off.happened() {
            tracing::warn!(
                target: "tricot",
                service = %instance.service,
                node = %instance.node,
                instance = %instance.id,
                addr = %format_args!("{}:{}", instance.address, instance.port),
                times,
                error,
                "an instance broke off in the middle of an answer"
            );
        }
    }

    /// Says that the instance did not answer a request under a rule: now and then where that `matters`, each time at debug.
    pub(super) fn did_not_answer(
        &self,
        rule: &str,
        addr: SocketAddr,
        took: Duration,
        error: &str,
        matters: bool,
    ) {
        let instance = self.instance();
        let (service, node, id) = (&*instance.service, &*instance.node, &*instance.id);
        if let Some(times) = matters.then(|| self.faults.did_not_answer.happened()).flatten() {
            tracing::info!(
                target: "tricot", rule, service, node, instance = id, %addr, ?took, times, error,
                "an instance did not answer"
            );
        } else {
            tracing::debug!(
                target: "tricot", rule, service, node, instance = id, %addr, ?took, error,
                "an instance did not answer"
            );
        }
    }

    /// How many answers the instance has broken off.
    pub(super) fn broken(&self) -> u64 {
        self.faults.broken.load(Ordering::Relaxed)
    }

    pub(super) fn speaks_tls(&self) -> bool {
        self.speaks == Speaks::Https
    }

    /// Puts the headers of the instance's tags into an answer.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        self.known.registration.add_headers(headers);
    }

    /// The endpoint that stands for it: equal for as long as the backend is the same.
    pub(super) fn endpoint(self: &Arc<Self>, addr: SocketAddr, weight: Weight) -> Endpoint {
        let instance = self.instance();
        let tls = if self.speaks_tls() { " (tls)" } else { "" };
        let mut metadata =
            Metadata::new().with_node(Arc::clone(&instance.node)).with_attachment(Arc::clone(self));
        if let Some(site) = &instance.site {
            metadata = metadata.with_zone(Arc::clone(site));
        }
        Endpoint::new(addr)
            .with_instance(format!("{}/{}/{}{tls}", instance.datacenter, instance.node, instance.id))
            .with_weight(weight)
            .with_metadata(metadata)
    }

    /// The backend that an endpoint stands for.
    pub(super) fn of(endpoint: &Endpoint) -> Option<Arc<Self>> {
        endpoint.metadata.attached()
    }
}

/// Where the proxy itself runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) node: Option<Arc<str>>,
    pub(super) site: Option<Arc<str>>,
}

impl Own {
    /// How near an endpoint is, the nearest first: of two wishes, to stay on the node and to stay at the site, the first
    /// counts for more.
    pub(super) fn tier(&self, endpoint: &Endpoint) -> u32 {
        let Some(backend) = Backend::of(endpoint) else { return u32::MAX };
        let (instance, spread) = (&backend.known.instance, backend.known.registration.spread);
        let same_node = spread == Spread::Nearest && self.node.as_ref() == Some(&instance.node);
        let same_site =
            spread != Spread::Global && self.site.is_some() && self.site.as_ref() == instance.site.as_ref();
        3 - (2 * u32::from(same_node) + u32::from(same_site))
    }
}
