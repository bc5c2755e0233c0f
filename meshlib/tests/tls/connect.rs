//! As the client: whom to believe, and what failures are called.

use std::time::Duration;

use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Fault;
use meshlib::Refusal;
use meshlib::Session;
use meshlib::TcpConnector;
use meshlib::TlsLayer;
use meshlib::To;
use meshlib::io::TlsStatus;
use meshlib::test_util::CertOptions;
use meshlib::test_util::Echo;
use meshlib::test_util::EchoOptions;
use meshlib::test_util::KeyKind;
use meshlib::test_util::TestCa;
use meshlib::test_util::echo_to_end;
use meshlib::tls;
use meshlib::tls::Always;
use meshlib::tls::ConnectTls;
use meshlib::tls::TlsError;
use meshlib::tls::TlsPolicy;
use tokio::net::TcpListener;
use tower::Layer;
use tower::ServiceExt;

use crate::rig::SOON;
use crate::rig::connect;
use crate::rig::connect_tls;
use crate::rig::tls_error;

#[tokio::test]
async fn the_right_name_of_the_right_authority_is_believed() {
    let ca = TestCa::new();
    let server = Echo::start_tls(ca.server_config(["localhost", "127.0.0.1"])).await;

    for name in ["localhost", "LOCALHOST", "127.0.0.1"] {
        let mut io = connect_tls(server.addr(), ca.client_tls(name)).await.unwrap();
        assert_eq!(io.tls(), TlsStatus::Client);
        assert_eq!(io.peer_addr(), Some(server.addr()));
        assert_eq!(echo_to_end(&mut io, b"secret").await.unwrap(), b"secret");
    }
}

#[tokio::test]
async fn every_kind_of_key_is_believed() {
    let ca = TestCa::new();
    for key in [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Ed25519, KeyKind::Rsa2048] {
        let cert = ca.issue_with(["localhost"], &CertOptions::default().with_key(key));
        let server = Echo::start_tls(cert.server_config()).await;
        let mut io = connect_tls(server.addr(), ca.client_tls("localhost")).await.unwrap();
        assert_eq!(echo_to_end(&mut io, b"secret").await.unwrap(), b"secret", "{key:?}");
    }
}

#[tokio::test]
async fn others_are_not_believed_and_the_reason_is_named() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let expired = ca.issue_with(["localhost"], &CertOptions::default().expired());
    let cases = [
        (ca.server_config(["localhost"]), ca.client_tls("other.example"), "cert_name"),
        (ca.server_config(["localhost"]), ca.client_tls("127.0.0.1"), "cert_name"),
        (ca.server_config(["*.example"]), ca.client_tls("a.b.example"), "cert_name"),
        (ca.server_config(["localhost"]), other.client_tls("localhost"), "cert_untrusted"),
        (expired.server_config(), ca.client_tls("localhost"), "cert_expired"),
    ];

    for (server, client, reason) in cases {
        let server = Echo::start_tls(server).await;
        let outcome = connect_tls(server.addr(), client).await;
        let error = outcome.as_ref().unwrap_err();
        assert_eq!((error.fault(), error.is_retryable()), (Fault::Server, true));
        assert_eq!(tls_error(outcome).reason(), reason);
    }
}

#[tokio::test]
async fn a_plaintext_server_is_told_from_a_broken_one() {
    let ca = TestCa::new();
    let server = EchoOptions::default().with_greeting("220 mail.example ESMTP\r\n").start().await.unwrap();

    let error = tls_error(connect_tls(server.addr(), ca.client_tls("localhost")).await);

    assert!(matches!(error, TlsError::NotTls), "{error:?}");
}

#[tokio::test]
async fn a_server_that_closes_at_once_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            // Reads the hello first, so that closing is not a reset.
            tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 4096]).await.unwrap();
        }
    });

    let error = tls_error(connect_tls(addr, TestCa::new().client_tls("localhost")).await);

    assert!(matches!(error, TlsError::Closed), "{error:?}");
}

#[tokio::test]
async fn a_silent_server_is_given_up_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limit = Duration::from_millis(100);
    let connect = TlsLayer::new(Always::new(TestCa::new().client_tls("localhost")))
        .handshake_within(limit)
        .layer(TcpConnector::default());
    let to = To::new(Endpoint::new(listener.local_addr().unwrap()), Session::default());

    let outcome = tokio::time::timeout(SOON, connect.oneshot(to)).await.expect("it is given up soon");

    let error = tls_error(outcome);
    assert!(matches!(error, TlsError::Timeout(after) if after == limit), "{error:?}");
}

#[tokio::test]
async fn a_session_is_resumed() {
    let ca = TestCa::new();
    let certs = tls::CertResolver::builder().with_default(ca.issue(["localhost"]).certified_key()).build();
    let config = tls::server_config(tls::provider(), certs, Some(tls::tickets().unwrap())).unwrap();
    let server = crate::rig::Accepting::start(tls::Terminate::new(config)).await;
    let client = ca.client_tls("localhost");

    for resumed in [false, true, true] {
        let mut io = connect_tls(server.addr, client.clone()).await.unwrap();
        // Tickets come with the answer.
        assert_eq!(echo_to_end(&mut io, b"x").await.unwrap(), b"x");
        assert_eq!(server.session().tls.unwrap().resumed, resumed);
    }
}

struct Never;

impl TlsPolicy for Never {
    fn connect(&self, _: &To<Session>) -> ConnectTls {
        ConnectTls::Refuse
    }
}

#[tokio::test]
async fn a_policy_can_refuse_an_endpoint() {
    let server = Echo::start().await;

    let outcome = connect(server.addr(), Never).await;

    assert!(matches!(outcome, Err(Error::Refused(Refusal::Policy))));
    assert_eq!(server.accepted(), 0);
}
