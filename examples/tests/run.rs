//! Runs each example as a user would and checks what its header says there is to see.
#![expect(clippy::unwrap_used, reason = "what helps a test fails like a test")]

#[path = "support/program.rs"]
mod program;
#[cfg(target_os = "linux")]
#[path = "support/sidecar.rs"]
mod sidecar;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use http::Request;
use http::Response;
use meshlib::BalanceLayer;
use meshlib::Drain;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Io;
use meshlib::Server;
use meshlib::Session;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::TlsLayer;
use meshlib::To;
use meshlib::http::ALPN;
use meshlib::http::Accepted;
use meshlib::http::Body;
use meshlib::http::ClientLayer;
use meshlib::http::HttpServer;
use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::Echo;
use meshlib::test_util::EchoOptions;
use meshlib::test_util::Pebble;
use meshlib::test_util::PebbleOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::echo;
use meshlib::test_util::free_ports;
use meshlib::test_util::or_skip;
use meshlib::tls;
use meshlib::tls::Always;
use meshlib::tls::Terminate;
use meshlib::tls::TlsError;
use meshlib::tls::rustls::AlertDescription;
use meshlib::tls::rustls::pki_types::ServerName;
use program::Program;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::Layer;
use tower::ServiceExt;

#[tokio::test]
async fn client_passes_over_a_dead_replica() {
    let ca = TestCa::new();
    let backend = Echo::start_tls(ca.server_config(["localhost"])).await;
    let addrs = format!("{},{}", dead().await, backend.addr());

    let mut client = Program::start_trusting("client", &[&addrs, "localhost"], &ca.pem()).await;

    let expected = format!("{:?} answered {:?}", Some(backend.addr()), Some("GET / HTTP/1.0"));
    assert_eq!(client.line().await, expected);
    client.ends_well().await;
}

#[tokio::test]
async fn client_refuses_a_certificate_of_a_stranger() {
    let config = TestCa::new().server_config(["localhost"]);
    let (one, two) = (Echo::start_tls(config.clone()).await, Echo::start_tls(config).await);

    let args = [&*list([&one, &two]), "localhost"];
    let client = Program::start_trusting("client", &args, &TestCa::new().pem()).await;

    let complaint = client.complaint().await;
    assert!(complaint.contains("source: Certificate("), "{complaint}");
}

#[tokio::test]
async fn tcp_proxy_spreads_connections() {
    let (one, two) = (Echo::start().await, Echo::start().await);
    let mut proxy = Program::start("tcp_proxy", &["127.0.0.1:0", &list([&one, &two])]).await;
    let addr = proxy.addr().await;

    let clients = open(addr, 4).await;

    assert_eq!((one.open(), two.open()), (2, 2));
    drop(clients);
    proxy.interrupted_ends_well().await;
}

#[tokio::test]
async fn tcp_proxy_goes_to_the_backend_that_lives() {
    let two = Echo::start().await;
    let backends = format!("{},{}", dead().await, two.addr());
    let mut proxy = Program::start("tcp_proxy", &["127.0.0.1:0", &backends]).await;

    let clients = open(proxy.addr().await, 3).await;

    assert_eq!(two.open(), 3);
    drop(clients);
    proxy.interrupted_ends_well().await;
}

#[tokio::test]
async fn sni_router_goes_by_the_name_and_needs_no_key() {
    let ca = TestCa::new();
    let one = named(&ca, "one.localhost").await;
    let two = named(&ca, "two.localhost").await;
    let routes = [format!("one.localhost={}", one.addr()), format!("TWO.localhost={}", two.addr())];
    let mut router = Program::start("sni_router", &["127.0.0.1:0", &routes[0], &routes[1]]).await;
    let addr = router.addr().await;

    for name in ["one.localhost", "two.localhost"] {
        let mut io = secure(&ca, addr, name).await.unwrap();
        let mut greeting = vec![0; name.len()];
        io.read_exact(&mut greeting).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&greeting), name);
        assert_eq!(echo(&mut io, b"and back").await.unwrap(), b"and back");
    }

    router.interrupted_ends_well().await;
}

