//! A client and a pod.

use std::net::IpAddr;

use super::family::Family;
use super::namespace::Namespace;

use crate::test_util::Unavailable;

/// A client and a pod, wired together.
///
/// ```text
/// [client] eth0 ---- eth0 [pod]
/// ```
///
/// The pod sends what it has no route for to the client, as a pod does to its node.
#[derive(Debug)]
#[non_exhaustive]
pub struct Pod {
    /// Where clients run.
    pub client: Namespace,
    /// Where servers and their proxy run.
    pub pod: Namespace,
}

impl Pod {
    /// Makes both.
    ///
    /// # Errors
    ///
    /// [`Unavailable`], as for [`Namespace::new`].
    pub fn new() -> Result<Self, Unavailable> {
        let (client, pod) = (Namespace::new()?, Namespace::new()?);
        client.link(
            ("eth0", &["10.77.0.2/24", "fd77::2/64"]),
            &pod,
            ("eth0", &["10.77.0.3/24", "fd77::3/64"]),
        )?;
        client.try_sh("ip addr add 203.0.113.7/32 dev lo; ip addr add 2001:db8::7/128 dev lo nodad")?;
        pod.try_sh("ip route add default via 10.77.0.2; ip -6 route add default via fd77::2")?;
        Ok(Self { client, pod })
    }

    /// The client's address: 10.77.0.2 or fd77::2.
    pub fn client_ip(family: Family) -> IpAddr {
        family.choose([10, 77, 0, 2], [0xfd77, 0, 0, 0, 0, 0, 0, 2])
    }

    /// An address of the client that is not on the pod's link: 203.0.113.7 or 2001:db8::7.
    pub fn far_client_ip(family: Family) -> IpAddr {
        family.choose([203, 0, 113, 7], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7])
    }

    /// The pod's address: 10.77.0.3 or fd77::3.
    pub fn pod_ip(family: Family) -> IpAddr {
        family.choose([10, 77, 0, 3], [0xfd77, 0, 0, 0, 0, 0, 0, 3])
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::net::TcpStream;

    use super::*;
    use crate::test_util::or_skip;

    #[test]
    fn client_and_pod_reach_each_other_in_both_families() {
        let Some(net) = or_skip(Pod::new()) else { return };

        for family in Family::BOTH {
            for (from, to, ip) in [
                (&net.client, &net.pod, Pod::pod_ip(family)),
                (&net.pod, &net.client, Pod::far_client_ip(family)),
            ] {
                let listener = to.run(move || TcpListener::bind((ip, 3000))).unwrap();
                let mut stream = from.run(move || TcpStream::connect((ip, 3000))).unwrap();
                drop(listener.accept().unwrap());
                assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            }
        }
    }
}
