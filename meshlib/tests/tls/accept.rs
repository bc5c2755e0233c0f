//! As the server: silence, plaintext, alerts, passing through, and what is learnt about the client.

use std::sync::Arc;
use std::time::Duration;

use meshlib::BalanceLayer;
use meshlib::Session;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::TcpProxy;
use meshlib::TlsLayer;
use meshlib::io::sniff::Sniffed;
use meshlib::test_util::Echo;
use meshlib::test_util::TestCa;
use meshlib::test_util::echo;
use meshlib::test_util::echo_to_end;
use meshlib::tls::AcceptTls;
use meshlib::tls::Hello;
use meshlib::tls::Inspect;
use meshlib::tls::Terminate;
use meshlib::tls::TlsError;
use meshlib::tls::TlsPolicy;
use meshlib::tls::rustls::AlertDescription;
use meshlib::tls::rustls::ServerConfig;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;
use tokio::time::Instant;
use tower::Layer;

use crate::rig::Accepting;
use crate::rig::SOON;
use crate::rig::connect_tls;
use crate::rig::tls_error;

#[tokio::test]
async fn the_session_says_how_it_is_encrypted() {
    let ca = TestCa::new();
    let mut config = ServerConfig::clone(&ca.server_config(["localhost"]));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = Accepting::start(Terminate::new(config)).await;
    let mut client = ca.client_tls("LocalHost");
    Arc::make_mut(&mut client.config).alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];

    let mut io = connect_tls(server.addr, client).await.unwrap();
    echo(&mut io, b"x").await.unwrap();

    let session = server.session();
    assert_eq!(session.server_name.as_deref(), Some("localhost"));
    assert_eq!(session.alpn.as_deref(), Some(&b"h2"[..]), "the server's order counts");
    assert_eq!(session.peer, io.local_addr());
    let tls = session.tls.unwrap();
    assert_eq!((tls.version, tls.resumed, tls.peer_certificate.clone()), ("TLSv1.3", false, None));
    assert!(tls.suite.starts_with("TLS13_"), "{}", tls.suite);
}

#[tokio::test]
async fn silence_is_given_up_at_the_deadline_and_holds_up_nobody() {
    let ca = TestCa::new();
    let layer = TlsLayer::new(Terminate::new(ca.server_config(["localhost"])));
    let limit = Duration::from_millis(400);
    let server = Accepting::layered(layer.handshake_within(limit)).await;
    let began = Instant::now();
    let mut silent = TcpStream::connect(server.addr).await.unwrap();

    let mut io = connect_tls(server.addr, ca.client_tls("localhost")).await.unwrap();
    assert_eq!(echo_to_end(&mut io, b"x").await.unwrap(), b"x");
    assert!(began.elapsed() < limit, "the silent one does not hold up the other");

    let mut answer = Vec::new();
    time::timeout(SOON, silent.read_to_end(&mut answer)).await.expect("it is closed soon").unwrap();
    assert!(answer.is_empty());
    assert!(began.elapsed() >= limit);
    assert!(server.failure().await.contains("the client's handshake took longer"));
}

#[tokio::test]
async fn a_hello_in_pieces_must_come_in_time_as_a_whole() {
    let ca = TestCa::new();
    let layer = TlsLayer::new(Terminate::new(ca.server_config(["localhost"])));
    let server = Accepting::layered(layer.handshake_within(Duration::from_millis(300))).await;
    let mut slow = TcpStream::connect(server.addr).await.unwrap();

    let began = Instant::now();
    // A record that promises 512 bytes, given out one every 20 ms.
    let drip = async {
        for byte in [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3].into_iter().chain(std::iter::repeat(0)) {
            if slow.write_u8(byte).await.is_err() {
                return;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(SOON, drip).await.expect("it is closed soon");

    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn plaintext_on_a_tls_port_gets_an_alert() {
    let ca = TestCa::new();
    let server = Accepting::start(Terminate::new(ca.server_config(["localhost"]))).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();

    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The rest of what was sent may turn the close into a reset.
    let _ = time::timeout(SOON, client.read_to_end(&mut answer)).await.expect("it is closed soon");

    assert!(answer.is_empty() || answer[0] == 21, "an alert or nothing: {answer:?}");
    assert!(server.failure().await.contains("TLS with client"));
}

/// One name is passed through, one is terminated, all others get an alert; plaintext is refused.
struct Router {
    terminated: Arc<ServerConfig>,
}

impl TlsPolicy for Router {
    fn inspect(&self, _: &Session) -> Inspect {
        Inspect::FirstBytes { within: Duration::from_millis(300) }
    }

    fn accept(&self, hello: &Hello<'_>) -> AcceptTls {
        match &hello.protocol {
            Sniffed::Tls { server_name: Some("through.example"), .. } => AcceptTls::Forward,
            Sniffed::Tls { server_name: Some("ours.example"), .. } => {
                let config = Arc::clone(&self.terminated);
                AcceptTls::Later(Box::pin(async move { AcceptTls::Terminate(config) }))
            }
            Sniffed::Tls { .. } => AcceptTls::Alert(AlertDescription::UnrecognisedName),
            _ => AcceptTls::Refuse,
        }
    }
}

#[tokio::test]
async fn names_are_passed_through_terminated_or_refused() {
    let (ca, backend_ca) = (TestCa::new(), TestCa::new());
    let backend = Echo::start_tls(backend_ca.server_config(["through.example"])).await;
    let connect = BalanceLayer::new(Static::new([backend.addr()]), "web").layer(TcpConnector::default());
    let router = Router { terminated: ca.server_config(["ours.example"]) };
    let server = meshlib::Server::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr();
    let service = TlsLayer::new(router).layer(TcpProxy::new(connect));
    tokio::spawn(server.serve(service, meshlib::Drain::new()));

    // The backend's own certificate arrives at the client.
    let mut io = connect_tls(addr, backend_ca.client_tls("through.example")).await.unwrap();
    assert_eq!(echo_to_end(&mut io, b"sealed").await.unwrap(), b"sealed");

    let refused = tls_error(connect_tls(addr, ca.client_tls("other.example")).await);
    assert!(matches!(refused, TlsError::Alert(AlertDescription::UnrecognisedName)), "{refused:?}");

    let mut plain = TcpStream::connect(addr).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = time::timeout(SOON, plain.read_to_end(&mut answer)).await.expect("it is closed soon");
    assert!(answer.is_empty());
}

#[tokio::test]
async fn a_decision_that_must_be_fetched_is_waited_for() {
    let ca = TestCa::new();
    let router = Router { terminated: ca.server_config(["ours.example"]) };
    let server = Accepting::start(router).await;

    let mut io = connect_tls(server.addr, ca.client_tls("ours.example")).await.unwrap();

    assert_eq!(echo_to_end(&mut io, b"x").await.unwrap(), b"x");
    assert_eq!(server.session().server_name.as_deref(), Some("ours.example"));
}

#[tokio::test]
async fn looking_at_the_first_bytes_gives_up_on_a_client_that_says_nothing() {
    struct Anything;
    impl TlsPolicy for Anything {
        fn inspect(&self, _: &Session) -> Inspect {
            Inspect::FirstBytes { within: Duration::from_millis(100) }
        }
    }
    let server = Accepting::start(Anything).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();

    time::sleep(Duration::from_millis(300)).await;

    assert_eq!(echo(&mut client, b"late").await.unwrap(), b"late");
}