#[tokio::test]
async fn sni_router_turns_strangers_away() {
    let ca = TestCa::new();
    let one = named(&ca, "one.localhost").await;
    let route = format!("one.localhost={}", one.addr());
    let mut router = Program::start("sni_router", &["127.0.0.1:0", &route]).await;
    let addr = router.addr().await;

    let Err(Error::Tls { source, .. }) = secure(&ca, addr, "three.localhost").await else {
        panic!("nobody has this name");
    };
    let mut plain = TcpStream::connect(addr).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();

    assert!(matches!(*source, TlsError::Alert(AlertDescription::UnrecognisedName)), "{source:?}");
    assert!(closed(plain).await);
    assert_eq!(one.accepted(), 0);
}

#[tokio::test]
async fn custom_resolver_follows_its_user() {
    let (one, two) = (Echo::start().await, Echo::start().await);
    let mut proxy = Program::start("custom_resolver", &["127.0.0.1:0"]).await;
    let addr = proxy.addr().await;

    proxy.say(&one.addr().to_string()).await;
    assert_eq!(proxy.line().await, "1 backends");
    let mut first = open(addr, 1).await;
    proxy.say("not an address").await;
    assert!(proxy.line().await.starts_with("no change: "));
    proxy.say(&two.addr().to_string()).await;
    assert_eq!(proxy.line().await, "1 backends");
    let second = open(addr, 1).await;
    proxy.say("").await;
    assert_eq!(proxy.line().await, "0 backends");

    assert_eq!((one.accepted(), two.accepted()), (1, 1));
    assert!(closed(TcpStream::connect(addr).await.unwrap()).await);
    assert_eq!(echo(&mut first[0], b"still here").await.unwrap(), b"still here");
    drop((first, second));
    proxy.interrupted_ends_well().await;
}

#[tokio::test]
async fn custom_balancer_fills_one_backend_before_the_next() {
    let (one, two) = (Echo::start().await, Echo::start().await);
    let mut sorted = [one.addr(), two.addr()];
    sorted.sort();
    let mut proxy = Program::start("custom_balancer", &["127.0.0.1:0", &list([&one, &two]), "fill"]).await;

    let clients = open(proxy.addr().await, 4).await;

    for expected in [sorted[0], sorted[0], sorted[1], sorted[1]] {
        assert_eq!(proxy.line().await, format!("to {expected}"));
    }
    drop(clients);
    proxy.interrupted_ends_well().await;
}

#[tokio::test]
async fn custom_balancer_prefers_the_idlest() {
    let (one, two) = (Echo::start().await, Echo::start().await);
    let mut proxy = Program::start("custom_balancer", &["127.0.0.1:0", &list([&one, &two]), "idlest"]).await;

    let clients = open(proxy.addr().await, 4).await;

    assert_eq!((one.open(), two.open()), (2, 2));
    drop(clients);
    proxy.interrupted_ends_well().await;
}

#[tokio::test]
async fn custom_balancer_names_a_rule_it_does_not_know() {
    let proxy = Program::start("custom_balancer", &["127.0.0.1:0", "127.0.0.1:9001", "best"]).await;

    assert!(proxy.complaint().await.contains("best: neither fill nor idlest"));
}

#[tokio::test]
async fn custom_connector_says_who_the_client_is() {
    let backend = Echo::start().await;
    let mut proxy = Program::start("custom_connector", &["127.0.0.1:0", &backend.addr().to_string()]).await;
    let addr = proxy.addr().await;

    let mut client = TcpStream::connect(addr).await.unwrap();
    let port = client.local_addr().unwrap().port();
    let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\nhello", addr.port());
    client.write_all(b"hello").await.unwrap();
    let mut seen = vec![0; expected.len()];
    client.read_exact(&mut seen).await.unwrap();

    assert_eq!(String::from_utf8_lossy(&seen), expected);
    drop(client);
    proxy.interrupted_ends_well().await;
}

