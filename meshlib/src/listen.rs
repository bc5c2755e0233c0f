//! Listening sockets.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use socket2::Domain;
use socket2::Protocol;
use socket2::SockRef;
use socket2::Socket;
use socket2::TcpKeepalive;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::ToSocketAddrs;
use tokio::net::lookup_host;

use crate::session::Session;
#[cfg(feature = "tproxy")]
use crate::tproxy;
#[cfg(feature = "tproxy")]
use crate::tproxy::Intercept;

/// Options of a listening socket and of the sockets it accepts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenOptions {
    /// Connections that may wait in the kernel. Default 4096; the kernel cuts it to `net.core.somaxconn`.
    pub backlog: u32,
    /// Whether several sockets may listen at the address and share its connections. Default false.
    pub reuse_port: bool,
    /// Whether small writes leave at once. Default true.
    pub nodelay: bool,
    /// Silence after which the kernel asks whether an accepted peer still lives. Default 60 s; `None`: never.
    pub keepalive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged before the connection breaks. Default: the kernel's choice.
    pub user_timeout: Option<Duration>,
    /// Whether an IPv6 socket refuses IPv4. Default false: `[::]:80` takes both.
    pub only_v6: bool,
    /// How connections that were meant for others come here. Default: they do not.
    #[cfg(feature = "tproxy")]
    pub intercept: Option<Intercept>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            reuse_port: false,
            nodelay: true,
            keepalive: Some(Duration::from_secs(60)),
            user_timeout: None,
            only_v6: false,
            #[cfg(feature = "tproxy")]
            intercept: None,
        }
    }
}

impl ListenOptions {
    /// Sets how many connections may wait in the kernel.
    #[must_use]
    pub fn with_backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Says whether several sockets may share the address.
    #[must_use]
    pub fn with_reuse_port(mut self, reuse: bool) -> Self {
        self.reuse_port = reuse;
        self
    }

    /// Sets after which silence the kernel asks whether a peer lives.
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

    /// Says whether an IPv6 socket refuses IPv4.
    #[must_use]
    pub fn with_only_v6(mut self, only: bool) -> Self {
        self.only_v6 = only;
        self
    }

    /// Says how connections that were meant for others come here.
    #[cfg(feature = "tproxy")]
    #[must_use]
    pub fn with_intercept(mut self, how: Option<Intercept>) -> Self {
        self.intercept = how;
        self
    }
}

/// Sets what accepted sockets inherit (Linux), which saves three system calls per connection.
fn hand_down(socket: SockRef<'_>, options: &ListenOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(options.nodelay)?;
    if let Some(idle) = options.keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    #[cfg(target_os = "linux")]
    if options.user_timeout.is_some() {
        socket.set_tcp_user_timeout(options.user_timeout)?;
    }
    Ok(())
}

/// A listening TCP socket that knows the facts about what it accepts.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    local: SocketAddr,
    #[cfg(feature = "tproxy")]
    intercept: Option<Intercept>,
}

impl Listener {
    /// Listens at the first of the addresses that can be had.
    ///
    /// # Errors
    ///
    /// What the operating system says about the last address tried, as an error of the same kind whose message names the
    /// address; or why the name has none.
    pub async fn bind(addr: impl ToSocketAddrs, options: &ListenOptions) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        for addr in lookup_host(addr).await? {
            match Self::open(addr, options).and_then(Self::from_std) {
                #[cfg(feature = "tproxy")]
                Ok(listener) => return listener.intercepting(options.intercept),
                #[cfg(not(feature = "tproxy"))]
                Ok(listener) => return Ok(listener),
                Err(error) => {
                    last = io::Error::new(error.kind(), format!("cannot listen at {addr}: {error}"));
                }
            }
        }
        Err(last)
    }

    /// Opens a listening socket without a runtime, to be handed to [`from_std`](Self::from_std) in one.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn open(addr: SocketAddr, options: &ListenOptions) -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(options.only_v6)?;
        }
        #[cfg(feature = "tproxy")]
        if options.intercept == Some(Intercept::Tproxy) {
            tproxy::socket::set_transparent(&socket, addr)?;
        }
        // An address in TIME_WAIT after a restart is not taken.
        socket.set_reuse_address(true)?;
        #[cfg(unix)]
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&addr.into())?;
        hand_down(SockRef::from(&socket), options)?;
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        Ok(socket.into())
    }

    /// Sets what accepted connections inherit on a socket that listens already, for example one that a supervisor passed:
    /// `TCP_NODELAY`, keepalive and the user timeout, as [`open`](Self::open) does.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn adopt(
        socket: std::net::TcpListener,
        options: &ListenOptions,
    ) -> io::Result<std::net::TcpListener> {
        hand_down(SockRef::from(&socket), options)?;
        Ok(socket)
    }

    /// Takes over a socket that listens already, for example one that a supervisor passed.
    ///
    /// Must be called in a runtime.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let inner = TcpListener::from_std(listener)?;
        let local = inner.local_addr()?;
        Ok(Self {
            inner,
            local,
            #[cfg(feature = "tproxy")]
            intercept: None,
        })
    }

    /// Takes what it accepts for connections that were meant for others, and gives each session its
    /// [original destination](Session::original_dst). [`bind`](Self::bind) does this by itself.
    ///
    /// # Errors
    ///
    /// If the socket lacks what this way needs: the kernel drops what [`Intercept::Tproxy`] brings to a socket that is not
    /// transparent, without a word.
    #[cfg(feature = "tproxy")]
    pub fn intercepting(mut self, how: Option<Intercept>) -> io::Result<Self> {
        if how == Some(Intercept::Tproxy)
            && !tproxy::socket::is_transparent(&SockRef::from(&self.inner), self.local)?
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the listening socket is not transparent",
            ));
        }
        self.intercept = how;
        Ok(self)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// What the operating system says; see [`Server`](crate::Server) for what to do about it.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a connection that was not returned stays in the kernel's queue.
    pub async fn accept(&self) -> io::Result<(TcpStream, Session)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Like [`accept`](Self::accept); wakes the task of the latest call.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, Session)>> {
        let (stream, peer) = ready!(self.inner.poll_accept(cx))?;
        #[cfg(feature = "tproxy")]
        if let Some(how) = self.intercept {
            let local = canonical(stream.local_addr()?);
            let mut session = Session::accepted(canonical(peer), local);
            session.original_dst = how.original_dst(&stream, local, self.local);
            return Poll::Ready(Ok((stream, session)));
        }
        let local = if self.local.ip().is_unspecified() { stream.local_addr()? } else { self.local };
        Poll::Ready(Ok((stream, Session::accepted(canonical(peer), canonical(local)))))
    }
}

/// An IPv4 address that arrived on an IPv6 socket, as what it is.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        // Anything else keeps its scope.
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_adopted_socket_accepts_is_as_if_it_had_been_opened_here() {
        let idle = Duration::from_secs(77);
        let options = ListenOptions::default().with_keepalive(Some(idle));
        for is_adopted in [false, true] {
            let mut socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            if is_adopted {
                socket = Listener::adopt(socket, &options).unwrap();
            }
            let _client = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();

            let (accepted, _) = socket.accept().unwrap();

            let accepted = SockRef::from(&accepted);
            assert_eq!(accepted.tcp_nodelay().unwrap(), is_adopted);
            assert_eq!(accepted.keepalive().unwrap(), is_adopted);
            assert_eq!(accepted.tcp_keepalive_time().unwrap() == idle, is_adopted);
        }
    }
}
