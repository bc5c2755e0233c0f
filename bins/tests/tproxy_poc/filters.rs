//! What is intercepted and what is not.

use std::net::SocketAddr;

use meshlib::test_util::netns::Family;

use crate::net::MODES;
use crate::net::TOOLS;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::far;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::talk::Server;
use crate::talk::visit;

/// Checks for both families, modes and tools who is served by the proxy and who reaches the server itself.
///
/// The server listens at each of these ports; the proxy is the one that comes from loopback to port 3000.
fn check(filter: &str, proxied: &[fn(Family) -> Visit], direct: &[fn(Family) -> Visit]) {
    for mode in MODES {
        for tool in TOOLS {
            let Some(net) = pod() else { return };
            let _servers = [3000, 3001, 3002].map(|port| Server::start(&net.pod, everywhere(port)));
            let args =
                format!("--mode {mode} --rules {tool} --server loopback:3000 --addr [::]:5000 {filter}");
            let _proxy = Proxy::start(&net.pod, &args);
            for family in Family::BOTH {
                for (visits, expected) in [(proxied, true), (direct, false)] {
                    for (from, port) in visits.iter().map(|visit| visit(family)) {
                        let seen = visit(&net.client, from, at_pod(family, port)).unwrap();
                        assert!(seen.is_client(), "{args} {seen:?}");
                        assert_eq!(seen.server.ip().is_loopback(), expected, "{args} {seen:?} {port}");
                    }
                }
            }
        }
    }
}

/// Where a client comes from, and the port that it dials.
type Visit = (SocketAddr, u16);

#[test]
fn only_these_ports() {
    check(
        "--ports 3001,8000-8001",
        &[|family| (near(family), 3001), |family| (near(family), 8000), |family| (near(family), 8001)],
        &[|family| (near(family), 3000), |family| (near(family), 3002)],
    );
}

#[test]
fn more_ports_than_fit_into_one_rule() {
    check(
        "--ports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,3001,4000-5000",
        &[|family| (near(family), 3001), |family| (near(family), 1), |family| (near(family), 4500)],
        &[|family| (near(family), 3000)],
    );
}

#[test]
fn all_but_these_ports() {
    check(
        "--skip-ports 3001,3002-3003",
        &[|family| (near(family), 3000), |family| (near(family), 8000)],
        &[|family| (near(family), 3001), |family| (near(family), 3002)],
    );
}

#[test]
fn all_but_these_clients() {
    check(
        "--skip-subnets 203.0.113.0/24,2001:db8::/32",
        &[|family| (near(family), 3000)],
        &[|family| (far(family), 3000)],
    );
}

#[test]
fn clients_of_this_interface() {
    check("--interface eth0", &[|family| (near(family), 3000)], &[]);
}

#[test]
fn clients_of_another_interface() {
    check("--interface eth1", &[], &[|family| (near(family), 3000)]);
}
