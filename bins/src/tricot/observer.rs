//! What servers and orders report, as metrics.

use std::path::PathBuf;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use meshlib::Conn;
use meshlib::Side;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::observe::prometheus::Gauge;
use meshlib::observe::prometheus::Registry;
use meshlib::tls::acme::Manager;
use meshlib::tls::acme::NameView;
use tokio::sync::Notify;
use tower::Layer;
use tower::Service;
use tower::layer::layer_fn;

use super::metrics::Metrics;
use super::outage;
use super::policy;

const HANDSHAKES: (&str, &str) = ("tricot_tls_handshakes_total", "TLS handshakes with clients.");

/// The connections of a listener.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    open: Gauge,
    registry: Registry,
}

impl Listening {
    pub(super) fn new(metrics: &Metrics, listener: &str) -> Self {
        Self { open: metrics.connections(listener), registry: metrics.registry.clone() }
    }

    /// Counts the handshakes that came about, by what was agreed on.
    pub(super) fn handshakes<S>(&self) -> impl Layer<S, Service = Handshaken<S>> + use<S> {
        let registry = self.registry.clone();
        layer_fn(move |inner| Handshaken { inner, registry: registry.clone() })
    }
}

impl Observer for Listening {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Accepted { .. } => self.open.add(1),
            Event::Ended { .. } => self.open.sub(1),
            Event::Handshake { side: Side::Client, error: Some(_), .. } => {
                let labels = [("result", "failed"), ("version", "none"), ("alpn", "none")];
                self.registry.counter(HANDSHAKES.0, HANDSHAKES.1, &labels).inc();
            }
            _ => {}
        }
    }
}

/// Counts handshakes; made by [`Listening::handshakes`].
#[derive(Clone, Debug)]
pub(super) struct Handshaken<S> {
    inner: S,
    registry: Registry,
}

impl<S: Service<Conn>> Service<Conn> for Handshaken<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, conn: Conn) -> S::Future {
        let (version, alpn) = policy::labels(&conn.session);
        let labels = [("result", "ok"), ("version", version), ("alpn", alpn)];
        self.registry.counter(HANDSHAKES.0, HANDSHAKES.1, &labels).inc();
        self.inner.call(conn)
    }
}

/// Orders for certificates.
#[derive(Debug)]
pub(super) struct Orders {
    registry: Registry,
    unreachable: Arc<Notify>,
}

impl Orders {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { registry: metrics.registry.clone(), unreachable: Arc::default() }
    }

    /// Told when the authority could not be reached.
    pub(super) fn unreachable(&self) -> Arc<Notify> {
        Arc::clone(&self.unreachable)
    }
}

/// Says once which setting is to be looked at if the authority's directory is not trusted.
pub(super) async fn tell_untrusted(manager: Manager, unreachable: Arc<Notify>, ca: Option<PathBuf>) {
    loop {
        unreachable.notified().await;
        // What the store says, for which names may wait meanwhile, is about Consul.
        let of_authority = |error: &&Arc<str>| !error.starts_with("the store ");
        let is_untrusted = |view: &NameView| {
            view.error.as_ref().filter(of_authority).is_some_and(|error| outage::is_untrusted(error))
        };
        if manager.view().iter().any(is_untrusted) {
            let trusted = match &ca {
                Some(ca) => format!("TRICOT_ACME_CA_CERT is {}", ca.display()),
                None => "TRICOT_ACME_CA_CERT is not set, so the authorities of the system are".into(),
            };
            tracing::warn!(target: "tricot", trusted, "the certificate of the ACME directory is not trusted");
            return;
        }
    }
}

impl Observer for Orders {
    fn on(&self, event: &Event<'_>) {
        let Event::CertOrdered { result, .. } = event else { return };
        let result = result.map_or_else(|reason| reason, |_| "ok");
        let labels = [("result", result)];
        if result == "unreachable" {
            self.unreachable.notify_one();
        }
        self.registry
            .counter("tricot_acme_orders_total", "Orders for certificates that have ended.", &labels)
            .inc();
    }
}
