//! Opportunistic TLS: which failures lead to plaintext.

use std::sync::Arc;
use std::time::Duration;

use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Io;
use meshlib::Session;
use meshlib::TcpConnector;
use meshlib::TlsLayer;
use meshlib::To;
use meshlib::io::TlsStatus;
use meshlib::test_util::Echo;
use meshlib::test_util::EchoOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::echo_to_end;
use meshlib::tls::ClientTls;
use meshlib::tls::ConnectTls;
use meshlib::tls::Fallback;
use meshlib::tls::Tls;
use meshlib::tls::TlsPolicy;
use tower::Layer;
use tower::ServiceExt;

struct Opportunistic {
    tls: ClientTls,
    fallback: Fallback,
}

impl TlsPolicy for Opportunistic {
    fn connect(&self, _: &To<Session>) -> ConnectTls {
        let within = Duration::from_millis(500);
        ConnectTls::Opportunistic { tls: self.tls.clone(), fallback: self.fallback, within }
    }
}

fn layer(tls: &ClientTls, fallback: Fallback) -> Tls<TcpConnector> {
    let policy = Opportunistic { tls: tls.clone(), fallback };
    TlsLayer::new(policy).layer(TcpConnector::default())
}

async fn connect(connect: &Tls<TcpConnector>, endpoint: &Endpoint) -> Result<Io, Error> {
    connect.clone().oneshot(To::new(endpoint.clone(), Session::default())).await
}

/// Speaks plaintext first, so that it is certain not to be TLS.
async fn greeter() -> Echo {
    EchoOptions::default().with_greeting("220 hello\r\n").start().await.unwrap()
}

#[tokio::test]
async fn tls_is_used_where_it_works() {
    let ca = TestCa::new();
    let server = Echo::start_tls(ca.server_config(["localhost"])).await;

    for fallback in [Fallback::Any, Fallback::Sticky, Fallback::NotTls] {
        let connector = layer(&ca.client_tls("localhost"), fallback);
        let mut io = connect(&connector, &Endpoint::new(server.addr())).await.unwrap();
        assert_eq!(io.tls(), TlsStatus::Client, "{fallback:?}");
        assert_eq!(echo_to_end(&mut io, b"x").await.unwrap(), b"x");
    }
}

#[tokio::test]
async fn plaintext_is_used_where_the_server_speaks_no_tls() {
    let (ca, server) = (TestCa::new(), greeter().await);

    for fallback in [Fallback::Any, Fallback::Sticky, Fallback::NotTls] {
        let connector = layer(&ca.client_tls("localhost"), fallback);
        let endpoint = Endpoint::new(server.addr());
        let before = server.accepted();
        for _ in 0..3 {
            let mut io = connect(&connector, &endpoint).await.unwrap();
            assert_eq!(io.tls(), TlsStatus::None, "{fallback:?}");
            assert_eq!(echo_to_end(&mut io, b"x").await.unwrap(), b"220 hello\r\nx");
        }
        assert_eq!(server.accepted() - before, 4, "TLS is tried once and then not for a while");
    }
}

#[tokio::test]
async fn a_bad_certificate_leads_to_plaintext_only_where_anything_does() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let server = Echo::start_tls(ca.server_config(["localhost"])).await;

    let strict = layer(&other.client_tls("localhost"), Fallback::NotTls);
    assert!(matches!(connect(&strict, &Endpoint::new(server.addr())).await, Err(Error::Tls { .. })));
    let any = layer(&other.client_tls("localhost"), Fallback::Any);
    let io = connect(&any, &Endpoint::new(server.addr())).await.unwrap();
    assert_eq!(io.tls(), TlsStatus::None);
}

#[tokio::test]
async fn what_has_spoken_tls_once_must_speak_it_where_that_sticks() {
    let ca = TestCa::new();
    let client = ca.client_tls("localhost");
    let server = Echo::start_tls(ca.server_config(["localhost"])).await;
    let endpoint = Endpoint::new(server.addr()).with_metadata(Arc::default());
    let (sticky, any) = (layer(&client, Fallback::Sticky), layer(&client, Fallback::Any));
    for connector in [&sticky, &any] {
        assert_eq!(connect(connector, &endpoint).await.unwrap().tls(), TlsStatus::Client);
    }

    // Somebody else has taken its address.
    server.stop().await;
    let impostor = EchoOptions::default().with_addr(endpoint.addr).with_greeting("220 hello\r\n");
    let _impostor = impostor.start().await.unwrap();

    assert!(matches!(connect(&sticky, &endpoint).await, Err(Error::Tls { .. })));
    assert_eq!(connect(&any, &endpoint).await.unwrap().tls(), TlsStatus::None);
    // Another registration at the address says that it is another server.
    let again = Endpoint::new(endpoint.addr).with_metadata(Arc::default());
    assert_eq!(connect(&sticky, &again).await.unwrap().tls(), TlsStatus::None);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_no_reason_for_plaintext() {
    let (ca, server) = (TestCa::new(), Echo::start().await);
    let endpoint = Endpoint::new(server.addr());
    server.stop().await;

    let outcome = connect(&layer(&ca.client_tls("localhost"), Fallback::Any), &endpoint).await;

    assert!(matches!(outcome, Err(Error::Connect { .. })), "{outcome:?}");
}
