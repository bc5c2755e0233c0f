//! The names of generation A (0.0.x).

use std::net::SocketAddr;

use meshlib::Side;
use meshlib::Transferred;
use meshlib::balance::ReplicaState;
use meshlib::balance::View;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::observe::prometheus::Counter;
use meshlib::observe::prometheus::Distribution;
use meshlib::observe::prometheus::Gauge;
use meshlib::observe::prometheus::Registry;

#[derive(Debug)]
pub(super) struct Server {
    connects: Counter,
    handshake_failures: Option<Counter>,
    success: Counter,
    failure: Counter,
    active: Gauge,
    bytes_tx: Counter,
    bytes_rx: Counter,
    allocs_tx: Counter,
    allocs_rx: Counter,
    stream_tx: Distribution,
    stream_rx: Distribution,
    ready_ms: Distribution,
    active_ms: Distribution,
}

impl Server {
    pub(super) fn new(registry: &Registry, proxy: &str, addr: SocketAddr, tls: bool) -> Self {
        let srv = addr.to_string();
        let here = [("proxy", proxy), ("srv", srv.as_str())];
        let proxy = [("proxy", proxy)];
        // From the client to the endpoint is tx, the other way rx.
        let tx = [("direction", "tx"), proxy[0]];
        let rx = [("direction", "rx"), proxy[0]];
        Self {
            connects: registry.counter("connects", "Connections accepted.", &here),
            handshake_failures: tls.then(|| {
                registry.counter("handshake_failures", "TLS handshakes with clients that failed.", &here)
            }),
            success: registry.counter("success_count", "Streams that ended well.", &proxy),
            failure: registry.counter("failure_count", "Streams that ended badly.", &proxy),
            active: registry.gauge("conns_active", "Streams.", &proxy),
            bytes_tx: registry.counter("bytes_total", "Bytes forwarded.", &tx),
            bytes_rx: registry.counter("bytes_total", "Bytes forwarded.", &rx),
            allocs_tx: registry.counter("allocs_count", "Writes that the receiver took in part.", &tx),
            allocs_rx: registry.counter("allocs_count", "Writes that the receiver took in part.", &rx),
            stream_tx: registry.stats("bytes", "Bytes of a stream.", &tx),
            stream_rx: registry.stats("bytes", "Bytes of a stream.", &rx),
            ready_ms: registry.stats("connection_ready_ms", "From accept until bytes may flow.", &proxy),
            active_ms: registry.stats("connection_active_ms", "How long bytes could flow.", &proxy),
        }
    }

    fn moved(&self, transferred: &Transferred) {
        self.bytes_tx.add(transferred.upstream);
        self.bytes_rx.add(transferred.downstream);
        self.allocs_tx.add(transferred.upstream_waits);
        self.allocs_rx.add(transferred.downstream_waits);
    }
}

impl Observer for Server {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Accepted { .. } => self.connects.inc(),
            Event::Handshake { side: Side::Client, error: Some(_), .. } => {
                if let Some(failures) = &self.handshake_failures {
                    failures.inc();
                }
            }
            Event::Opened { session } => {
                self.active.add(1);
                self.ready_ms.observe(session.accepted.elapsed().as_secs_f64() * 1e3);
            }
            Event::Progress { transferred } => self.moved(transferred),
            Event::Closed { transferred, unreported, lasted, error, forced } => {
                self.moved(unreported);
                self.active.sub(1);
                self.stream_tx.observe_u64(transferred.upstream);
                self.stream_rx.observe_u64(transferred.downstream);
                self.active_ms.observe(lasted.as_secs_f64() * 1e3);
                if error.is_some() || *forced { self.failure.inc() } else { self.success.inc() }
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
    proxy: Box<str>,
    poll_us: Distribution,
    connect_us: Distribution,
}

impl Destination {
    pub(super) fn new(registry: &Registry, proxy: &str) -> Self {
        let there = [("proxy", proxy)];
        Self {
            proxy: proxy.into(),
            poll_us: registry.stats("poll_time_us", "How long it took to get an endpoint.", &there),
            connect_us: registry.stats("connect_latency_us", "How long connecting took.", &there),
        }
    }
}

impl Observer for Destination {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Attempt { waited, .. } => self.poll_us.observe(waited.as_secs_f64() * 1e6),
            Event::Attempted { took, error: None, .. } => self.connect_us.observe(took.as_secs_f64() * 1e6),
            Event::Attempted { name, endpoint, error: Some(error), .. } => {
                super::log_failure(&self.proxy, name, endpoint, error);
            }
            _ => {}
        }
    }
}

pub(super) fn balancer(
    registry: &Registry,
    proxy: &str,
    view: &View,
    spares: impl Fn() -> usize + Clone + Send + Sync + 'static,
) {
    let proxy = [("proxy", proxy)];
    let ready = view.clone();
    registry.gauge_fn("endpoints_ready", "Endpoints in use.", &proxy, move || {
        super::endpoints(&ready, |state| state == ReplicaState::Ready)
    });
    let unready = view.clone();
    registry.gauge_fn("endpoints_unready", "Endpoints that failed lately.", &proxy, move || {
        super::endpoints(&unready, |state| state != ReplicaState::Ready)
    });
    let gone = view.clone();
    registry.gauge_fn("endpoints_retired", "Endpoints gone while streams live.", &proxy, move || {
        super::retired(&gone)
    });
    let pending = view.clone();
    registry
        .gauge_fn("conns_pending", "Connections being opened.", &proxy, move || super::connecting(&pending));
    registry.gauge_fn("conns_established", "Connections that wait for a client.", &proxy, move || {
        spares() as f64
    });
}

#[derive(Debug)]
pub(super) struct Resolver {
    success: Counter,
    failure: Counter,
    latency_ms: Distribution,
}

impl Resolver {
    pub(super) fn new(registry: &Registry) -> Self {
        let service = [("service", "namerd")];
        Self {
            success: registry.counter("namerd_success_count", "Polls whose answer was applied.", &service),
            failure: registry.counter("namerd_failure_count", "Polls without a usable answer.", &service),
            latency_ms: registry.stats("namerd_request_latency_ms", "How long an answer took.", &service),
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
