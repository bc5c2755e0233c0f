//! Plain TCP connections.

use std::io;
use std::net::SocketAddr;
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
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { nodelay: true, keepalive: Some(Duration::from_secs(60)), user_timeout: None, source: None }
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

    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
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
    options: std::sync::Arc<SocketOptions>,
}

impl TcpConnector {
    /// A connector with options of one's own; `TcpConnector::default()` has the usual ones.
    pub fn new(options: SocketOptions) -> Self {
        Self { options: options.into() }
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
        let options = self.options.clone();
        let addr = to.endpoint.addr;
        Box::pin(async move {
            let stream = options.connect(addr).await.map_err(|source| Error::Connect { addr, source })?;
            Ok(stream.into())
        })
    }
}
