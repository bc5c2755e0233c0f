//! Taking connections that were meant for others, and connecting from the client's own address (Linux).
//!
//! Packet filter rules bring connections to a listener that nobody dialled; [`rules`] writes them. The listener finds out
//! where each client wanted to go ([`Intercept`], an option of [`ListenOptions`](crate::ListenOptions)) and puts it into
//! [`Session::original_dst`](crate::Session::original_dst), where [`DirectLayer`](crate::connect::DirectLayer) and
//! [`BalanceLayer::by`](crate::BalanceLayer::by) look for it. A [`TcpConnector`](crate::TcpConnector) then connects from
//! the client's address ([`ClientSource`], an option of [`SocketOptions`](crate::connect::SocketOptions)), so that the
//! server sees whom it really talks to. Everything between the two (balancing, TLS, limits) is the same as elsewhere.
//!
//! # Privileges
//!
//! [`Intercept::Tproxy`], [`ClientSource`] and marks need `CAP_NET_RAW` (or `CAP_NET_ADMIN`), and nothing else for as long
//! as the program runs; [`permitted`] says at the start whether they will be had. Rules need `CAP_NET_ADMIN` while they are
//! set.
//!
//! # Connections belong to one client
//!
//! A connection from a client's address must never serve another client: put nothing that keeps connections between
//! clients ([`SpareLayer`](crate::connect::SpareLayer), a pooling HTTP client) above a connector with a [`ClientSource`].
//!
//! # Examples
//!
//! A sidecar that takes what arrives for its pod and passes it on to where it was meant to go, from the client's address:
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use meshlib::connect::{DirectLayer, SocketOptions};
//! use meshlib::tproxy::{self, ClientSource, Intercept};
//! use meshlib::{Drain, ListenOptions, Listener, Server, TcpConnector, TcpProxy};
//! use tower::Layer;
//!
//! tproxy::permitted()?;
//! let sockets = SocketOptions::default().with_client_source(Some(ClientSource::default())).with_mark(Some(1));
//! let connect = DirectLayer::new().layer(TcpConnector::new(sockets));
//! let options = ListenOptions::default().with_intercept(Some(Intercept::Tproxy));
//! let listener = Listener::bind("[::]:5000", &options).await?;
//! Server::from_listener(listener).serve(TcpProxy::new(connect), Drain::on_signals()).await
//! # }
//! ```

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use socket2::Domain;
use socket2::SockRef;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpStream;

mod local;
pub mod rules;
pub(crate) mod socket;
mod source;

pub use local::is_local;
pub use source::ClientPort;
pub use source::ClientSource;
pub use source::Reach;
pub use source::SourceError;

pub(crate) use local::Localities;

/// How connections that were meant for others come to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Intercept {
    /// Their destination was rewritten to the listener's address (`REDIRECT`, `DNAT`); the kernel's connection tracking remembers
    /// what it was.
    Redirect,
    /// Their packets were given to the listener as they are (`TPROXY`): the local address of each connection is where it
    /// was meant to go. The listening socket must be transparent, which needs `CAP_NET_RAW`.
    Tproxy,
}

impl Intercept {
    /// Where a client wanted to go. `None`: to the listener itself, or nobody knows.
    ///
    /// `local` is the connection's own address and `listener` the socket's.
    pub(crate) fn original_dst(
        self,
        stream: &TcpStream,
        local: SocketAddr,
        listener: SocketAddr,
    ) -> Option<SocketAddr> {
        let wanted = match self {
            Self::Tproxy => local,
            // Without an entry in the connection tracking nothing was rewritten, whatever the error says.
            Self::Redirect => socket::original_dst(&SockRef::from(stream), local.is_ipv4()).ok()?,
        };
        (!is_itself(wanted, listener)).then_some(wanted)
    }
}

/// Whether connecting to an address reaches a listener of this machine.
fn is_itself(wanted: SocketAddr, listener: SocketAddr) -> bool {
    let ip = listener.ip().to_canonical();
    wanted.port() == listener.port() && (ip == wanted.ip() || ip.is_unspecified() && is_local(wanted))
}

/// Tells at the start whether connections can be intercepted and made from the client's address.
///
/// # Errors
///
/// [`PermissionDenied`](io::ErrorKind::PermissionDenied): this thread has neither `CAP_NET_RAW` nor `CAP_NET_ADMIN`.
/// [`Unsupported`](io::ErrorKind::Unsupported): this is not Linux.
pub fn permitted() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket::set_transparent(&socket, SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))
}
