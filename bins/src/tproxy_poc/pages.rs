//! Pages for operators and orchestrators.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::ACCEPT;
use meshlib::Drain;
use meshlib::ListenOptions;
use meshlib::Listener;
use meshlib::Server;
use meshlib::http::HttpServer;
use meshlib::http::ServerOptions;
use meshlib::http::admin::Router;
use meshlib::http::admin::text;
use meshlib::http::admin::typed;
use meshlib::observe::prometheus::Format;
use meshlib::observe::prometheus::content_type;

use super::metrics::Metrics;
use crate::cli::Failure;

/// How long a client may take for a request, and leave bytes of the answer untaken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most connections; the oldest ends for one more.
const CONNECTIONS: usize = 64;

/// Listens for requests. Must be called in a runtime.
pub(super) fn listen(addr: SocketAddr) -> Result<Server, Failure> {
    let listener = Listener::open(addr, &ListenOptions::default()).and_then(Listener::from_std);
    let listener = listener
        .map_err(|error| Failure::Runtime(format!("cannot listen at {addr} for --metrics: {error}")))?;
    Ok(Server::from_listener(listener).evict_beyond(CONNECTIONS))
}

/// `/metrics`, `/live` and `/ready`, which ends with the drain.
pub(super) fn pages(metrics: &Arc<Metrics>, drain: &Drain) -> HttpServer<Router> {
    let (metrics, drain) = (Arc::clone(metrics), drain.clone());
    let router = Router::new()
        .get("/metrics", move |request| {
            let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
            let format = Format::from_accept(accept);
            typed(content_type(format), metrics.registry.render(format))
        })
        .get("/live", |_| text("live\n"))
        .get("/ready", move |_| {
            if drain.is_started() {
                let mut response = text("draining\n");
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            } else {
                text("ready\n")
            }
        });
    HttpServer::with_options(
        router,
        ServerOptions::default().with_head_within(PATIENCE).with_write_within(PATIENCE),
    )
}
