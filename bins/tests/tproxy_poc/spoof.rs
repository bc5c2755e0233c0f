//! Clients whose address cannot be used.

use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV6;

use meshlib::test_util::netns::Family;
use meshlib::test_util::netns::Namespace;
use meshlib::test_util::netns::Pod;

use crate::net::MODES;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::talk::Server;
use crate::talk::is_refused;
use crate::talk::visit;

/// The link-local address of `eth0`, on the client's side of the link.
fn link_local(net: &Pod, of: &Namespace, port: u16) -> SocketAddr {
    let addrs = of.sh("ip -6 -o addr show dev eth0 scope link");
    let ip: Ipv6Addr =
        addrs.split_whitespace().find_map(|word| word.strip_suffix("/64")).unwrap().parse().unwrap();
    // Of the form `INDEX: eth0@...`.
    let links = net.client.sh("ip -o link show dev eth0");
    let index = links.split_once(':').unwrap().0.parse().unwrap();
    SocketAddrV6::new(ip, port, 0, index).into()
}

#[test]
fn they_are_refused() {
    let Some(net) = pod() else { return };
    let _server = Server::start(&net.pod, everywhere(3000));
    let proxy = Proxy::start(&net.pod, "--mode tproxy --addr [::]:5000");

    let (from, to) = (link_local(&net, &net.client, 0), link_local(&net, &net.pod, 8080));
    let result = visit(&net.client, from, to);

    assert!(is_refused(&result), "{result:?}");
    proxy.log().wait_for("the client", |line| line.contains("failed to connect to server"));
}

#[test]
fn they_are_served_from_the_proxy_s_address_where_that_is_wanted() {
    let Some(net) = pod() else { return };
    let _server = Server::start(&net.pod, everywhere(3000));
    let proxy = Proxy::start(&net.pod, "--mode tproxy --addr [::]:5000 --on-spoof-error local");

    let (from, to) = (link_local(&net, &net.client, 0), link_local(&net, &net.pod, 8080));
    let seen = visit(&net.client, from, to).unwrap();

    assert_eq!(seen.peer.ip(), Family::V6.loopback());
    proxy.log().wait_for("the client", |line| line.contains("client address not preserved"));
}

#[test]
fn servers_see_the_proxy_where_nothing_else_is_asked_for() {
    for mode in MODES {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let args = format!("--mode {mode} --source none --server loopback:3000 --addr [::]:5000");
        let _proxy = Proxy::start(&net.pod, &args);

        for family in Family::BOTH {
            let seen = visit(&net.client, near(family), at_pod(family, 8080)).unwrap();

            assert_eq!(seen.peer.ip(), family.loopback(), "{mode}");
        }
    }
}

#[test]
fn the_address_alone_can_be_had() {
    for mode in MODES {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let args = format!("--mode {mode} --source client-ip --server loopback:3000 --addr [::]:5000");
        let _proxy = Proxy::start(&net.pod, &args);

        for family in Family::BOTH {
            // A port that the pod does not give out by itself.
            let from = (Pod::client_ip(family), 1024);
            let seen = visit(&net.client, from, at_pod(family, 8080)).unwrap();

            assert!(seen.is_client_ip(), "{mode}: {seen:?}");
        }
    }
}

#[test]
fn a_server_outside_the_pod_is_not_reached_from_the_client_s_address() {
    let Some(net) = pod() else { return };
    let _server = Server::start(&net.client, everywhere(4000));
    let _proxy = Proxy::start(&net.pod, "--mode tproxy --server 10.77.0.2:4000");

    let result = visit(&net.client, near(Family::V4), at_pod(Family::V4, 8080));

    assert!(is_refused(&result), "{result:?}");
}
