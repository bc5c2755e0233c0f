//! A proxy that routes for others.

use meshlib::test_util::netns::Family;
use meshlib::test_util::netns::Gateway;

use crate::net::TOOLS;
use crate::net::everywhere;
use crate::net::gateway;
use crate::process::Proxy;
use crate::process::run;
use crate::talk::Seen;
use crate::talk::Server;
use crate::talk::Talk;
use crate::talk::any;
use crate::talk::is_refused;
use crate::talk::visit;

/// Runs a gateway with these options, and checks what the server sees of a client in both families.
fn check(options: &str, expected: fn(Family, &Seen) -> bool) {
    for tool in TOOLS {
        let Some(net) = gateway() else { return };
        let before = net.gateway.snapshot();
        let _server = Server::start(&net.server, everywhere(3000));
        let args = format!("--mode tproxy --topology gateway --rules {tool} --addr [::]:5000 {options}");
        let proxy = Proxy::start(&net.gateway, &args);

        for family in Family::BOTH {
            let to = (Gateway::server_ip(family), 3000);
            let seen = visit(&net.client, any(Gateway::client_ip(family)), to);
            let seen = seen.unwrap_or_else(|error| panic!("{args} {family:?}: {error}"));
            assert!(expected(family, &seen), "{args} {family:?}: {seen:?}");
        }
        assert_eq!(proxy.stop(), 2, "{args}");
        assert_eq!(net.gateway.snapshot().since(&before), Vec::<String>::new(), "{args}");
    }
}

#[test]
fn servers_see_the_client() {
    check("", |_, seen| seen.is_client());
}

#[test]
fn servers_see_the_client_of_one_interface() {
    check("--interface eth0", |_, seen| seen.is_client());
}

#[test]
fn servers_see_the_client_s_exact_address() {
    check("--source client", |_, seen| seen.is_client());
}

#[test]
fn servers_see_the_client_s_address_with_another_port() {
    check("--source client-ip", |_, seen| seen.peer.ip() == seen.client.ip());
}

#[test]
fn servers_see_the_gateway() {
    check("--source none", |family, seen| seen.peer.ip() == Gateway::gateway_server_side_ip(family));
}

#[test]
fn what_the_gateway_itself_serves_is_left_alone() {
    for tool in TOOLS {
        let Some(net) = gateway() else { return };
        let _server = Server::start(&net.gateway, everywhere(22));
        let args = format!("--mode tproxy --topology gateway --rules {tool} --addr [::]:5000");
        let proxy = Proxy::start(&net.gateway, &args);

        for family in Family::BOTH {
            let to = (Gateway::gateway_ip(family), 22);
            visit(&net.client, any(Gateway::client_ip(family)), to).unwrap();
        }

        assert_eq!(proxy.stop(), 0, "{tool}");
    }
}

#[test]
fn a_client_is_refused_at_once_where_no_server_listens() {
    for tool in TOOLS {
        let Some(net) = gateway() else { return };
        let args =
            format!("--mode tproxy --topology gateway --rules {tool} --addr [::]:5000 --connect-timeout 60s");
        let _proxy = Proxy::start(&net.gateway, &args);

        for family in Family::BOTH {
            let to = (Gateway::server_ip(family), 3000);
            let result = visit(&net.client, any(Gateway::client_ip(family)), to);

            assert!(is_refused(&result), "{tool} {family:?}: {result:?}");
        }
    }
}

#[test]
fn bytes_go_through_unchanged() {
    let Some(net) = gateway() else { return };
    let _server = Server::start(&net.server, everywhere(3000));
    let _proxy = Proxy::start(&net.gateway, "--mode tproxy --topology gateway");
    let sent: Vec<u8> = (0..4 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();

    let to = (Gateway::server_ip(Family::V4), 3000);
    let talk = Talk::open(&net.client, any(Gateway::client_ip(Family::V4)), to).unwrap();
    let received = talk.echo_to_end(sent.clone()).unwrap();

    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
}

#[test]
fn nat_cannot_be_a_gateway() {
    let Some(net) = gateway() else { return };

    let ended = run(&net.gateway, "--mode nat --topology gateway");

    assert_eq!(ended.code, Some(2), "{ended:?}");
}
