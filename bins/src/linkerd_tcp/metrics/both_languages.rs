//! Names that do not depend on the language of the configuration, beside those of the original.
//!
//! Pages and alerts are made of these, so that they are the same for all.

use std::sync::Arc;

use meshlib::balance::ReplicaState;
use meshlib::balance::View;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::observe::prometheus::Counter;
use meshlib::observe::prometheus::Gauge;
use meshlib::observe::prometheus::Histogram;
use meshlib::observe::prometheus::Registry;
use meshlib::observe::prometheus::SECONDS;

use crate::kit::state::Totals;

const ENDED: &str = "linkerd_tcp_connections_total";
const ACTIVE: &str = "linkerd_tcp_connections_active";
const UNANSWERED: &str = "linkerd_tcp_connections_unanswered_total";
const FIRST_BYTE: &str = "linkerd_tcp_first_byte_seconds";
const READY: &str = "linkerd_tcp_connection_ready_seconds";

/// The connections of a router, and what the original counts of them.
#[derive(Debug)]
pub(super) struct Server {
    original: Arc<dyn Observer>,
    ok: Counter,
    failed: Counter,
    active: Gauge,
    ready: Histogram,
    first_byte: Histogram,
    unanswered: Counter,
}

impl Server {
    pub(super) fn new(
        registry: &Registry,
        router: &str,
        dst: &str,
        tls: bool,
        original: Arc<dyn Observer>,
    ) -> Self {
        let here = [("router", router)];
        let there = [here[0], ("dst", dst)];
        let tls = if tls { "true" } else { "false" };
        let ended = |result| {
            let help = "Connections that have ended: ok, failed (no endpoint, a handshake or stream that broke, or cut off).";
            registry.counter(ENDED, help, &[here[0], ("result", result), ("tls", tls)])
        };
        Self {
            original,
            ok: ended("ok"),
            failed: ended("failed"),
            active: registry.gauge(ACTIVE, "Connections that live.", &here),
            ready: registry.histogram(READY, "From accept until bytes may flow.", &here, SECONDS),
            first_byte: registry.histogram(
                FIRST_BYTE,
                "From the client's first byte to the endpoint's, or from when bytes may flow if the endpoint speaks first.",
                &there,
                SECONDS,
            ),
            unanswered: registry.counter(
                UNANSWERED,
                "Connections over which a client asked and then waited, and the endpoint sent no byte for 10 s or more, or until they ended.",
                &there,
            ),
        }
    }
}

impl Observer for Server {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Accepted { .. } => self.active.add(1),
            Event::Opened { session } => self.ready.observe(session.accepted.elapsed().as_secs_f64()),
            Event::FirstByte { took } => self.first_byte.observe(took.as_secs_f64()),
            Event::Unanswered => self.unanswered.inc(),
            Event::Ended { error, forced } => {
                self.active.sub(1);
                if error.is_some() || *forced { self.failed.inc() } else { self.ok.inc() }
            }
            _ => {}
        }
        self.original.on(event);
    }

    fn wants_progress(&self) -> bool {
        self.original.wants_progress()
    }
}

pub(super) fn balancer(registry: &Registry, router: &str, dst: &str, view: &View) {
    let gauge = |state, count: fn(&View) -> f64| {
        let (labels, view) = ([("router", router), ("dst", dst), ("state", state)], view.clone());
        registry.gauge_fn("endpoints", "Endpoints by how they do.", &labels, move || count(&view));
    };
    gauge("ready", |view| super::endpoints(view, |state| state == ReplicaState::Ready));
    gauge("ejected", |view| super::endpoints(view, |state| state != ReplicaState::Ready));
    gauge("draining", super::retired);
}

/// What has been served since the start.
pub(super) fn totals(registry: &Registry) -> Totals {
    let count = |label: &str, value: &str| registry.sum(ENDED, |it| it.get(label) == Some(value)) as u64;
    let (ok, failed) = (count("result", "ok"), count("result", "failed"));
    Totals {
        unit: "connections",
        ended: ok + failed,
        failed,
        tls: Some(count("tls", "true")),
        in_flight: registry.sum(ACTIVE, |_| true).max(0.0) as u64,
        latency: registry.buckets(READY, |_| true),
    }
}
