//! Connecting from the client's address.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use socket2::SockRef;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;

use super::Localities;
use super::socket;
use crate::error::Error;
use crate::session::Session;
use crate::session::To;

/// How connections are made from the client's own address; an option of
/// [`SocketOptions`](crate::connect::SocketOptions).
///
/// Fails closed: where the client's address cannot be used the connection fails with [`Error::Source`], since a server that
/// trusts the proxy's address must not take a stranger for the proxy. Who prefers to go on from another address connects
/// again without this option. A client that has this machine's own address is connected for as usual.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ClientSource {
    /// Which port to connect from. Default: the client's where that cannot collide, otherwise any.
    pub port: ClientPort,
    /// Which endpoints may be connected to. Default: those on this machine.
    pub reach: Reach,
    /// Whether connections to endpoints bypass the kernel's connection tracking
    /// ([`Reply::Fwmark`](super::rules::Reply::Fwmark)), so that a redirected one may look the same on both sides of the
    /// proxy. Default false.
    pub untracked: bool,
}

/// Which port a connection from the client's address comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientPort {
    /// The client's, unless that would collide with the client's own connection or turns out to be taken: then one from
    /// 10240 to 32767, where clients take none for themselves.
    #[default]
    SameIfFree,
    /// The client's, or the connection fails.
    Same,
    /// Any of the kernel's choice, or one from 10240 to 32767 where the kernel's might collide with another connection of
    /// the client.
    Any,
}

/// Which endpoints may be connected to from a client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reach {
    /// Those on this machine. Packets with a foreign source that leave it are dropped by most networks, and what they
    /// reach answers to the real client.
    #[default]
    Local,
    /// All. For a gateway: the way from the endpoint back to the client must lead through it.
    Anywhere,
}

impl ClientSource {
    /// Sets which port to connect from.
    #[must_use]
    pub fn with_port(mut self, port: ClientPort) -> Self {
        self.port = port;
        self
    }

    /// Sets which endpoints may be connected to.
    #[must_use]
    pub fn with_reach(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    /// Says whether connections to endpoints bypass the connection tracking.
    #[must_use]
    pub fn with_untracked(mut self, untracked: bool) -> Self {
        self.untracked = untracked;
        self
    }

    /// Connects, on sockets that `socket` makes.
    pub(crate) async fn connect(
        &self,
        to: &To<Session>,
        local: &Localities,
        socket: impl Fn() -> io::Result<TcpSocket>,
    ) -> Result<TcpStream, Error> {
        let addr = to.endpoint.addr;
        let refuse = |reason| Error::Source { addr, source: Box::new(reason) };
        let from = match self.choose(to, local).map_err(refuse)? {
            Choice::Own => return to_endpoint(socket().map_err(refused(addr))?, addr).await,
            Choice::From(from) => from,
        };
        let mut result = match from {
            Bind::Exactly(from) => attempt(&socket, from, addr).await,
            Bind::Apart(ip) => apart(&socket, ip, addr).await,
        };
        if let (Bind::Exactly(from), Err(Failure::Source(error))) = (from, &result)
            && self.port == ClientPort::SameIfFree
            && is_taken(error)
        {
            result = apart(&socket, from.ip(), addr).await;
        }
        result.map_err(|failure| match failure {
            Failure::Source(error) => refuse(SourceError::Os(error)),
            Failure::Endpoint(error) => refused(addr)(error),
        })
    }

    /// Where to connect from.
    fn choose(&self, to: &To<Session>, local: &Localities) -> Result<Choice, SourceError> {
        let (addr, session) = (to.endpoint.addr, &to.request);
        let client = session.peer.ok_or(SourceError::NoClient)?;
        if self.reach == Reach::Local && !local.contain(addr) {
            return Err(SourceError::Beyond(addr.ip()));
        }
        if !is_usable(client.ip()) {
            return Err(SourceError::Unusable(client.ip()));
        }
        let dialled = session.original_dst.or(session.local);
        if [session.local, dialled].iter().flatten().any(|own| own.ip() == client.ip()) {
            return Ok(Choice::Own);
        }
        if client.is_ipv4() != addr.is_ipv4() {
            return Err(SourceError::Family { client: client.ip(), endpoint: addr.ip() });
        }
        // Both connections of the same two addresses and ports: two sockets of one machine cannot have them, and the
        // connection tracking takes them for one.
        let redirected = session.local != dialled;
        let collides = dialled == Some(addr) && !(redirected && self.untracked) && local.contain(addr);
        Ok(Choice::From(match self.port {
            ClientPort::Same if collides => return Err(SourceError::Taken(client)),
            ClientPort::Any | ClientPort::SameIfFree if collides => Bind::Apart(client.ip()),
            ClientPort::Any => Bind::Exactly(SocketAddr::new(client.ip(), 0)),
            ClientPort::Same | ClientPort::SameIfFree => Bind::Exactly(client),
        }))
    }
}

#[derive(Debug, PartialEq)]
enum Choice {
    /// The kernel's choice: the client is on this machine.
    Own,
    /// The client's address.
    From(Bind),
}

/// What a socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bind {
    /// This address and port; 0 is the kernel's choice.
    Exactly(SocketAddr),
    /// This address, and a port that the client does not use for its own connections.
    Apart(IpAddr),
}

