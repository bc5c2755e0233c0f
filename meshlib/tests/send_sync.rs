//! What can travel between threads, and how large it is.

use std::fmt::Debug;

use meshlib::*;

fn send_sync<T: Send + Sync + Debug>() {}
fn send<T: Send + Debug>() {}
fn cloned<T: Clone + Send + Sync>() {}

type Connect = tls_stack::Stack;

mod tls_stack {
    use super::*;

    /// What the crate's page builds.
    pub(crate) type Stack = connect::Timeout<balance::Balance<tls::Tls<TcpConnector>>>;
}

#[test]
fn everything_can_be_shared_and_connections_can_be_sent() {
    send::<Io>();
    send::<Conn>();
    send::<balance::InFlight>();
    send::<Resolution>();

    send_sync::<Session>();
    send_sync::<TlsSession>();
    send_sync::<To<Session>>();
    send_sync::<Endpoint>();
    send_sync::<EndpointKey>();
    send_sync::<Metadata>();
    send_sync::<Weight>();
    send_sync::<Error>();
    send_sync::<Drain>();
    send_sync::<Draining>();
    send_sync::<Server>();
    send_sync::<Listener>();
    send_sync::<ListenOptions>();
    send_sync::<ForwardOptions>();
    send_sync::<Progress>();
    send_sync::<Transferred>();
    send_sync::<Update>();
    send_sync::<Static>();
    send_sync::<resolve::Dns>();
    send_sync::<resolve::Dir>();
    send_sync::<resolve::Keep<Static, String>>();
    send_sync::<resolve::ResolveError>();
    send_sync::<BalanceLayer>();
    send_sync::<balance::Balance<TcpConnector>>();
    send_sync::<balance::BalanceBy<TcpConnector, String, fn(&Session) -> Result<String, Error>>>();
    send_sync::<balance::View>();
    send_sync::<balance::ViewState>();
    send_sync::<balance::ReplicaSet>();
    send_sync::<balance::Replica>();
    send_sync::<balance::InFlight>();
    send_sync::<balance::Accrual>();
    send_sync::<balance::Attempts>();
    send_sync::<balance::Budget>();
    send_sync::<TcpConnector>();
    send_sync::<BoxConnector>();
    send_sync::<connect::DirectLayer>();
    send_sync::<TimeoutLayer>();
    send_sync::<TlsLayer>();
    send_sync::<tls::Tls<TcpConnector>>();
    send_sync::<tls::ClientTls>();
    send_sync::<tls::CertResolver>();
    send_sync::<tls::TlsError>();
    send_sync::<tls::Reloading<String, std::io::Error>>();
    send_sync::<TcpProxy<Connect>>();
}

#[test]
#[cfg(feature = "acme")]
fn what_orders_certificates_can_be_shared() {
    send_sync::<tls::acme::Manager>();
    send_sync::<tls::acme::AcmeOptions>();
    send_sync::<tls::acme::AcmeCerts>();
    send_sync::<tls::acme::AcmeError>();
    send_sync::<tls::acme::Challenges>();
    send_sync::<tls::acme::NameView>();
    send_sync::<tls::acme::Terminate>();
    #[cfg(target_os = "linux")]
    send_sync::<store::DirStore>();
}

#[test]
fn services_can_be_cloned_and_shared() {
    cloned::<Connect>();
    cloned::<TcpProxy<Connect>>();
    cloned::<BoxConnector>();
}

#[test]
fn what_every_connection_carries_is_small() {
    // What a task of a connection holds while bytes flow is made of these.
    assert!(size_of::<Io>() <= 128, "{}", size_of::<Io>());
    assert!(size_of::<Session>() <= 320, "{}", size_of::<Session>());
    assert!(size_of::<Conn>() <= 512, "{}", size_of::<Conn>());
    assert!(size_of::<Error>() <= 64, "{}", size_of::<Error>());
    assert!(size_of::<Option<balance::InFlight>>() <= 16, "{}", size_of::<Option<balance::InFlight>>());
}

#[tokio::test]
async fn forwarding_between_sockets_takes_little_memory() {
    let listener = Listener::bind("127.0.0.1:0", &ListenOptions::default()).await.unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr()).await.unwrap();
    let server = listener.accept().await.unwrap().0;
    let (mut client, mut server) = (Io::from(client), Io::from(server));
    let options = ForwardOptions::default();

    let forwarding = forward(&mut client, &mut server, &options);

    println!("{} bytes", size_of_val(&forwarding));
    assert!(size_of_val(&forwarding) <= 768, "{}", size_of_val(&forwarding));
}

/// What the task of a proxied connection holds for as long as the connection lives.
#[tokio::test]
async fn a_proxied_connection_takes_little_memory() {
    use tower::Layer;
    use tower::Service;

    let connect = BalanceLayer::new(Static::new([]), "web").layer(TcpConnector::default());
    let (ours, _client) = tokio::io::duplex(1);
    let conn = Conn::new(Io::new(ours), Session::default(), Drain::new().draining());

    let proxying = TcpProxy::new(connect).call(conn);

    let size = size_of_val(proxying.as_ref().get_ref());
    println!("{size} bytes");
    assert!(size <= 1280, "{size}");
}
