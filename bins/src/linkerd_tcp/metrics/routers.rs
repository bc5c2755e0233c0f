//! The names of generation B (0.1.x).

use std::net::SocketAddr;
use std::time::Duration;

use meshlib::Error;
use meshlib::Side;
use meshlib::Transferred;
use meshlib::balance::ReplicaState;
use meshlib::balance::View;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::observe::prometheus::BYTES;
use meshlib::observe::prometheus::Counter;
use meshlib::observe::prometheus::Gauge;
use meshlib::observe::prometheus::Histogram;
use meshlib::observe::prometheus::MICROSECONDS;
use meshlib::observe::prometheus::MILLISECONDS;
use meshlib::observe::prometheus::Registry;

/// A counter per cause.
#[derive(Debug)]
struct Failures {
    timeout: Counter,
    refused: Option<Counter>,
    other: Counter,
}

impl Failures {
    fn new(registry: &Registry, name: &str, help: &str, labels: &[(&str, &str)]) -> Self {
        let counter = |cause| registry.counter(name, help, &[labels, &[("cause", cause)]].concat());
        Self { timeout: counter("timeout"), refused: None, other: counter("other") }
    }

    /// Connections can be refused, too.
    fn of_connecting(registry: &Registry, name: &str, help: &str, labels: &[(&str, &str)]) -> Self {
        let refused = registry.counter(name, help, &[labels, &[("cause", "refused")]].concat());
        Self { refused: Some(refused), ..Self::new(registry, name, help, labels) }
    }