/// Why an attempt failed.
enum Failure {
    /// The source address is no good.
    Source(io::Error),
    /// The endpoint did not take the connection.
    Endpoint(io::Error),
}

async fn attempt(
    socket: impl Fn() -> io::Result<TcpSocket>,
    from: SocketAddr,
    addr: SocketAddr,
) -> Result<TcpStream, Failure> {
    let socket = socket().map_err(Failure::Endpoint)?;
    bind(&socket, from).map_err(Failure::Source)?;
    socket.connect(addr).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse | io::ErrorKind::InvalidInput => {
            Failure::Source(error)
        }
        _ => Failure::Endpoint(error),
    })
}

/// Connects from a port that the client hardly uses for connections of its own.
///
/// The kernel would take one of `ip_local_port_range`, and knows nothing of the client's connections: on the same addresses
/// and ports, the two break each other.
async fn apart(
    socket: impl Fn() -> io::Result<TcpSocket>,
    ip: IpAddr,
    addr: SocketAddr,
) -> Result<TcpStream, Failure> {
    for _ in 0..APART_TRIES {
        let from = SocketAddr::new(ip, fastrand::u16(APART));
        match attempt(&socket, from, addr).await {
            Err(Failure::Source(error)) if is_taken(&error) => {}
            result => return result,
        }
    }
    attempt(&socket, SocketAddr::new(ip, 0), addr).await
}

/// Below what systems take for their own connections: Linux from 32768, others from 49152 (RFC 6335 section 6).
const APART: RangeInclusive<u16> = 10240..=32767;

/// So many of these ports are taken by one client only if it has most of them.
const APART_TRIES: usize = 8;

fn bind(socket: &TcpSocket, from: SocketAddr) -> io::Result<()> {
    socket::set_transparent(&SockRef::from(socket), from)?;
    if from.port() == 0 {
        socket::set_bind_address_no_port(socket)?;
    } else {
        // The accepted socket has the port already.
        socket.set_reuseaddr(true)?;
    }
    socket.bind(from)
}

async fn to_endpoint(socket: TcpSocket, addr: SocketAddr) -> Result<TcpStream, Error> {
    socket.connect(addr).await.map_err(refused(addr))
}

fn refused(addr: SocketAddr) -> impl Fn(io::Error) -> Error {
    move |source| Error::Connect { addr, source }
}

/// Whether another port may help.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// Whether packets from an address can be made here and answered.
fn is_usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || ip.is_broadcast())
        }
        // A link-local address means nothing without its link.
        IpAddr::V6(ip) => {
            !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || ip.is_unicast_link_local())
        }
    }
}

