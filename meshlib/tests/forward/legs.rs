//! Both sides of a forwarded connection: ours, and the peers at the far ends.

use std::sync::Arc;

use meshlib::Conn;
use meshlib::Drain;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Io;
use meshlib::Session;
use meshlib::TlsLayer;
use meshlib::To;
use meshlib::test_util::TestCa;
use meshlib::tls::Always;
use meshlib::tls::Terminate;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;
use tower::Layer;
use tower::ServiceExt;

/// How one side is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leg {
    Plain,
    Tls,
}

/// Client and server side, in every combination.
pub(crate) const LEGS: [(Leg, Leg); 4] =
    [(Leg::Plain, Leg::Plain), (Leg::Tls, Leg::Plain), (Leg::Plain, Leg::Tls), (Leg::Tls, Leg::Tls)];

/// The far end of a side.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// The socket, as it is beneath.
    fn into_socket(self: Box<Self>) -> TcpStream;
}

impl Stream for TcpStream {
    fn into_socket(self: Box<Self>) -> TcpStream {
        *self
    }
}

impl Stream for tokio_rustls::client::TlsStream<TcpStream> {
    fn into_socket(self: Box<Self>) -> TcpStream {
        self.into_inner().0
    }
}

impl Stream for tokio_rustls::server::TlsStream<TcpStream> {
    fn into_socket(self: Box<Self>) -> TcpStream {
        self.into_inner().0
    }
}

/// Our side of a connection and its far end.
pub(crate) struct Side {
    pub(crate) ours: Io,
    pub(crate) peer: Box<dyn Stream>,
}

/// Two connected sockets.
pub(crate) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (peer, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (peer, ours) = (peer.unwrap(), accepted.unwrap().0);
    peer.set_nodelay(true).unwrap();
    ours.set_nodelay(true).unwrap();
    (ours, peer)
}

/// A connection that a client opened to us.
pub(crate) async fn client_side(leg: Leg) -> Side {
    let (ours, peer) = sockets().await;
    client_over(leg, ours, peer).await
}

/// A connection that a client opened to us over sockets that lead to each other.
pub(crate) async fn client_over(leg: Leg, ours: TcpStream, peer: TcpStream) -> Side {
    if leg == Leg::Plain {
        let (ours, peer) = (ours.into(), Box::new(peer));
        return Side { ours, peer };
    }
    let (ours, peer) = accepted(&TestCa::new(), ours, peer).await;
    Side { ours, peer: Box::new(peer) }
}

/// Both ends of a TLS connection of which we are the server.
pub(crate) async fn accepted(
    ca: &TestCa,
    ours: TcpStream,
    peer: TcpStream,
) -> (Io, tokio_rustls::client::TlsStream<TcpStream>) {
    let accept = TlsLayer::new(Terminate::new(ca.server_config(["localhost"])))
        .layer(tower::service_fn(|conn: Conn| async { Ok::<_, Error>(conn) }));
    let conn = Conn::new(ours.into(), Session::default(), Drain::new().draining());
    let tls = ca.client_tls("localhost");
    let connector = TlsConnector::from(tls.config);
    let (conn, peer) = tokio::join!(accept.oneshot(conn), connector.connect(tls.server_name, peer));
    (conn.unwrap().io, peer.unwrap())
}

/// A connection that we opened to a server.
pub(crate) async fn server_side(leg: Leg) -> Side {
    let (ours, peer) = sockets().await;
    server_over(leg, ours, peer).await
}

/// A connection that we opened to a server over sockets that lead to each other.
pub(crate) async fn server_over(leg: Leg, ours: TcpStream, peer: TcpStream) -> Side {
    if leg == Leg::Plain {
        let (ours, peer) = (ours.into(), Box::new(peer));
        return Side { ours, peer };
    }
    let ca = TestCa::new();
    let ours = Arc::new(std::sync::Mutex::new(Some(ours)));
    let connect = TlsLayer::new(Always::new(ca.client_tls("localhost"))).layer(tower::service_fn(
        move |_: To<Session>| {
            let ours = ours.lock().unwrap().take().expect("connected once");
            async { Ok::<_, Error>(Io::from(ours)) }
        },
    ));
    let to = To::new(Endpoint::new(peer.local_addr().unwrap()), Session::default());
    let acceptor = TlsAcceptor::from(ca.server_config(["localhost"]));
    let (ours, peer) = tokio::join!(connect.oneshot(to), acceptor.accept(peer));
    Side { ours: ours.unwrap(), peer: Box::new(peer.unwrap()) }
}
