//! An authority, and nodes of a fleet.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use meshlib::Drain;
use meshlib::Error;
use meshlib::Server;
use meshlib::TlsLayer;
use meshlib::http::Body;
use meshlib::http::HttpServer;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::store::KvStore;
use meshlib::store::MemoryStore;
use meshlib::store::Read;
use meshlib::store::When;
use meshlib::test_util::Pebble;
use meshlib::test_util::PebbleOptions;
use meshlib::test_util::free_ports;
use meshlib::test_util::or_skip;
use meshlib::tls;
use meshlib::tls::acme::AcmeOptions;
use meshlib::tls::acme::ChallengeKind;
use meshlib::tls::acme::Manager;
use meshlib::tls::acme::NameView;
use meshlib::tls::acme::Terminate;
use meshlib::tls::identity::Unverified;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time;
use tokio_rustls::TlsConnector;
use tower::Layer;

/// What must happen at all must happen within this.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The address of the first node, to which every name leads unless told otherwise.
pub(crate) const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The address of another node.
pub(crate) const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// An authority that asks nodes on two ports.
pub(crate) struct Rig {
    pub(crate) pebble: Pebble,
    pub(crate) store: MemoryStore,
    http: u16,
    https: u16,
}

impl Rig {
    /// Nothing if there is no authority to be had.
    pub(crate) async fn start() -> Option<Self> {
        Self::with(|options| options).await
    }

    pub(crate) async fn with(options: impl FnOnce(PebbleOptions) -> PebbleOptions) -> Option<Self> {
        let [http, https] = free_ports();
        let options = options(PebbleOptions::default().with_http_port(http).with_tls_port(https));
        let pebble = or_skip(Pebble::start(options).await)?;
        Some(Self { pebble, store: MemoryStore::new(), http, https })
    }

    /// Options for a node of this authority.
    pub(crate) fn options(&self) -> AcmeOptions {
        AcmeOptions::new(self.pebble.client_config())
            .with_directory(self.pebble.directory())
            .with_prefix("edge/")
            .with_first_backoff(Duration::from_secs(1))
    }

    pub(crate) async fn node(&self) -> Node {
        self.node_with(FIRST, self.options()).await
    }

    /// A node with a store of its own.
    pub(crate) async fn node_on(&self, store: impl KvStore) -> Node {
        Node::start(Arc::new(store), (FIRST, self.http), (FIRST, self.https), self.options()).await
    }

    pub(crate) async fn node_with(&self, ip: IpAddr, options: AcmeOptions) -> Node {
        Node::start(Arc::new(self.store.clone()), (ip, self.http), (ip, self.https), options).await
    }

    /// The port on which nodes are asked for files.
    pub(crate) fn http_port(&self) -> u16 {
        self.http
    }

    /// Options for proofs by TLS.
    pub(crate) fn by_tls(&self) -> AcmeOptions {
        self.options().with_challenges([ChallengeKind::TlsAlpn01])
    }

    /// The only key of the store that begins with `edge/` and this, up to the mark of the directory, and ends in the name.
    pub(crate) async fn key(&self, kind: &str, name: &str) -> Option<Arc<str>> {
        let keys = self.store.keys(&format!("edge/{kind}")).await.unwrap();
        keys.into_iter().find(|key| key.rsplit('/').next() == Some(name))
    }

    /// The JSON that the store has of a kind for a name.
    pub(crate) async fn json(&self, kind: &str, name: &str) -> Option<serde_json::Value> {
        let key = self.key(kind, name).await?;
        let entry = self.store.get(&key, Read::Latest).await.unwrap()?;
        Some(serde_json::from_slice(&entry.value).unwrap())
    }

    pub(crate) async fn put(&self, key: &str, value: impl Into<Bytes>) {
        assert!(self.store.put(key, value.into(), When::Always).await.unwrap());
    }

    /// That nothing of an order is left over.
    pub(crate) async fn assert_no_challenges(&self) {
        assert_eq!(self.store.keys("edge/challenge/").await.unwrap(), []);
        assert_eq!(self.store.keys("edge/acme/alpn").await.unwrap(), []);
    }
}

/// A node of the fleet: a manager with a server on either port.
pub(crate) struct Node {
    pub(crate) manager: Manager,
    pub(crate) https: SocketAddr,
    pub(crate) orders: Arc<Orders>,
    drain: Drain,
    tasks: Vec<JoinHandle<()>>,
}

/// What became of the orders of a node.
#[derive(Debug, Default)]
pub(crate) struct Orders(Mutex<Vec<(String, Result<(), String>)>>);

impl Observer for Orders {
    fn on(&self, event: &Event<'_>) {
        if let Event::CertOrdered { name, result } = event {
            let result = result.map(|_| ()).map_err(str::to_owned);
            self.0.lock().unwrap().push(((*name).to_owned(), result));
        }
    }
}

