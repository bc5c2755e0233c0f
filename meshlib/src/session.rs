//! Facts that travel with a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::drain::Draining;
use crate::endpoint::Endpoint;
use crate::io::Io;

/// What is known about an accepted connection.
///
/// `Session::default()` stands for a connection that no inbound side caused: a client's own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Session {
    /// Who connected.
    pub peer: Option<SocketAddr>,
    /// The local address the connection arrived at.
    pub local: Option<SocketAddr>,
    /// Where the client wanted to go before it was redirected to us. `None`: nowhere else, or the listener does not
    /// [intercept](crate::ListenOptions).
    pub original_dst: Option<SocketAddr>,
    /// The server name of its TLS hello, in lower case. Set by a [`TlsLayer`](crate::TlsLayer) that terminated TLS or
    /// [looked at the first bytes](crate::tls::Inspect), whether or not it then passed them on as they are.
    pub server_name: Option<Arc<str>>,
    /// The application protocol that was agreed on in the TLS handshake.
    pub alpn: Option<Arc<[u8]>>,
    /// How the inbound connection is encrypted. `None`: it is not, or not by us.
    pub tls: Option<Arc<TlsSession>>,
    /// When the connection was accepted. Deadlines that count from there count from this.
    pub accepted: Instant,
}

impl Session {
    /// A session of a connection accepted now.
    pub fn accepted(peer: SocketAddr, local: SocketAddr) -> Self {
        Self { peer: Some(peer), local: Some(local), ..Self::default() }
    }

    /// Sets where the client wanted to go.
    #[must_use]
    pub fn with_original_dst(mut self, addr: SocketAddr) -> Self {
        self.original_dst = Some(addr);
        self
    }

    /// Sets the name the client asked for.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

impl Default for Session {
    fn default() -> Self {
        Self {
            peer: None,
            local: None,
            original_dst: None,
            server_name: None,
            alpn: None,
            tls: None,
            accepted: Instant::now(),
        }
    }
}

/// How a connection is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsSession {
    /// Protocol version, as registered: `TLSv1.3`.
    pub version: &'static str,
    /// Cipher suite, as registered: `TLS13_AES_128_GCM_SHA256`.
    pub suite: &'static str,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The first certificate the peer showed, in DER. `None`: it showed none.
    pub peer_certificate: Option<Arc<[u8]>>,
}

impl TlsSession {
    /// A full handshake without a certificate of the peer.
    pub fn new(version: &'static str, suite: &'static str) -> Self {
        Self { version, suite, resumed: false, peer_certificate: None }
    }

    /// Says whether the session was resumed.
    #[must_use]
    pub fn with_resumed(mut self, resumed: bool) -> Self {
        self.resumed = resumed;
        self
    }

    /// Sets the certificate that the peer showed, in DER.
    #[must_use]
    pub fn with_peer_certificate(mut self, certificate: Option<Arc<[u8]>>) -> Self {
        self.peer_certificate = certificate;
        self
    }
}

/// An accepted connection on its way to a service.
#[derive(Debug)]
#[non_exhaustive]
pub struct Conn {
    /// The bytes.
    pub io: Io,
    /// The facts.
    pub session: Session,
    /// Tells the service that the server is closing down.
    pub draining: Draining,
}

impl Conn {
    /// Puts the parts together.
    pub fn new(io: Io, session: Session, draining: Draining) -> Self {
        Self { io, session, draining }
    }
}

/// A request together with the endpoint that was chosen for it.
///
/// What stands between a balancer and what it balances is a service of this, and is called once for each attempt: a
/// `Service<To<Session>>` above a connector, a `Service<To<Request<Body>>>` above an HTTP client.
///
/// # Examples
///
/// Attempts per endpoint. (An [`Observer`](crate::observe::Observer) can count them too, and is told how they end.)
///
/// ```
/// # #[cfg(feature = "http")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::collections::HashMap;
/// use std::net::SocketAddr;
/// use std::sync::{Arc, Mutex};
/// use http::Request;
/// use meshlib::http::{Body, ClientLayer};
/// use meshlib::{BalanceLayer, Static, TcpConnector, To};
/// use tower::ServiceBuilder;
///
/// let attempts = Arc::<Mutex<HashMap<SocketAddr, u64>>>::default();
/// let counting = Arc::clone(&attempts);
/// let client = ServiceBuilder::new()
///     .layer(BalanceLayer::new(Static::new(["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?]), "web"))
///     .map_request(move |to: To<Request<Body>>| {
///         *counting.lock().unwrap().entry(to.endpoint.addr).or_default() += 1;
///         to
///     })
///     .layer(ClientLayer::new())
///     .service(TcpConnector::default());
/// # fn is_client<S: tower::Service<Request<Body>, Response = http::Response<Body>>>(_: &S) {}
/// # is_client(&client);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "http"))]
/// # fn main() {}
/// ```
///
/// A service of one's own in that place looks at `to.endpoint`, and at what comes back, like this:
///
/// ```
/// use meshlib::{Error, To};
/// use tower::{Layer, Service, ServiceExt};
///
/// /// Prints where each attempt goes and whether it succeeds.
/// fn printing<R, S>(inner: S) -> impl Service<To<R>, Response = S::Response, Error = Error, Future: Send> + Clone
/// where
///     R: Send + 'static,
///     S: Service<To<R>, Error = Error, Future: Send> + Clone + Send + 'static,
/// {
///     tower::service_fn(move |to: To<R>| {
///         let (inner, addr) = (inner.clone(), to.endpoint.addr);
///         async move {
///             let result = inner.oneshot(to).await;
///             println!("{addr}: {}", if result.is_ok() { "ok" } else { "failed" });
///             result
///         }
///     })
/// }
///
/// let layer = tower::layer::layer_fn(printing::<meshlib::Session, _>);
/// # let _ = layer.layer(meshlib::TcpConnector::default());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct To<R> {
    /// Where it goes.
    pub endpoint: Endpoint,
    /// What goes there: a [`Session`] asks a connector, an HTTP request asks an HTTP client.
    pub request: R,
}

impl<R> To<R> {
    /// Puts the parts together.
    pub fn new(endpoint: Endpoint, request: R) -> Self {
        Self { endpoint, request }
    }
}
