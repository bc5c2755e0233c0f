//! From nothing to a page with a certificate, and the port for HTTP.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::Pebble;
use meshlib::test_util::PebbleOptions;
use meshlib::test_util::or_skip;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpListener;

use crate::ask::Client;
use crate::ask::plain;
use crate::process::Tricot;
use crate::process::command;
use crate::process::until_within;
use crate::site::Site;

/// A port that is the test's: others cannot take it, and programs that share ports can.
pub(crate) struct Port(Socket);

impl Port {
    pub(crate) fn take() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        Self(socket)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    /// Listens there.
    pub(crate) fn listen(self) -> TcpListener {
        self.0.listen(128).unwrap();
        self.0.set_nonblocking(true).unwrap();
        TcpListener::from_std(self.0.into()).unwrap()
    }
}

/// A cluster with an authority, and a port for HTTP to which the authority sends its challenges.
pub(crate) struct Cluster {
    pub(crate) consul: Consul,
    pub(crate) pebble: Pebble,
    pub(crate) http: Port,
}

impl Cluster {
    /// Starts them, unless they are missing here.
    pub(crate) async fn start(options: PebbleOptions) -> Option<Self> {
        Self::start_with(options, ConsulOptions::default()).await
    }

    /// The same with an agent that is told how to be.
    pub(crate) async fn start_with(options: PebbleOptions, agent: ConsulOptions) -> Option<Self> {
        let http = Port::take();
        let options = options.with_http_port(http.addr().port());
        let pebble = or_skip(Pebble::start(options).await)?;
        let consul = or_skip(Consul::start(agent).await)?;
        Some(Self { consul, pebble, http })
    }

    /// Starts a proxy with more variables, and waits until it has a table.
    pub(crate) async fn tricot(&self, variables: &[(&str, &str)]) -> Tricot {
        let ca = self.consul.dir().join("acme-ca.pem");
        std::fs::write(&ca, self.pebble.ca_pem()).unwrap();
        let mut command = command(self.consul.addr());
        command
            .env("TRICOT_ACME_DIRECTORY", self.pebble.directory())
            .env("TRICOT_ACME_CA_CERT", ca)
            .env("TRICOT_HTTP_BIND_ADDR", self.http.addr().to_string())
            .envs(variables.iter().copied());
        let tricot = Tricot::spawn(&mut command);
        tricot.has_table().await;
        tricot
    }

    /// A client that trusts the authority only.
    pub(crate) async fn client(&self, tricot: &Tricot) -> Client {
        Client::trusting(tricot.https, self.pebble.issuing_roots().await)
    }
}

#[tokio::test]
async fn a_tag_is_all_that_a_site_needs() {
    let Some(cluster) = Cluster::start(PebbleOptions::default()).await else { return };
    let tricot = cluster.tricot(&[]).await;
    let site = Site::start("one").await;
    let client = cluster.client(&tricot).await;

    cluster.consul.service("n1", "web", "web-1", site.port(), &["tricot app.example.com"]).await;

    let took = until_within("a page with a certificate", Duration::from_secs(10), async || {
        client.get("app.example.com", "/").await.is_ok_and(|page| page.status == 200 && page.text() == "one")
    })
    .await;
    println!("from the registration to a page with a certificate: {took:?}");
    assert_eq!(cluster.pebble.orders(), 1);
}

#[tokio::test]
async fn the_port_for_http_answers_challenges_from_consul_and_nothing_else_there() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    consul.put("/v1/kv/tricot/challenge/a-token_1", "a-token_1.of the key").await;
    let tricot = Tricot::start(&consul).await;
    let ask = async |method: &str, path: &str| {
        let path = format!("/.well-known/acme-challenge/{path}");
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: app.example.com:{}\r\n\r\n", tricot.http.port());
        plain(tricot.http, &request).await.unwrap()
    };

    let found = ask("GET", "a-token_1").await;
    assert_eq!((found.status, found.text().as_str()), (200, "a-token_1.of the key"));
    assert_eq!(found.field("content-type"), Some("application/octet-stream"));
    assert_eq!((ask("HEAD", "a-token_1").await.status, ask("POST", "a-token_1").await.status), (200, 405));
    let missing = ask("GET", "no-such-token").await;
    assert_eq!((missing.status, missing.text().as_str()), (404, ""));
    for odd in ["", "a.b", "../certs/x", "%61-token_1", "a-token_1/", &"x".repeat(129)] {
        assert_eq!(ask("GET", odd).await.status, 404, "{odd:?}");
    }
}

#[tokio::test]
async fn the_port_for_http_redirects_all_else() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let tricot = Tricot::start(&consul).await;
    let port = tricot.https.port();
    let ask = async |request: &str| plain(tricot.http, request).await.unwrap();

    let page = ask("GET /a%20b?c=%2f HTTP/1.1\r\nHost: Unknown.example:8080\r\n\r\n").await;
    assert_eq!(page.status, 301);
    let location = page.field("location").unwrap().to_ascii_lowercase();
    assert_eq!(location, format!("https://unknown.example:{port}/a%20b?c=%2f"));
    let post = ask("POST /x HTTP/1.1\r\nHost: app.example\r\nContent-Length: 2\r\n\r\nhi").await;
    assert_eq!((post.status, post.field("location")), (308, Some(&*format!("https://app.example:{port}/x"))));
    let upgrade =
        "GET /ws HTTP/1.1\r\nHost: app.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(ask(upgrade).await.status, 301);
    for bad in ["", "Host: a.example\r\nHost: b.example\r\n", "Host: a/b\r\n", "Host: a@b\r\n"] {
        assert_eq!(ask(&format!("GET / HTTP/1.1\r\n{bad}\r\n")).await.status, 400, "{bad:?}");
    }
}

#[tokio::test]
async fn the_public_port_is_the_one_in_redirects() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let tricot = Tricot::start_with(&consul, &[("TRICOT_HTTPS_PUBLIC_PORT", "443")]).await;

    let page = plain(tricot.http, "GET /x HTTP/1.1\r\nHost: app.example:80\r\n\r\n").await.unwrap();

    assert_eq!(page.field("location"), Some("https://app.example/x"));
}
