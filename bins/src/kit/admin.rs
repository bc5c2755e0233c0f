//! The admin server: the pages that every program has, beside those of its own.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::time::Duration;

use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::ACCEPT;
use http::header::LOCATION;
use meshlib::Drain;
use meshlib::ListenOptions;
use meshlib::Listener;
use meshlib::Server;
use meshlib::http::Body;
use meshlib::http::HttpServer;
use meshlib::http::ServerOptions;
use meshlib::http::admin::Access;
use meshlib::http::admin::Router;
use meshlib::http::admin::json;
use meshlib::http::admin::text;
use meshlib::observe::prometheus::Registry;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::kit::dashboard;
use crate::kit::log;
use crate::kit::metrics;
use crate::kit::state::Watching;

/// How long a client may take for a request, and leave bytes of the answer untaken.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most connections. The oldest ends for one more, so that clients that hold theirs keep nobody out.
const CONNECTIONS: usize = 64;
/// How long an answer that is being given, such as the one to `/shutdown`, may take to the end.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// The endpoints that `/state.json` shows at most: about 4 MB.
const MOST_ENDPOINTS: usize = 20_000;

/// `/dashboard`, `/metrics`, `/live`, `/ready`, `/state.json`, `/history.json`, `/names.json`, `/certs.json`, `/config.json`
/// and `/log-level`.
///
/// `refresh` brings numbers up to date that are looked at rather than counted.
pub fn pages(registry: Registry, refresh: impl Fn() + Send + Sync + 'static, watching: Watching) -> Router {
    let of = |page: fn(&Watching) -> String| {
        let watching = watching.clone();
        move |_: &Request<Body>| json(page(&watching))
    };
    let state = of(|it| to_json(&it.state(MOST_ENDPOINTS)));
    let history = of(|it| to_json(&it.history()));
    let names =
        of(|it| to_json(&serde_json::json!({ "destinations": it.state(MOST_ENDPOINTS).destinations })));
    let certificates = of(|it| to_json(&it.source().certificates()));
    let config = of(|it| format!("{:#}\n", it.source().config()));
    dashboard::pages(Router::new(), watching.clone())
        .get("/metrics", move |request| {
            refresh();
            metrics::page(&registry, request)
        })
        .get("/live", |_| text("live\n"))
        .get("/ready", move |_| {
            let reasons = watching.source().unready();
            if reasons.is_empty() {
                return text("ready\n");
            }
            refused(StatusCode::SERVICE_UNAVAILABLE, &reasons.join("\n"))
        })
        .get("/state.json", state)
        .get("/history.json", history)
        .get("/names.json", names)
        .get("/certs.json", certificates)
        .get("/config.json", config)
        .get("/log-level", |_| text(log::filter().unwrap_or_default() + "\n"))
        .page("/log-level", Method::PUT, Access::Loopback, set_log_level)
        .page("/log-level", Method::POST, Access::Loopback, set_log_level)
}

/// What stands at `/`: people with a browser are led to the dashboard, tools get `otherwise`.
pub fn front(request: &Request<Body>, otherwise: impl FnOnce() -> Response<Body>) -> Response<Body> {
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if !accept.is_some_and(|accept| accept.contains("text/html")) {
        return otherwise();
    }
    let mut answer = text("dashboard\n");
    *answer.status_mut() = StatusCode::SEE_OTHER;
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static("dashboard"));
    answer
}

/// Sets what is logged to the `filter` of the query.
fn set_log_level(request: &Request<Body>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let filter = form_urlencoded::parse(query).find(|(name, _)| name == "filter");
    let Some((_, filter)) = filter else {
        return refused(StatusCode::BAD_REQUEST, "expected ?filter=..., in the words of RUST_LOG");
    };
    match log::set_filter(&filter) {
        Ok(()) => {
            let filter = log::filter().unwrap_or_default();
            tracing::info!(target: log::PROCESS, filter, "another choice of what is logged");
            text(filter + "\n")
        }
        Err(error) => refused(StatusCode::BAD_REQUEST, &error),
    }
}

fn refused(status: StatusCode, why: &str) -> Response<Body> {
    let mut answer = text(format!("{why}\n"));
    *answer.status_mut() = status;
    answer
}

fn to_json(value: &impl Serialize) -> String {
    // What is shown has names for keys, and memory is written to.
    serde_json::to_string(value).unwrap_or_default()
}

/// A socket for admin requests that are not answered yet.
#[derive(Debug)]
pub struct AdminSocket {
    listener: TcpListener,
    addr: SocketAddr,
}

impl AdminSocket {
    /// Listens.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        Self::from_std(Listener::open(addr, &ListenOptions::default())?)
    }

    /// Takes a socket that listens.
    ///
    /// # Errors
    ///
    /// If it has no address.
    pub fn from_std(listener: TcpListener) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        Ok(Self { listener, addr })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers requests. Must be called in a runtime.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn serve(self, pages: Router) -> io::Result<Admin> {
        let server = Server::from_listener(Listener::from_std(self.listener)?).evict_beyond(CONNECTIONS);
        let options = ServerOptions::default().with_head_within(PATIENCE).with_write_within(PATIENCE);
        let (pages, drain) = (HttpServer::with_options(pages, options), Drain::new());
        let mut task = JoinSet::new();
        task.spawn({
            let drain = drain.clone();
            async move {
                if let Err(error) = server.serve(pages, drain).await {
                    tracing::error!(target: log::PROCESS, %error, "the admin server failed");
                }
            }
        });
        tracing::info!(target: log::PROCESS, addr = %self.addr, "listening for admin requests");
        Ok(Admin { drain, _task: task })
    }
}

/// A running admin server, which ends at once when dropped.
#[derive(Debug)]
pub struct Admin {
    drain: Drain,
    _task: JoinSet<()>,
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.drain.force();
    }
}

impl Admin {
    /// Gives the answers that are being given, and ends.
    pub async fn end(self) {
        self.drain.finish(LAST_ANSWER).await;
    }
}