    fn count(&self, error: &Error) {
        let is_refused = |source: &std::io::Error| source.kind() == std::io::ErrorKind::ConnectionRefused;
        let is_late = |source: &std::io::Error| source.kind() == std::io::ErrorKind::TimedOut;
        match (error, &self.refused) {
            (Error::Timeout { .. }, _) => self.timeout.inc(),
            (Error::Connect { source, .. }, _) if is_late(source) => self.timeout.inc(),
            (Error::Connect { source, .. }, Some(refused)) if is_refused(source) => refused.inc(),
            _ => self.other.inc(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Server {
    accepts: Counter,
    closes: Counter,
    failures: Counter,
    connect_failure: Failures,
    stream_failure: Failures,
    rx_bytes: Counter,
    tx_bytes: Counter,
    active: Gauge,
    streams: Gauge,
    connect_us: Histogram,
    stream_ms: Histogram,
    stream_rx: Histogram,
    stream_tx: Histogram,
    handshake_us: Option<Histogram>,
    route_found: Counter,
    route_error: Counter,
    route_us: Histogram,
    unavailable: Counter,
    open: Gauge,
    connection_ms: Histogram,
}

impl Server {
    /// `streams` counts those at the address; not a metric of its own: what lives and does not stream is waiting.
    pub(super) fn new(
        registry: &Registry,
        rt: &str,
        addr: SocketAddr,
        dst: &str,
        tls: bool,
        streams: Gauge,
    ) -> Self {
        let srv = addr.to_string();
        let here = [("rt", rt), ("srv_addr", srv.as_str())];
        let rt = [("rt", rt)];
        let there = [("dst", dst), rt[0]];
        let active = registry.gauge("l5d:srv:active", "Connections that live.", &here);
        let (living, streaming) = (active.clone(), streams.clone());
        registry.gauge_fn("l5d:srv:waiters", "Clients without a server yet.", &here, move || {
            (living.get() - streaming.get()).max(0) as f64
        });
        registry.counter("l5d:route_create", "Destinations set up.", &rt);
        Self {
            accepts: registry.counter("l5d:srv:accepts", "Connections accepted.", &here),
            closes: registry.counter("l5d:srv:closes", "Connections that ended well.", &here),
            failures: registry.counter("l5d:srv:failures", "Connections that ended badly.", &here),
            connect_failure: Failures::new(
                registry,
                "l5d:srv:connect:failure",
                "Clients that got no server.",
                &here,
            ),
            stream_failure: Failures::new(
                registry,
                "l5d:srv:stream:failure",
                "Streams that ended badly.",
                &here,
            ),
            rx_bytes: registry.counter("l5d:srv:stream:rx_bytes", "Bytes read from clients.", &here),
            tx_bytes: registry.counter("l5d:srv:stream:tx_bytes", "Bytes written to clients.", &here),
            active,
            streams,
            connect_us: registry.histogram(
                "l5d:srv:connect:latency_us",
                "From accept until bytes may flow.",
                &here,
                MICROSECONDS,
            ),
            stream_ms: registry.histogram(
                "l5d:srv:stream:duration_ms",
                "How long bytes could flow.",
                &here,
                MILLISECONDS,
            ),
            stream_rx: registry.histogram(
                "l5d:srv:stream:connection_rx_bytes",
                "Bytes read from one client.",
                &here,
                BYTES,
            ),
            stream_tx: registry.histogram(
                "l5d:srv:stream:connection_tx_bytes",
                "Bytes written to one client.",
                &here,
                BYTES,
            ),
            handshake_us: tls.then(|| {
                let help = "TLS handshakes with clients.";
                registry.histogram("l5d:srv:tls:handshake_us", help, &here, MICROSECONDS)
            }),
            route_found: registry.counter(
                "l5d:route_found",
                "Connections whose destination was set up.",
                &rt,
            ),
            route_error: registry.counter(
                "l5d:route_error",
                "Connections whose destination cannot be told.",
                &rt,
            ),
            route_us: registry.histogram(
                "l5d:route_time_us",
                "From accept until the destination is told.",
                &rt,
                MICROSECONDS,
            ),
            unavailable: registry.counter(
                "l5d:balancer:unavailable",
                "Clients for whom there was no endpoint.",
                &there,
            ),
            open: registry.gauge("l5d:balancer:connection:open", "Connections to endpoints in use.", &there),
            connection_ms: registry.histogram(
                "l5d:balancer:connection:duration_ms",
                "How long a connection to an endpoint was in use.",
                &there,
                MILLISECONDS,
            ),
        }
    }

    fn moved(&self, transferred: &Transferred) {
        self.rx_bytes.add(transferred.upstream);
        self.tx_bytes.add(transferred.downstream);
    }

    fn ready(&self, since_accept: Duration) {
        self.streams.add(1);
        self.open.add(1);
        self.connect_us.observe(micros(since_accept));
    }
}

impl Observer for Server {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Accepted { session } => {
                self.accepts.inc();
                self.active.add(1);
                // Every server has one destination, so it is told as soon as a connection is accepted.
                self.route_found.inc();
                self.route_us.observe(micros(session.accepted.elapsed()));
            }
            Event::Handshake { side: Side::Client, took, error } => {
                if let Some(handshakes) = &self.handshake_us {
                    handshakes.observe(micros(*took));
                }
                if let Some(error) = error {
                    self.connect_failure.count(error);
                }
            }
            Event::Opened { session } => self.ready(session.accepted.elapsed()),
            Event::NotOpened { error } => {
                self.connect_failure.count(error);
                if error.fault() == meshlib::Fault::Discovery {
                    self.unavailable.inc();
                }
                if matches!(error, Error::Refused(_)) {
                    self.route_error.inc();
                }
            }
            Event::Progress { transferred } => self.moved(transferred),
            Event::Closed { transferred, unreported, lasted, error, forced } => {
                self.moved(unreported);
                self.streams.sub(1);
                self.open.sub(1);
                self.stream_rx.observe_u64(transferred.upstream);
                self.stream_tx.observe_u64(transferred.downstream);
                self.stream_ms.observe(lasted.as_secs_f64() * 1e3);
                self.connection_ms.observe(lasted.as_secs_f64() * 1e3);
                match error {
                    Some(error) => self.stream_failure.count(error),
                    None if *forced => self.stream_failure.other.inc(),
                    None => {}
                }
            }
            Event::Ended { error, forced } => {
                self.active.sub(1);
                if error.is_some() || *forced { self.failures.inc() } else { self.closes.inc() }
            }
            _ => {}
        }
    }

    fn wants_progress(&self) -> bool {
        true
    }
}

#[derive(Debug)]
pub(super) struct Destination {
    router: Box<str>,
    attempts: Counter,
    connects: Counter,
    failure: Failures,
    poll_us: Histogram,
    connect_us: Histogram,
}

impl Destination {
    pub(super) fn new(registry: &Registry, rt: &str, dst: &str) -> Self {
        registry.counter("l5d:route_create", "Destinations set up.", &[("rt", rt)]).inc();
        let there = [("dst", dst), ("rt", rt)];
        Self {
            router: rt.into(),
            attempts: registry.counter("l5d:balancer:connection:attempts", "Connections attempted.", &there),
            connects: registry.counter("l5d:balancer:connection:connects", "Connections opened.", &there),
            failure: Failures::of_connecting(
                registry,
                "l5d:balancer:connection:failure",
                "Connections that could not be opened.",
                &there,
            ),
            poll_us: registry.histogram(
                "l5d:balancer:poll_time_us",
                "How long it took to get an endpoint.",
                &there,
                MICROSECONDS,
            ),
            connect_us: registry.histogram(
                "l5d:balancer:connection:latency_us",
                "How long connecting took.",
                &there,
                MICROSECONDS,
            ),
        }
    }
}

impl Observer for Destination {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Attempt { waited, .. } => {
                self.attempts.inc();
                self.poll_us.observe(micros(*waited));
            }
            Event::Attempted { took, error: None, .. } => {
                self.connects.inc();
                self.connect_us.observe(micros(*took));
            }
            Event::Attempted { name, endpoint, error: Some(error), .. } => {
                self.failure.count(error);
                super::log_failure(&self.router, name, endpoint, error);
            }
            Event::Abandoned { .. } => self.failure.other.inc(),
            _ => {}
        }
    }
}