#[tokio::test]
async fn tower_balance_heeds_load_and_weight() {
    let (one, two) = (Echo::start().await, Echo::start().await);
    let backends = format!("{}@2,{}", one.addr(), two.addr());

    let mut program = Program::start("tower_balance", &[&backends, "6"]).await;

    let mut to_one = 0;
    for _ in 0..6 {
        to_one += usize::from(program.line().await == format!("connected to {:?}", Some(one.addr())));
    }
    assert_eq!(to_one, 4);
    program.ends_well().await;
}

#[tokio::test]
async fn http_hello_greets_counts_and_can_be_shut_down() {
    let mut program = Program::start("http_hello", &["127.0.0.1:0", "127.0.0.1:0"]).await;
    let (addr, admin) = (program.addr().await, program.addr().await);

    let hello = ask(addr, "GET /some/page").await;
    assert!(hello.starts_with("HTTP/1.1 200 OK") && hello.ends_with("this is /some/page\n"), "{hello}");
    assert!(ask(admin, "GET /live").await.ends_with("\r\nlive\n"));
    assert!(ask(admin, "GET /count").await.ends_with("\r\n1\n"));
    assert!(ask(admin, "GET /shutdown").await.starts_with("HTTP/1.1 405 "));
    assert!(ask(admin, "POST /shutdown").await.ends_with("\r\nbye\n"));

    program.ends_well().await;
}

#[test]
fn the_readme_lists_every_program() {
    let root = env!("CARGO_MANIFEST_DIR");
    let (manifest, readme) = (read(root, "Cargo.toml"), read(root, "README.md"));

    let names = manifest.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix(".rs\""));

    for name in names {
        assert!(readme.contains(&format!("[`{name}`]({name}.rs)")), "{name} is not linked");
        assert!(readme.contains(&format!("--example {name}")), "{name} has no command");
    }
}

fn read(root: &str, name: &str) -> String {
    fs::read_to_string(format!("{root}/{name}")).unwrap()
}

fn list(backends: [&Echo; 2]) -> String {
    backends.map(|backend| backend.addr().to_string()).join(",")
}

/// An address that was listened at a moment ago.
async fn dead() -> SocketAddr {
    let gone = Echo::start().await;
    let addr = gone.addr();
    gone.stop().await;
    addr
}

/// A TLS backend that says its name first.
async fn named(ca: &TestCa, name: &'static str) -> Echo {
    EchoOptions::default().with_tls(ca.server_config([name])).with_greeting(name).start().await.unwrap()
}

/// Connections that are known to go through: each has echoed something.
async fn open(addr: SocketAddr, n: usize) -> Vec<Io> {
    let connect = BalanceLayer::new(Static::new([addr]), "program").layer(TcpConnector::default());
    let mut opened = Vec::new();
    for _ in 0..n {
        let mut io = connect.clone().oneshot(Session::default()).await.unwrap();
        assert_eq!(echo(&mut io, b"through").await.unwrap(), b"through");
        opened.push(io);
    }
    opened
}

async fn secure(ca: &TestCa, addr: SocketAddr, name: &str) -> Result<Io, Error> {
    let connect = TlsLayer::new(Always::new(ca.client_tls(name))).layer(TcpConnector::default());
    connect.oneshot(To::new(Endpoint::new(addr), Session::default())).await
}

