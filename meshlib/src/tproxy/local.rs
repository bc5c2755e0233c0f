//! Which addresses are this machine's.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;
use tokio::time::Instant;

use super::socket;

/// How long an address that was this machine's is taken for its own without asking again.
const KNOWN_FOR: Duration = Duration::from_secs(1);

/// Whether an address belongs to this machine (on Linux: to this network namespace), as the kernel sees it: an ordinary
/// socket can be bound to it. Costs three system calls, none for a loopback address.
pub fn is_local(addr: SocketAddr) -> bool {
    addr.ip().is_loopback() || can_bind(addr).unwrap_or(false)
}

fn can_bind(mut addr: SocketAddr) -> io::Result<bool> {
    addr.set_port(0);
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket::set_bind_address_no_port(&socket)?;
    match socket.bind(&addr.into()) {
        Ok(()) => Ok(true),
        Err(error) => Ok(error.kind() == io::ErrorKind::AddrInUse),
    }
}

/// [`is_local`] for who asks once per connection: remembers the latest address of each family for a second.
#[derive(Debug, Default)]
pub(crate) struct Localities {
    v4: ArcSwapOption<(IpAddr, Instant)>,
    v6: ArcSwapOption<(IpAddr, Instant)>,
}

impl Localities {
    pub(crate) fn contain(&self, addr: SocketAddr) -> bool {
        if addr.ip().is_loopback() {
            return true;
        }
        let latest = if addr.is_ipv4() { &self.v4 } else { &self.v6 };
        let now = Instant::now();
        if latest.load().as_ref().is_some_and(|known| known.0 == addr.ip() && now < known.1 + KNOWN_FOR) {
            return true;
        }
        let local = is_local(addr);
        if local {
            latest.store(Some(Arc::new((addr.ip(), now))));
        }
        local
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn addresses_of_this_machine_are_told_from_others() {
        let localities = Localities::default();

        // 192.0.2.0/24 and 2001:db8::/32 are for documentation: nobody has them.
        for (addr, local) in [
            ("127.0.0.1:80", true),
            ("127.9.9.9:80", true),
            ("[::1]:80", true),
            ("192.0.2.1:80", false),
            ("[2001:db8::1]:80", false),
        ] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(is_local(addr), local, "{addr}");
            assert_eq!(localities.contain(addr), local, "{addr}");
            assert_eq!(localities.contain(addr), local, "{addr}, again");
        }
    }
}