pub(super) fn balancer(registry: &Registry, rt: &str, dst: &str, view: &View) {
    let there = [("dst", dst), ("rt", rt)];
    let ready = view.clone();
    registry.gauge_fn("l5d:balancer:endpoint:available", "Endpoints in use.", &there, move || {
        super::endpoints(&ready, |state| state == ReplicaState::Ready)
    });
    let failed = view.clone();
    registry.gauge_fn("l5d:balancer:endpoint:failed", "Endpoints that failed lately.", &there, move || {
        super::endpoints(&failed, |state| state != ReplicaState::Ready)
    });
    let gone = view.clone();
    let help = "Endpoints gone while streams live.";
    registry.gauge_fn("l5d:balancer:endpoint:retired", help, &there, move || super::retired(&gone));
    let pending = view.clone();
    let help = "Connections being opened.";
    registry.gauge_fn("l5d:balancer:connection:pending", help, &there, move || super::connecting(&pending));
    let waiting = view.clone();
    registry.gauge_fn("l5d:balancer:waiters", "Clients that wait for an endpoint.", &there, move || {
        waiting.state().map_or(0.0, |state| state.waiters as f64)
    });
}

#[derive(Debug)]
pub(super) struct Resolver {
    success: Counter,
    failure: Counter,
    latency_ms: Histogram,
}

impl Resolver {
    pub(super) fn new(registry: &Registry, rt: &str, namespace: &str) -> Self {
        let labels = [("namespace", namespace), ("rt", rt)];
        Self {
            success: registry.counter(
                "l5d:resolver:success_count",
                "Polls whose answer was applied.",
                &labels,
            ),
            failure: registry.counter(
                "l5d:resolver:failure_count",
                "Polls without a usable answer.",
                &labels,
            ),
            latency_ms: registry.histogram(
                "l5d:resolver:request_latency_ms",
                "How long an answer took.",
                &labels,
                MILLISECONDS,
            ),
        }
    }
}

impl Observer for Resolver {
    fn on(&self, event: &Event<'_>) {
        if let Event::Asked { took, error, .. } = event {
            self.latency_ms.observe(took.as_secs_f64() * 1e3);
            if error.is_some() { self.failure.inc() } else { self.success.inc() }
        }
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
