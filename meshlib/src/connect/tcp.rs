//! Plain TCP connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use socket2::SockRef;
use socket2::TcpKeepalive;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tower::Service;

use crate::error::Error;
use crate::io::Io;
use crate::session::Session;
use crate::session::To;
#[cfg(feature = "tproxy")]
use crate::tproxy;
#[cfg(feature = "tproxy")]
use crate::tproxy::ClientSource;

/// Options of the sockets that are opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Whether small writes leave at once. Default true.
    pub nodelay: bool,
    /// Silence after which the kernel asks whether the endpoint still lives. Default 60 s; `None`: never.
    pub keepalive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged before the connection breaks. Default: the kernel's choice.
    pub user_timeout: Option<Duration>,
    /// The local address to connect from. Default: the kernel's choice.
    pub source: Option<SocketAddr>,
    /// How to connect from the client's address instead. Default: not at all.
    #[cfg(feature = "tproxy")]
    pub client_source: Option<ClientSource>,
    /// The mark of the packets, for routing rules and packet filters (Linux; needs `CAP_NET_RAW`). Default: none.
    #[cfg(feature = "tproxy")]
    pub mark: Option<u32>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: Some(Duration::from_secs(60)),
            user_timeout: None,
            source: None,
            #[cfg(feature = "tproxy")]
            client_source: None,
            #[cfg(feature = "tproxy")]
            mark: None,
        }
    }
}

impl SocketOptions {
    /// Sets after which silence the kernel asks whether the endpoint lives.
    #[must_use]
    pub fn with_keepalive(mut self, idle: Option<Duration>) -> Self {
        self.keepalive = idle;
        self
    }

    /// Sets how long sent bytes may stay unacknowledged.
    #[must_use]
    pub fn with_user_timeout(mut self, limit: Option<Duration>) -> Self {
        self.user_timeout = limit;
        self
    }

    /// Sets the local address to connect from.
    #[must_use]
    pub fn with_source(mut self, source: Option<SocketAddr>) -> Self {
        self.source = source;
        self
    }

    /// Says how to connect from the client's address.
    #[cfg(feature = "tproxy")]
    #[must_use]
    pub fn with_client_source(mut self, source: Option<ClientSource>) -> Self {
        self.client_source = source;
        self
    }

    /// Sets the mark of the packets.
    #[cfg(feature = "tproxy")]
    #[must_use]
    pub fn with_mark(mut self, mark: Option<u32>) -> Self {
        self.mark = mark;
        self
    }

    /// A socket with these options that can connect to an address.
    fn socket(&self, addr: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_nodelay(self.nodelay)?;
        let sock = SockRef::from(&socket);
        if let Some(idle) = self.keepalive {
            sock.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
        }
        #[cfg(target_os = "linux")]
        if self.user_timeout.is_some() {
            sock.set_tcp_user_timeout(self.user_timeout)?;
        }
        #[cfg(feature = "tproxy")]
        if let Some(mark) = self.mark {
            tproxy::socket::set_mark(&sock, mark)?;
        }
        Ok(socket)
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(addr)?;
        if let Some(source) = self.source {
            socket.bind(source)?;
        }
        socket.connect(addr).await
    }
}

/// Connects to the endpoint's address.
///
/// Has no deadline of its own beyond the kernel's, which is minutes: put a
/// [`TimeoutLayer`](crate::TimeoutLayer) around it.
#[derive(Clone, Debug, Default)]
pub struct TcpConnector {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    options: SocketOptions,
    #[cfg(feature = "tproxy")]
    local: tproxy::Localities,
}

impl TcpConnector {
    /// A connector with options of one's own; `TcpConnector::default()` has the usual ones.
    pub fn new(options: SocketOptions) -> Self {
        let shared = Shared {
            options,
            #[cfg(feature = "tproxy")]
            local: tproxy::Localities::default(),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Service<To<Session>> for TcpConnector {
    type Response = Io;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Io, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: To<Session>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        let addr = to.endpoint.addr;
        #[cfg(feature = "tproxy")]
        if let Some(source) = shared.options.client_source.clone() {
            return Box::pin(async move {
                let Shared { options, local } = &*shared;
                Ok(source.connect(&to, local, || options.socket(addr)).await?.into())
            });
        }
        Box::pin(async move {
            let stream =
                shared.options.connect(addr).await.map_err(|source| Error::Connect { addr, source })?;
            Ok(stream.into())
        })
    }
}
