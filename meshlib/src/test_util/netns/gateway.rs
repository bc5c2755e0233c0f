//! A client, a gateway and a server.

use std::net::IpAddr;

use super::family::Family;
use super::namespace::Namespace;

use crate::test_util::Unavailable;

/// A client and a server that reach each other through a gateway.
///
/// ```text
/// [client] eth0 ---- eth0 [gateway] eth1 ---- eth0 [server]
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Gateway {
    /// Where clients run.
    pub client: Namespace,
    /// What routes between the two others.
    pub gateway: Namespace,
    /// Where servers run.
    pub server: Namespace,
}

impl Gateway {
    /// Makes all three.
    ///
    /// # Errors
    ///
    /// [`Unavailable`], as for [`Namespace::new`].
    pub fn new() -> Result<Self, Unavailable> {
        let (client, gateway, server) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        client.link(
            ("eth0", &["10.77.0.2/24", "fd77::2/64"]),
            &gateway,
            ("eth0", &["10.77.0.1/24", "fd77::1/64"]),
        )?;
        server.link(
            ("eth0", &["10.78.0.2/24", "fd78::2/64"]),
            &gateway,
            ("eth1", &["10.78.0.1/24", "fd78::1/64"]),
        )?;
        client.try_sh("ip route add default via 10.77.0.1; ip -6 route add default via fd77::1")?;
        server.try_sh("ip route add default via 10.78.0.1; ip -6 route add default via fd78::1")?;
        gateway.set_sysctl("net.ipv4.ip_forward", "1");
        gateway.set_sysctl("net.ipv6.conf.all.forwarding", "1");
        Ok(Self { client, gateway, server })
    }

    /// The client's address: 10.77.0.2 or fd77::2.
    pub fn client_ip(family: Family) -> IpAddr {
        family.choose([10, 77, 0, 2], [0xfd77, 0, 0, 0, 0, 0, 0, 2])
    }

    /// The gateway's address on the client's side: 10.77.0.1 or fd77::1.
    pub fn gateway_ip(family: Family) -> IpAddr {
        family.choose([10, 77, 0, 1], [0xfd77, 0, 0, 0, 0, 0, 0, 1])
    }

    /// The gateway's address on the server's side: 10.78.0.1 or fd78::1.
    pub fn gateway_server_side_ip(family: Family) -> IpAddr {
        family.choose([10, 78, 0, 1], [0xfd78, 0, 0, 0, 0, 0, 0, 1])
    }

    /// The server's address: 10.78.0.2 or fd78::2.
    pub fn server_ip(family: Family) -> IpAddr {
        family.choose([10, 78, 0, 2], [0xfd78, 0, 0, 0, 0, 0, 0, 2])
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::net::TcpStream;

    use super::*;
    use crate::test_util::or_skip;

    #[test]
    fn a_client_reaches_the_server_through_the_gateway_in_both_families() {
        let Some(net) = or_skip(Gateway::new()) else { return };

        for family in Family::BOTH {
            let addr = (Gateway::server_ip(family), 3000);
            let listener = net.server.run(move || TcpListener::bind(addr)).unwrap();
            let _stream = net.client.run(move || TcpStream::connect(addr)).unwrap();
            assert_eq!(listener.accept().unwrap().1.ip(), Gateway::client_ip(family));
        }
    }
}
