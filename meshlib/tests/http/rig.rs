//! The proxy under test.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use meshlib::BalanceLayer;
use meshlib::Drain;
use meshlib::Endpoint;
use meshlib::Server;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::TlsLayer;
use meshlib::balance::View;
use meshlib::http::ClientLayer;
use meshlib::http::Forwarded;
use meshlib::http::HeadersLayer;
use meshlib::http::HttpClient;
use meshlib::http::HttpServer;
use meshlib::http::ServerOptions;
use meshlib::http::UpgradeLayer;
use meshlib::tls::Terminate;
use meshlib::tls::rustls::ServerConfig;
use tokio::task::JoinHandle;
use tower::Layer;
use tower::ServiceBuilder;

use super::wire::Wire;
use super::wire::soon;

/// What the proxy is made of. It says nothing about clients unless told to, so that what backends get is short.
pub(crate) struct Setup {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) headers: HeadersLayer,
    pub(crate) client: ClientLayer,
    pub(crate) options: ServerOptions,
    /// How clients speak TLS with it.
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

impl Setup {
    pub(crate) fn to(addr: SocketAddr) -> Self {
        Self::to_each([Endpoint::new(addr)])
    }

    pub(crate) fn to_each(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            headers: HeadersLayer::new().forwarded(Forwarded::Untouched),
            client: ClientLayer::new(),
            options: ServerOptions::default().with_date(false),
            tls: None,
        }
    }

    pub(crate) async fn start(self) -> Proxy {
        let client = self.client.layer(TcpConnector::default());
        let balance = BalanceLayer::new(Static::endpoints(self.endpoints), "web").layer(client.clone());
        let view = balance.view();
        let service = ServiceBuilder::new().layer(self.headers).layer(UpgradeLayer::new()).service(balance);
        let http = HttpServer::with_options(service, self.options);
        let server = Server::bind("127.0.0.1:0").await.unwrap();
        let (addr, drain) = (server.local_addr(), Drain::new());
        let serving = match self.tls {
            None => tokio::spawn(server.serve(http, drain.clone())),
            Some(config) => {
                let accept = TlsLayer::new(Terminate::new(config)).layer(http);
                tokio::spawn(server.serve(accept, drain.clone()))
            }
        };
        Proxy { addr, drain, client, view, serving }
    }
}

/// A proxy that runs.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) client: HttpClient<TcpConnector>,
    pub(crate) view: View,
    pub(crate) serving: JoinHandle<io::Result<()>>,
}

impl Proxy {
    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.addr).await
    }

    /// How many requests the balancer counts at its only endpoint.
    pub(crate) fn in_flight(&self) -> u32 {
        self.view.state().unwrap().replicas.replicas()[0].in_flight()
    }

    /// How many requests failed by the fault of the only endpoint.
    pub(crate) fn failed(&self) -> u64 {
        self.view.state().unwrap().replicas.replicas()[0].failed()
    }

    /// Ends the proxy with all of its connections.
    pub(crate) async fn end(self) {
        self.drain.start();
        self.drain.force();
        drop(self.client);
        soon(self.serving).await.unwrap().unwrap();
    }
}