impl Orders {
    pub(crate) fn of(&self, name: &str) -> Vec<Result<(), String>> {
        let orders = self.0.lock().unwrap();
        orders.iter().filter(|(of, _)| of == name).map(|(_, result)| result.clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Waits until an order for a name has failed, and says why.
    pub(crate) async fn failure(&self, name: &str) -> String {
        until(|| self.of(name).into_iter().find_map(Result::err)).await
    }
}

impl Node {
    pub(crate) async fn start(
        store: Arc<dyn KvStore>,
        http: (IpAddr, u16),
        https: (IpAddr, u16),
        options: AcmeOptions,
    ) -> Self {
        let orders = Arc::<Orders>::default();
        let manager = Manager::new(store, options.with_observer(orders.clone())).unwrap();
        let elsewhere =
            tower::service_fn(async |_: Request<Body>| Ok::<_, Error>(Response::new(Body::from("hello"))));
        let plain = HttpServer::new(manager.challenges().layer(elsewhere));
        let config = tls::server_config(tls::provider(), manager.certificates(), None).unwrap();
        let policy = Terminate::new(manager.certificates(), config);
        let secure = TlsLayer::new(policy).layer(HttpServer::new(elsewhere));
        let drain = Drain::new();
        let (plain_server, secure_server) =
            (Server::bind(http).await.unwrap(), Server::bind(https).await.unwrap());
        let https = secure_server.local_addr();
        let mut tasks = Vec::new();
        tasks.push(tokio::spawn({
            let drain = drain.clone();
            async move { plain_server.serve(plain, drain).await.unwrap() }
        }));
        tasks.push(tokio::spawn({
            let drain = drain.clone();
            async move { secure_server.serve(secure, drain).await.unwrap() }
        }));
        tasks.push(tokio::spawn({
            let (manager, draining) = (manager.clone(), drain.draining());
            async move { manager.run(draining).await }
        }));
        Self { manager, https, orders, drain, tasks }
    }

    /// Ends it as if its process had been killed: nothing is finished.
    pub(crate) async fn kill(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }

    /// Ends it in peace.
    pub(crate) async fn stop(self) {
        self.drain.finish(Duration::from_secs(10)).await;
        for task in self.tasks {
            task.await.unwrap();
        }
    }

    /// The certificate that a client gets, which believes everything.
    pub(crate) async fn shows(&self, name: &str) -> Vec<u8> {
        let mut config = client(RootCertStore::empty());
        let verifier = Unverified::new(tls::provider(), "test");
        Arc::get_mut(&mut config).unwrap().dangerous().set_certificate_verifier(verifier);
        self.handshake(name, config).await.unwrap()
    }

    /// The certificate that a client gets which believes the authority alone, or nothing if it does not believe it.
    pub(crate) async fn proves(&self, name: &str, roots: &RootCertStore) -> Option<Vec<u8>> {
        self.handshake(name, client(roots.clone())).await.ok()
    }

    /// Waits until a client believes its certificate for a name.
    pub(crate) async fn proven(&self, name: &str, roots: &RootCertStore) -> Vec<u8> {
        let proven = async {
            self.manager.certificates().issued(name).await;
            self.proves(name, roots).await
        };
        let outcome = time::timeout(SOON, proven).await;
        outcome
            .unwrap_or_else(|_| panic!("{name} gets no certificate: {:?}", self.view(name)))
            .expect("it is believed")
    }

    async fn handshake(&self, name: &str, config: Arc<ClientConfig>) -> std::io::Result<Vec<u8>> {
        let tcp = TcpStream::connect(self.https).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tls = time::timeout(SOON, TlsConnector::from(config).connect(name, tcp)).await.unwrap()?;
        let chain: &[CertificateDer<'_>] = tls.get_ref().1.peer_certificates().unwrap();
        Ok(chain[0].to_vec())
    }

    pub(crate) fn view(&self, name: &str) -> NameView {
        self.manager.view().into_iter().find(|view| &*view.name == name).expect("it is wanted")
    }
}

fn client(roots: RootCertStore) -> Arc<ClientConfig> {
    tls::client_config(tls::provider(), roots).unwrap().into()
}

/// Waits until there is something.
pub(crate) async fn until<T>(mut something: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = something() {
                return found;
            }
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(SOON, found).await.expect("it happens soon")
}

/// For how long a certificate is valid.
pub(crate) fn lifetime_secs(der: &[u8]) -> i64 {
    let (_, x509) = x509_parser::parse_x509_certificate(der).unwrap();
    x509.validity().not_after.timestamp() - x509.validity().not_before.timestamp()
}
