//! What is counted.

use std::io;

use meshlib::Error;
use meshlib::Transferred;
use meshlib::observe::prometheus::Counter;
use meshlib::observe::prometheus::Gauge;
use meshlib::observe::prometheus::Registry;
use meshlib::tproxy::Intercept;
use meshlib::tproxy::SourceError;

use crate::kit::metrics::of_process;
use crate::kit::state::Totals;

/// Which address a server saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The client's, with its port.
    Client,
    /// The client's, with another port.
    ClientIp,
    /// The proxy's.
    Local,
}

#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) registry: Registry,
    ok: Counter,
    cut: Counter,
    failed: Counter,
    refused: Counter,
    pub(super) active: Gauge,
    client: Counter,
    client_ip: Counter,
    local: Counter,
    source_refused: Counter,
    pub(super) loops_refused: Counter,
    pub(super) rules_intact: Gauge,
    upstream: Counter,
    downstream: Counter,
}

impl Metrics {
    pub(super) fn new(intercept: Intercept) -> Self {
        let registry = Registry::new();
        of_process(&registry, "tproxy-poc");
        let mode = match intercept {
            Intercept::Redirect => "nat",
            _ => "tproxy",
        };
        let connections = |result| {
            let help =
                "Connections that ended: ok, cut (they broke or were cut off), failed (no server), refused.";
            registry.counter("tproxy_connections_total", help, &[("mode", mode), ("result", result)])
        };
        let source = |kind| {
            registry.counter(
                "tproxy_source_total",
                "Connections by the address that servers saw.",
                &[("kind", kind)],
            )
        };
        let bytes = |direction| {
            registry.counter("tproxy_bytes_total", "Bytes forwarded.", &[("direction", direction)])
        };
        let rules_intact = registry.gauge(
            "tproxy_rules_intact",
            "Whether the rules that the proxy has set are as it has set them; 1 where it has set none.",
            &[],
        );
        rules_intact.set(1);
        Self {
            ok: connections("ok"),
            cut: connections("cut"),
            failed: connections("failed"),
            refused: connections("refused"),
            active: registry.gauge("tproxy_active", "Connections between a client and a server.", &[]),
            client: source("client"),
            client_ip: source("client_ip"),
            local: source("local"),
            source_refused: source("refused"),
            loops_refused: registry.counter(
                "tproxy_loops_refused_total",
                "Connections of the proxy to itself.",
                &[],
            ),
            rules_intact,
            upstream: bytes("upstream"),
            downstream: bytes("downstream"),
            registry,
        }
    }

    /// What has been served since the start.
    pub(super) fn totals(&self) -> Totals {
        let failed = self.cut.get() + self.failed.get() + self.refused.get();
        Totals {
            unit: "connections",
            ended: self.ok.get() + failed,
            failed,
            in_flight: u64::try_from(self.active.get()).unwrap_or_default(),
            ..Totals::default()
        }
    }

    pub(super) fn seen(&self, seen: Seen) {
        match seen {
            Seen::Client => self.client.inc(),
            Seen::ClientIp => self.client_ip.inc(),
            Seen::Local => self.local.inc(),
        }
    }

    pub(super) fn moved(&self, transferred: &Transferred) {
        self.upstream.add(transferred.upstream);
        self.downstream.add(transferred.downstream);
    }

    pub(super) fn ended(&self, well: bool) {
        if well { self.ok.inc() } else { self.cut.inc() }
    }

    /// A client got no server.
    pub(super) fn not_opened(&self, error: &Error) {
        match error {
            Error::Source { source, .. } => {
                self.source_refused.inc();
                self.refused.inc();
                if let SourceError::Os(error) = &**source {
                    self.upstream_error(error);
                }
            }
            Error::Refused(_) => self.refused.inc(),
            Error::Connect { source, .. } => {
                self.failed.inc();
                self.upstream_error(source);
            }
            Error::Timeout { .. } => {
                self.failed.inc();
                self.upstream_error(&rustix::io::Errno::TIMEDOUT.into());
            }
            _ => self.failed.inc(),
        }
    }

    /// There are few of them, and the kernel names them.
    fn upstream_error(&self, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or_default().to_string();
        let help = "Servers that could not be connected to, by the number of the error (errno).";
        self.registry.counter("tproxy_upstream_errors_total", help, &[("errno", &errno)]).inc();
    }
}
