//! The socket options of interception. Elsewhere than on Linux each is [`Unsupported`](std::io::ErrorKind::Unsupported).

use std::io;
use std::net::SocketAddr;

use socket2::Socket;

/// Lets the socket bind to addresses that are not this machine's. `addr` is of the socket's family.
#[cfg(target_os = "linux")]
pub(crate) fn set_transparent(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    // Both set the same flag of the socket; the one of its family is what other programs look for.
    if addr.is_ipv4() { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) }
}

#[cfg(target_os = "linux")]
pub(crate) fn is_transparent(socket: &Socket, addr: SocketAddr) -> io::Result<bool> {
    if addr.is_ipv4() { socket.ip_transparent_v4() } else { socket.ip_transparent_v6() }
}

/// Marks the packets of the socket.
#[cfg(target_os = "linux")]
pub(crate) fn set_mark(socket: &Socket, mark: u32) -> io::Result<()> {
    socket.set_mark(mark)
}

/// Has the port chosen when the socket connects instead of when it is bound: it needs to differ from those of connections
/// to the same place only.
#[cfg(target_os = "linux")]
pub(crate) fn set_bind_address_no_port(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    Ok(nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?)
}

/// Where a redirected connection was meant to go. `v4`: its canonical family, which decides also on a socket for both.
#[cfg(target_os = "linux")]
pub(crate) fn original_dst(socket: &Socket, v4: bool) -> io::Result<SocketAddr> {
    let addr = if v4 { socket.original_dst_v4()? } else { socket.original_dst_v6()? };
    addr.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::*;

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::*;

    pub(crate) fn set_transparent(_: &Socket, _: SocketAddr) -> io::Result<()> {
        unsupported()
    }

    pub(crate) fn is_transparent(_: &Socket, _: SocketAddr) -> io::Result<bool> {
        unsupported()
    }

    pub(crate) fn set_mark(_: &Socket, _: u32) -> io::Result<()> {
        unsupported()
    }

    pub(crate) fn set_bind_address_no_port<S>(_: &S) -> io::Result<()> {
        unsupported()
    }

    pub(crate) fn original_dst(_: &Socket, _: bool) -> io::Result<SocketAddr> {
        unsupported()
    }

    fn unsupported<T>() -> io::Result<T> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "interception works on Linux only"))
    }
}
