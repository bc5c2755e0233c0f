//! What is counted.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use http::StatusCode;
use meshlib::observe::prometheus::Counter;
use meshlib::observe::prometheus::Gauge;
use meshlib::observe::prometheus::Histogram;
use meshlib::observe::prometheus::Labels;
use meshlib::observe::prometheus::Registry;
use meshlib::observe::prometheus::SECONDS;
use tokio::time::Instant;

use crate::kit::metrics::of_process;
use crate::kit::state::Totals;

/// All metrics of the program. A clone is the same set.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) registry: Registry,
    pub(super) retries: Counter,
    pub(super) no_route: Counter,
    pub(super) redirects: Counter,
    pub(super) rules: Gauge,
    pub(super) tag_problems: Gauge,
    pub(super) lost_services: Gauge,
    pub(super) table_builds: Counter,
    pub(super) cut: Cut,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        of_process(&registry, "tricot");
        let counter = |name, help| registry.counter(name, help, &[]);
        Self {
            retries: counter(
                "tricot_retries_total",
                "Attempts beyond the first, made after an instance did not take the request.",
            ),
            no_route: counter("tricot_no_route_total", "Requests that no rule was for."),
            redirects: counter(
                "tricot_redirects_total",
                "Requests answered with a redirect, to HTTPS or by a tag.",
            ),
            rules: registry.gauge("tricot_rules", "Rules of the table.", &[]),
            tag_problems: registry.gauge(
                "tricot_instances_with_tag_problems",
                "Instances with tags that cannot be used as they are; /rules says which.",
                &[],
            ),
            lost_services: registry.gauge(
                "tricot_consul_lost_services",
                "Services that Consul has lost and whose rules stay for a while; 0 otherwise.",
                &[],
            ),
            table_builds: counter("tricot_table_builds_total", "Tables made."),
            cut: Cut::default(),
            registry,
        }
    }

    /// What has been served since the start. All of it was over TLS: others are redirected.
    pub(super) fn totals(&self) -> Totals {
        let is_failure = |labels: &Labels| labels.get("code").is_some_and(|code| code.starts_with('5'));
        let ended = self.registry.sum("tricot_requests_total", |_| true) as u64;
        Totals {
            unit: "requests",
            ended,
            failed: self.registry.sum("tricot_requests_total", is_failure) as u64,
            tls: Some(ended),
            in_flight: self.registry.sum("tricot_requests_in_flight", |_| true).max(0.0) as u64,
            latency: self.registry.buckets("tricot_request_duration_seconds", |_| true),
        }
    }

    /// The requests of a rule's host that no instance of a service has answered; both are empty for those that no rule
    /// is for.
    pub(super) fn unserved(&self, host: &str, service: &str) -> Requests {
        Requests::new(&self.registry, host, service)
    }

    pub(super) fn service(&self, service: &str) -> ServiceMetrics {
        let labels = [("service", service)];
        ServiceMetrics {
            durations: self.registry.histogram(
                "tricot_request_duration_seconds",
                "From a request's head to the end of its answer.",
                &labels,
                SECONDS,
            ),
            in_flight: self.registry.gauge(
                "tricot_requests_in_flight",
                "Requests sent to an instance whose answer has not ended.",
                &labels,
            ),
        }
    }

    pub(super) fn backend_error(&self, service: &str, node: &str, kind: &'static str) {
        let labels = [("service", service), ("node", node), ("kind", kind)];
        self.registry.counter("tricot_backend_errors_total", "Failures of instances.", &labels).inc();
    }

    /// Forgets services that are gone.
    pub(super) fn retain_services(&self, lives: impl Fn(&str) -> bool) {
        self.registry.forget(|_, labels| {
            labels.get("service").is_some_and(|service| !service.is_empty() && !lives(service))
        });
    }

    /// The gauge of open connections of a listener.
    pub(super) fn connections(&self, listener: &str) -> Gauge {
        self.registry.gauge("tricot_connections", "Open connections of clients.", &[("listener", listener)])
    }
}

/// The requests that a drain has cut. A clone counts the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut(Arc<Cutting>);

#[derive(Debug, Default)]
struct Cutting {
    /// When the grace is over.
    from: OnceLock<Instant>,
    requests: AtomicU64,
}

impl Cut {
    /// A drain begins.
    pub(super) fn within(&self, grace: Duration) {
        // A drain begins once.
        let _ = self.0.from.set(Instant::now() + grace);
    }

    /// A request has ended before its answer has. Whether it was cut.
    pub(super) fn incomplete(&self) -> bool {
        let is_cut = self.0.from.get().is_some_and(|from| *from <= Instant::now());
        if is_cut {
            self.0.requests.fetch_add(1, Ordering::Relaxed);
        }
        is_cut
    }

    /// How many requests ended so when the grace was over.
    pub(super) fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }
}

/// The metrics of one service.
#[derive(Clone, Debug)]
pub(super) struct ServiceMetrics {
    pub(super) durations: Histogram,
    pub(super) in_flight: Gauge,
}

/// The requests of one rule's host to one service, by method and status.
#[derive(Debug)]
pub(super) struct Requests {
    registry: Registry,
    host: Arc<str>,
    service: Arc<str>,
    /// Few each: found by a look at all of them.
    counters: Mutex<Vec<((&'static str, StatusCode), Counter)>>,
}

impl Requests {
    pub(super) fn new(registry: &Registry, host: &str, service: &str) -> Self {
        let counters = Mutex::default();
        Self { registry: registry.clone(), host: host.into(), service: service.into(), counters }
    }

    /// The service that they are for.
    pub(super) fn service(&self) -> &Arc<str> {
        &self.service
    }

    pub(super) fn count(&self, method: &Method, status: StatusCode) {
        let method = known(method);
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counter)) = counters.iter().find(|(of, _)| *of == (method, status)) {
            counter.inc();
            return;
        }
        let labels = [
            ("host", &*self.host),
            ("service", &*self.service),
            ("code", status.as_str()),
            ("method", method),
        ];
        let counter = self.registry.counter("tricot_requests_total", "Requests that have ended.", &labels);
        counter.inc();
        counters.push(((method, status), counter));
    }
}

/// Methods come from clients, and labels must not.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "CONNECT" => "CONNECT",
        "QUERY" => "QUERY",
        _ => "other",
    }
}
