//! The proxy with what surrounds it: backends, a name server, and HTTP requests to both servers.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bins::kit::ending::Ending;
use bins::linkerd_tcp::Prepared;
use bins::linkerd_tcp::Reloads;
use bins::linkerd_tcp::config;
use http::Method;
use http::Request;
use http::header::CONTENT_TYPE;
use http::header::HOST;
use meshlib::Drain;
use meshlib::Endpoint;
use meshlib::TcpConnector;
use meshlib::To;
use meshlib::http::Body;
use meshlib::http::ClientLayer;
use meshlib::http::HttpClient;
use meshlib_namerd::api::Addr;
use meshlib_namerd::server::NamerdServer;
use tokio::task::JoinHandle;
use tokio::time;
use tower::Layer;
use tower::ServiceExt;

use crate::backend::Backend;

/// How long an answer to an HTTP request may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Most bytes of an answer; metrics are some ten thousand.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// Everything that runs.
///
/// Three backends are named `/blue/web` and one is `/green/web`; the proxy asks for `/svc/web`, and the name
/// server's dtab says which of them that is.
pub(crate) struct Stage {
    pub(crate) config: String,
    pub(crate) blue: [Backend; 3],
    pub(crate) green: Backend,
    pub(crate) names: NamerdServer,
    /// Where the proxy listens.
    pub(crate) proxy: SocketAddr,
    /// Where the proxy answers HTTP requests about itself.
    pub(crate) admin: SocketAddr,
    drain: Drain,
    serving: JoinHandle<io::Result<()>>,
    http: HttpClient<TcpConnector>,
}

impl Stage {
    /// Starts everything.
    pub(crate) async fn set() -> Result<Self, Box<dyn Error>> {
        let blue = [
            Backend::start("a", 1.0).await?,
            Backend::start("b", 1.0).await?,
            Backend::start("c", 0.1).await?,
        ];
        let green = Backend::start("d", 1.0).await?;
        let names = NamerdServer::bind("127.0.0.1:0").await?;
        names.set("default", "/blue/web", Addr::bound(blue.iter().map(Backend::address)))?;
        names.set("default", "/green/web", Addr::bound([green.address()]))?;
        names.set_dtab("default", "/svc => /blue;")?;

        let config = config_text(&names.url());
        let (parsed, _) = config::parse(&config, "quickstart.yml")?;
        let bound = Prepared::new(parsed)?.bind(None)?;
        let proxy = bound.servers().next().ok_or("the configuration has no server")?;
        let admin = bound.admin();
        let drain = Drain::on_signals();
        let serving = tokio::spawn({
            let drain = drain.clone();
            async move {
                let ending = Ending::new(drain.clone(), bound.grace());
                let result = bound.run(ending, Reloads::never()).await;
                // Whatever ended it, nothing is left to wait for.
                drain.start();
                result
            }
        });
        let http = ClientLayer::new().layer(TcpConnector::default());
        Ok(Self { config, blue, green, names, proxy, admin, drain, serving, http })
    }

    /// Starts when the proxy has been told to end, or has ended.
    pub(crate) fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Waits for a signal, or a request to `/shutdown`.
    pub(crate) async fn until_told_to_end(&self) {
        self.drain.started().await;
    }

    /// Tells the proxy to end and waits until it has.
    pub(crate) async fn end(self) -> Result<(), Box<dyn Error>> {
        self.drain.start();
        Ok(self.serving.await??)
    }

    /// A page of the proxy.
    pub(crate) async fn get(&self, path: &str) -> Result<String, Box<dyn Error>> {
        let request = Request::get(path).header(HOST, self.admin.to_string());
        self.ask(self.admin, request.body(Body::empty())?).await
    }

    /// Replaces the name server's dtab, by HTTP as an operator does.
    pub(crate) async fn put_dtab(&self, dtab: &'static str) -> Result<(), Box<dyn Error>> {
        let request = Request::builder().method(Method::PUT).uri("/api/1/dtabs/default");
        let request = request.header(HOST, self.names.addr().to_string());
        let request = request.header(CONTENT_TYPE, "application/dtab");
        self.ask(self.names.addr(), request.body(Body::from(dtab))?).await.map(drop)
    }

    async fn ask(&self, addr: SocketAddr, request: Request<Body>) -> Result<String, Box<dyn Error>> {
        let path = request.uri().path().to_owned();
        let answer = async {
            let response = self.http.clone().oneshot(To::new(Endpoint::new(addr), request)).await?;
            if !response.status().is_success() {
                return Err(format!("http://{addr}{path} answered {}", response.status()).into());
            }
            let body = response.into_body().collect(MAX_ANSWER).await?;
            Ok(String::from_utf8_lossy(&body).into_owned())
        };
        time::timeout(ANSWER, answer).await.map_err(|_| format!("http://{addr}{path} did not answer"))?
    }
}

fn config_text(name_server: &str) -> String {
    format!(
        "\
admin:
  port: 0                       # 0: any free port
routers:
  - label: quickstart
    servers:
      - port: 0
        dstName: /svc/web       # what clients of this port want
    interpreter:                # who knows what that is
      kind: io.l5d.namerd.http
      baseUrl: {name_server}
      namespace: default
      periodSecs: 10
    client:
      kind: io.l5d.global
      failFast:                 # leave out an endpoint that fails
        maxConsecutiveFailures: 5
        failurePenaltySecs: 1   # 60 unless set
"
    )
}
