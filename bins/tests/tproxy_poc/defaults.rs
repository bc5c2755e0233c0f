//! What the proof of concept does, without any option but the mode.

use meshlib::test_util::netns::Family;

use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::far;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::talk::Server;
use crate::talk::visit;

#[test]
fn nat_connects_from_the_client_s_address_to_the_pod_s() {
    let Some(net) = pod() else { return };
    let _server = Server::start(&net.pod, (Family::V4.unspecified(), 3000));
    let _proxy = Proxy::start(&net.pod, "--mode nat");

    let seen = visit(&net.client, near(Family::V4), at_pod(Family::V4, 8080)).unwrap();

    assert!(seen.is_client(), "{seen:?}");
    assert_eq!(seen.server, at_pod(Family::V4, 3000));
}

#[test]
fn tproxy_connects_from_the_client_s_address_to_loopback() {
    let Some(net) = pod() else { return };
    let _server = Server::start(&net.pod, (Family::V4.unspecified(), 3000));
    let _proxy = Proxy::start(&net.pod, "--mode tproxy");

    for port in [8080, 3000] {
        let seen = visit(&net.client, near(Family::V4), at_pod(Family::V4, port)).unwrap();

        assert!(seen.is_client(), "{seen:?}");
        assert_eq!(seen.server, (Family::V4.loopback(), 3000).into());
    }
}

#[test]
fn nat_serves_who_dials_the_server_s_own_port() {
    let Some(net) = pod() else { return };
    let _server = Server::start(&net.pod, (Family::V4.unspecified(), 3000));
    let proxy = Proxy::start(&net.pod, "--mode nat");

    let seen = visit(&net.client, near(Family::V4), at_pod(Family::V4, 3000)).unwrap();

    assert!(seen.is_client_ip(), "{seen:?}");
    assert_eq!(proxy.stop(), 1);
}

#[test]
fn one_listener_of_both_families_serves_clients_near_and_far() {
    for mode in ["nat", "tproxy"] {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let _proxy = Proxy::start(&net.pod, &format!("--mode {mode} --addr [::]:5000"));

        for family in Family::BOTH {
            for from in [near(family), far(family)] {
                let seen = visit(&net.client, from, at_pod(family, 8080)).unwrap();

                assert!(seen.is_client(), "{mode} {seen:?}");
            }
        }
    }
}

#[test]
fn listeners_of_one_family_each_serve_both() {
    for mode in ["nat", "tproxy"] {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let args = format!("--mode {mode} --addr 0.0.0.0:5000 --addr [::]:5001");
        let _proxy = Proxy::start(&net.pod, &args);

        for family in Family::BOTH {
            let seen = visit(&net.client, near(family), at_pod(family, 8080)).unwrap();

            assert!(seen.is_client(), "{mode} {seen:?}");
        }
    }
}

#[test]
fn rules_lead_to_the_port_that_is_listened_at() {
    for mode in ["NAT", "TProxy"] {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let _proxy = Proxy::start(&net.pod, &format!("--mode={mode} --addr=0.0.0.0:6000"));

        let seen = visit(&net.client, near(Family::V4), at_pod(Family::V4, 5000)).unwrap();

        assert!(seen.is_client(), "{mode} {seen:?}");
    }
}

#[test]
fn both_ends_of_a_connection_are_logged() {
    let Some(net) = pod() else { return };
    let _server = Server::start(&net.pod, everywhere(3000));
    let proxy = Proxy::start(&net.pod, "--mode tproxy");

    let client = visit(&net.client, near(Family::V4), at_pod(Family::V4, 8080)).unwrap().client;

    let handling = format!("INFO tproxy_poc: Handling connection accept={client} server=10.77.0.3:8080");
    let connected = format!("INFO tproxy_poc: Connected to 127.0.0.1:3000 local_addr={client}");
    let closed = "INFO tproxy_poc: Connection closed";
    proxy.log().wait_for("the client", |line| line.contains(&handling));
    proxy.log().wait_for("the server", |line| line.contains(&connected));
    let line = proxy.log().wait_for("the end", |line| line.contains(closed));
    for field in [format!("accept={client}"), format!("local_addr={client}"), "bytes_in=10".into()] {
        assert!(line.contains(&field), "{line}");
    }
}
