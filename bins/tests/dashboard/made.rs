//! A program that is not there: what it would say of itself.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::SystemTime;

use bins::kit::state::Certificate;
use bins::kit::state::Destination;
use bins::kit::state::EndpointState;
use bins::kit::state::Reload;
use bins::kit::state::Source;
use bins::kit::state::Totals;

/// What is said.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) destinations: Vec<Destination>,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) unready: Vec<String>,
    pub(crate) reload: Reload,
    pub(crate) left_off: usize,
    pub(crate) towards: Option<String>,
    /// How much more has ended at each look.
    pub(crate) each: u64,
    pub(crate) ended: AtomicU64,
}

impl Made {
    /// A program with one destination and nothing to complain about.
    pub(crate) fn calm() -> Self {
        let endpoints = vec![endpoint("10.0.0.1:8080", "ready"), endpoint("10.0.0.2:8080", "ready")];
        let mut reload = Reload::default();
        reload.source = Some("proxy.yml".into());
        reload.successful = true;
        reload.success_ms = now_ms() - 720_000;
        Self { destinations: vec![destination("web", "/svc/web", endpoints)], reload, ..Self::default() }
    }
}

impl Source for Made {
    fn totals(&self) -> Totals {
        let ended = self.ended.fetch_add(self.each, Relaxed);
        let mut totals = Totals::default();
        totals.unit = "connections";
        (totals.ended, totals.failed, totals.tls, totals.in_flight) =
            (ended, ended / 100, Some(ended / 2), 1_234);
        totals.latency = vec![(0.001, ended / 2), (0.1, ended), (f64::INFINITY, ended)];
        totals
    }

    fn destinations(&self, _: usize) -> (Vec<Destination>, usize) {
        (self.destinations.clone(), self.left_off)
    }

    fn towards(&self) -> Option<String> {
        self.towards.clone()
    }

    fn certificates(&self) -> Vec<Certificate> {
        self.certificates.clone()
    }

    fn unready(&self) -> Vec<String> {
        self.unready.clone()
    }

    fn config(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn reload(&self) -> Reload {
        self.reload.clone()
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.expect("a clock").as_millis()).expect("a date")
}

pub(crate) fn days(days: u64) -> u64 {
    u64::try_from(Duration::from_secs(days * 86_400).as_millis()).expect("a span")
}

pub(crate) fn destination(router: &str, dst: &str, endpoints: Vec<EndpointState>) -> Destination {
    let mut destination = Destination::default();
    (destination.router, destination.dst) = (router.into(), dst.into());
    (destination.answer, destination.age_ms) = ("bound".into(), 12_000);
    destination.listens = vec!["127.0.0.1:7474".into()];
    destination.endpoints = endpoints;
    destination
}

pub(crate) fn endpoint(addr: &str, state: &str) -> EndpointState {
    let mut endpoint = EndpointState::default();
    (endpoint.addr, endpoint.state, endpoint.weight) = (addr.into(), state.into(), 1.0);
    (endpoint.picked, endpoint.failed, endpoint.in_flight) = (1_234_567, 3, 7);
    endpoint.answer_time_ms = Some(4.2);
    endpoint.tls = Some("web.example.com".into());
    endpoint
}

pub(crate) fn certificate(name: &str, not_after_ms: u64) -> Certificate {
    let mut certificate = Certificate::default();
    certificate.names = vec![name.into()];
    (certificate.role, certificate.state) = ("server".into(), "valid".into());
    certificate.issuer = Some("Example Authority".into());
    certificate.not_after_ms = Some(not_after_ms);
    certificate
}