/// Whether the other end closed the connection without a word.
async fn closed(mut stream: TcpStream) -> bool {
    match program::bounded(stream.read(&mut [0; 64])).await {
        Ok(n) => n == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

async fn ask(addr: SocketAddr, what: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("{what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    program::bounded(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn http_proxy_lets_in_who_has_the_token() {
    let backend = HttpBackend::start("one").await;
    let backends = format!("{},{}", dead().await, backend.addr);
    let mut proxy = Program::start("http_proxy", &["127.0.0.1:0", &backends, "sesame"]).await;
    let addr = proxy.addr().await;

    let stranger = get(addr, "host: www.example\r\n").await;
    assert!(stranger.starts_with("HTTP/1.1 401 "), "{stranger}");
    assert!(stranger.contains("www-authenticate: Bearer\r\n"), "{stranger}");
    for _ in 0..3 {
        let friend = get(addr, "host: www.example\r\nauthorization: Bearer sesame\r\n").await;
        assert!(friend.starts_with("HTTP/1.1 200 ") && friend.ends_with("one"), "{friend}");
    }

    assert!(backend.heads().iter().all(|head| head.contains("x-forwarded-for: 127.0.0.1\r\n")));
    proxy.interrupted_ends_well().await;
}

#[tokio::test]
async fn http_proxy_says_that_nobody_is_there() {
    let mut proxy = Program::start("http_proxy", &["127.0.0.1:0", &dead().await.to_string(), "sesame"]).await;
    let addr = proxy.addr().await;

    let answer = get(addr, "host: www.example\r\nauthorization: Bearer sesame\r\n").await;

    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("nobody is there"), "{answer}");
    proxy.interrupted_ends_well().await;
}

#[tokio::test]
async fn axum_server_answers_in_the_protocol_that_was_agreed_on() {
    let ca = TestCa::new();
    let (mut server, _dir) = axum_server(&ca).await;
    let addr = server.addr().await;

    for (http2, spoken) in [(true, "HTTP/2.0"), (false, "HTTP/1.1")] {
        let client = ClientLayer::new()
            .tls(Always::new(ca.client_tls("localhost")))
            .http2(http2)
            .layer(TcpConnector::default());
        let request = Request::get("https://localhost/hello/you").body(Body::empty()).unwrap();
        let answer = client.oneshot(To::new(Endpoint::new(addr), request)).await.unwrap();
        let body = answer.into_body().collect(1024).await.unwrap();

        let text = String::from_utf8_lossy(&body);
        assert!(text.starts_with("hello you at Some(127.0.0.1:"), "{text}");
        assert!(text.contains(&format!("you speak {spoken} in Some(")), "{text}");
    }

    server.interrupted_ends_well().await;
}

#[tokio::test]
async fn axum_server_lets_a_request_end() {
    let ca = TestCa::new();
    let (mut server, _dir) = axum_server(&ca).await;
    let addr = server.addr().await;
    let mut io = secure(&ca, addr, "localhost").await.unwrap();
    io.write_all(b"PUT /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nstill").await.unwrap();
    read_until(&mut io, b"still").await;

    server.interrupt().await;
    // It has begun to end when nobody listens any more.
    while TcpStream::connect(addr).await.is_ok() {}
    io.write_all(b"here").await.unwrap();
    read_until(&mut io, b"here").await;

    drop(io);
    server.ends_well().await;
}

#[tokio::test]
async fn axum_server_follows_its_files() {
    let ca = TestCa::new();
    let (mut server, dir) = axum_server(&ca).await;
    let addr = server.addr().await;
    secure(&ca, addr, "localhost").await.unwrap();

    ca.issue(["www.localhost"]).write_to(dir.path()).unwrap();
    let followed = async { while secure(&ca, addr, "www.localhost").await.is_err() {} };
    program::bounded(followed).await;

    server.interrupted_ends_well().await;
}

#[tokio::test]
async fn hyper_client_stays_with_a_replica_that_lives() {
    let ca = TestCa::new();
    for (alpn, spoken) in [(ALPN.map(Vec::from).into(), "HTTP/2.0"), (vec![], "HTTP/1.1")] {
        let mut config = ca.server_config(["localhost"]);
        Arc::make_mut(&mut config).alpn_protocols = alpn;
        let server = Server::bind("127.0.0.1:0").await.unwrap();
        let addr = server.local_addr();
        let connections = Arc::<Mutex<HashSet<Option<SocketAddr>>>>::default();
        let seen = Arc::clone(&connections);
        let hello = tower::service_fn(move |request: Request<Body>| {
            seen.lock().unwrap().insert(request.extensions().get::<Accepted>().unwrap().session().peer);
            async { Ok::<_, Error>(Response::new(Body::from("hello\n"))) }
        });
        let service = TlsLayer::new(Terminate::new(config)).layer(HttpServer::new(hello));
        let drain = Drain::new();
        let serving = tokio::spawn(server.serve(service, drain.clone()));

        let addrs = format!("{},{addr}", dead().await);
        let mut client =
            Program::start_trusting("hyper_client", &[&addrs, "localhost", "3"], &ca.pem()).await;

        for _ in 0..3 {
            assert_eq!(client.line().await, format!("{spoken} 200 OK from {:?}", Some(addr)));
        }
        client.ends_well().await;
        // hyper may open another one before an HTTP/1 connection is back in the pool.
        assert!(connections.lock().unwrap().len() < 3);
        drain.start();
        serving.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn consul_finds_the_instances_of_a_service() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let backend = HttpBackend::start("one").await;
    let port = backend.addr.port();
    consul
        .put(
            "/v1/agent/service/register",
            &format!(r#"{{"Name":"web","Address":"127.0.0.1","Port":{port}}}"#),
        )
        .await;

    let url = format!("http://{}", consul.addr());
    let mut client = Program::start("consul", &[&url, "web", "2"]).await;

    for _ in 0..2 {
        assert_eq!(client.line().await, "200 OK");
        assert_eq!(client.line().await, "one");
    }
    client.ends_well().await;
}

#[tokio::test]
async fn acme_server_gets_a_certificate() {
    let [http, https] = free_ports();
    let options = PebbleOptions::default().with_http_port(http).with_tls_port(https);
    let Some(pebble) = or_skip(Pebble::start(options).await) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (http, https) = (format!("127.0.0.1:{http}"), format!("127.0.0.1:{https}"));
    let args = ["www.example.test", &pebble.directory(), dir.path().to_str().unwrap(), &http, &https];
    let mut server = Program::start_trusting("acme_server", &args, &pebble.ca_pem()).await;
    server.addr().await;
    let addr = server.addr().await;

    let config = tls::client_config(tls::provider(), pebble.issuing_roots().await).unwrap();
    let config = Arc::new(config);
    let trusted = async {
        loop {
            let name = ServerName::try_from("www.example.test").unwrap();
            let tcp = TcpStream::connect(addr).await.unwrap();
            // Until the order is done the certificate is of our own making.
            if let Ok(mut tls) = TlsConnector::from(Arc::clone(&config)).connect(name, tcp).await {
                tls.write_all(b"GET / HTTP/1.1\r\nhost: www.example.test\r\nconnection: close\r\n\r\n")
                    .await
                    .unwrap();
                let mut answer = String::new();
                // A server need not say goodbye in TLS.
                let _ = tls.read_to_string(&mut answer).await;
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), trusted).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello\n"), "{answer}");
    server.interrupted_ends_well().await;
}

/// The example with a certificate for `localhost`, and the directory that it is in.
async fn axum_server(ca: &TestCa) -> (Program, TempDir) {
    let dir = TempDir::new().unwrap();
    let (chain, key) = ca.issue(["localhost"]).write_to(dir.path()).unwrap();
    let args = ["127.0.0.1:0", chain.to_str().unwrap(), key.to_str().unwrap()];
    (Program::start("axum_server", &args).await, dir)
}

async fn read_until(io: &mut Io, end: &[u8]) {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        assert_ne!(program::bounded(io.read_buf(&mut read)).await.unwrap(), 0, "it ended early");
    }
}

/// A server that answers each request with its name, and keeps their heads.
struct HttpBackend {
    addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl HttpBackend {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let mut read = Vec::new();
                    while client.read_buf(&mut read).await.unwrap() > 0 {
                        if read.ends_with(b"\r\n\r\n") {
                            seen.lock().unwrap().push(String::from_utf8(std::mem::take(&mut read)).unwrap());
                            let answer =
                                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                            client.write_all(answer.as_bytes()).await.unwrap();
                        }
                    }
                });
            }
        });
        Self { addr, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// The whole answer to a request with these headers.
async fn get(addr: SocketAddr, headers: &str) -> String {
    let mut client = TcpStream::connect(addr).await.unwrap();
    client
        .write_all(format!("GET / HTTP/1.1\r\n{headers}connection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}