/// Why the client's address cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The session has no client.
    #[error("there is no client")]
    NoClient,
    /// No connection can come from such an address: it is unspecified, multicast, loopback or link-local.
    #[error("no connection can come from {0}")]
    Unusable(IpAddr),
    /// Client and endpoint speak different protocols.
    #[error("client {client} and endpoint {endpoint} are of different families")]
    Family {
        /// The client.
        client: IpAddr,
        /// The endpoint.
        endpoint: IpAddr,
    },
    /// The client's port is wanted, and its own connection to the same address and port has it.
    #[error("the client's own connection has the port of {0}")]
    Taken(SocketAddr),
    /// The endpoint is on another machine, and [`Reach::Local`] is wanted.
    #[error("{0} is not an address of this machine")]
    Beyond(IpAddr),
    /// The operating system says no: it lacks a privilege, or the address and port are in use.
    #[error(transparent)]
    Os(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;

    /// What is chosen for a client at `peer` whose connection has the address `local` and was meant for `dialled`.
    fn choice(
        source: &ClientSource,
        peer: &str,
        local: &str,
        dialled: &str,
        endpoint: &str,
    ) -> Result<Choice, SourceError> {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let session = Session::accepted(addr(peer), addr(local)).with_original_dst(addr(dialled));
        source.choose(&To::new(Endpoint::new(addr(endpoint)), session), &Localities::default())
    }

    fn from(text: &str) -> Choice {
        Choice::From(Bind::Exactly(text.parse().unwrap()))
    }

    fn apart() -> Choice {
        Choice::From(Bind::Apart("192.0.2.9".parse().unwrap()))
    }

    const CLIENT: &str = "192.0.2.9:40000";
    // This machine's, other than the usual loopback address.
    const POD: &str = "127.0.0.3:80";

    #[cfg(target_os = "linux")]
    #[test]
    fn the_port_is_kept_where_it_cannot_collide() {
        let auto = ClientSource::default();
        let untracked = ClientSource::default().with_untracked(true);
        let gateway = ClientSource::default().with_reach(Reach::Anywhere);
        let proxy = "127.0.0.3:5000";

        // Given to the listener as they are: the endpoint is elsewhere on the machine, or where the client wanted to go.
        assert_eq!(choice(&auto, CLIENT, POD, POD, "127.0.0.1:80").unwrap(), from(CLIENT));
        assert_eq!(choice(&auto, CLIENT, POD, POD, "127.0.0.3:3000").unwrap(), from(CLIENT));
        assert_eq!(choice(&auto, CLIENT, POD, POD, POD).unwrap(), apart());
        assert_eq!(choice(&untracked, CLIENT, POD, POD, POD).unwrap(), apart());
        // Redirected.
        assert_eq!(choice(&auto, CLIENT, proxy, POD, POD).unwrap(), apart());
        assert_eq!(choice(&untracked, CLIENT, proxy, POD, POD).unwrap(), from(CLIENT));
        // Routed through this machine.
        let remote = "198.51.100.1:80";
        assert_eq!(choice(&gateway, CLIENT, remote, remote, remote).unwrap(), from(CLIENT));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_port_is_what_was_asked_for() {
        let same = ClientSource::default().with_port(ClientPort::Same);
        let any = ClientSource::default().with_port(ClientPort::Any);

        assert_eq!(choice(&same, CLIENT, POD, POD, "127.0.0.1:80").unwrap(), from(CLIENT));
        assert!(matches!(choice(&same, CLIENT, POD, POD, POD), Err(SourceError::Taken(_))));
        assert_eq!(choice(&any, CLIENT, POD, POD, "127.0.0.1:80").unwrap(), from("192.0.2.9:0"));
        assert_eq!(choice(&any, CLIENT, POD, POD, POD).unwrap(), apart());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_client_on_this_machine_is_not_imitated() {
        assert_eq!(
            choice(&ClientSource::default(), "192.0.2.9:1", "192.0.2.9:80", "192.0.2.9:80", POD).unwrap(),
            Choice::Own
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_cannot_be_is_refused() {
        let auto = ClientSource::default();
        let refused = |peer, endpoint| choice(&auto, peer, POD, POD, endpoint).unwrap_err();

        for peer in ["0.0.0.0:1", "224.0.0.1:1", "127.0.0.1:1", "255.255.255.255:1"] {
            assert!(matches!(refused(peer, POD), SourceError::Unusable(_)), "{peer}");
        }
        for peer in ["[::]:1", "[ff02::1]:1", "[::1]:1", "[fe80::1]:1"] {
            assert!(matches!(refused(peer, "[::1]:80"), SourceError::Unusable(_)), "{peer}");
        }
        assert!(matches!(refused(CLIENT, "[::1]:80"), SourceError::Family { .. }));
        assert!(matches!(refused(CLIENT, "198.51.100.1:80"), SourceError::Beyond(_)));
        let nobody = To::new(Endpoint::new(POD.parse().unwrap()), Session::default());
        assert!(matches!(auto.choose(&nobody, &Localities::default()), Err(SourceError::NoClient)));
    }
}
