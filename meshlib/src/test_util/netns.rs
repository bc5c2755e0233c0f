//! Network namespaces for tests: hosts of their own, wired together, that vanish with the test.
//!
//! A [`Namespace`] is an empty network: its own interfaces, addresses, routes, firewall rules and `net` sysctls. It has
//! no name and belongs to one thread of the test's process. When the process ends, however it ends, the kernel removes
//! the namespace and all that is in it, and kills the programs that were started there.
//!
//! | Item | Is |
//! |---|---|
//! | [`Namespace`] | one network, with ways to run code, programs and scripts in it |
//! | [`Pod`], [`Gateway`] | networks wired together: a client and a pod; a client, a gateway and a server |
//! | [`Family`] | IPv4 or IPv6, for tests that do the same in both |
//! | [`Snapshot`] | all rules, routes and sysctls of a namespace, to see what somebody left behind |
//!
//! Root, or `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`, is needed, and `ip` and `setpriv` on `PATH`.
//!
//! # Examples
//!
//! ```
//! use std::io::Write;
//! use std::net::{TcpListener, TcpStream};
//!
//! use meshlib::test_util::netns::{Family, Pod};
//! use meshlib::test_util::or_skip;
//!
//! let Some(net) = or_skip(Pod::new()) else { return };
//! let addr = (Pod::pod_ip(Family::V4), 3000);
//! let listener = net.pod.run(move || TcpListener::bind(addr)).unwrap();
//!
//! let mut client = net.client.run(move || TcpStream::connect(addr)).unwrap();
//! let (_, peer) = listener.accept().unwrap();
//!
//! assert_eq!(peer.ip(), Pod::client_ip(Family::V4));
//! client.write_all(b"sockets work from outside, too").unwrap();
//! assert!(net.pod.sh("ip route").contains("default via 10.77.0.2"));
//! ```

mod command;
mod family;
mod gateway;
mod link;
mod namespace;
mod pod;
mod snapshot;

pub use command::NamespaceCommand;
pub use family::Family;
pub use gateway::Gateway;
pub use namespace::Namespace;
pub use pod::Pod;
pub use snapshot::Snapshot;
