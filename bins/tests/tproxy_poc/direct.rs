//! What must not go through the proxy, and what must fail.

use std::io::ErrorKind;

use meshlib::test_util::netns::Family;

use crate::net::MODES;
use crate::net::REPLIES;
use crate::net::TOOLS;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::talk::Server;
use crate::talk::any;
use crate::talk::is_refused;
use crate::talk::visit;

#[test]
fn the_pod_reaches_its_own_address_directly() {
    for mode in MODES {
        for tool in TOOLS {
            let Some(net) = pod() else { return };
            let _server = Server::start(&net.pod, everywhere(3000));
            let proxy = Proxy::start(&net.pod, &format!("--mode {mode} --rules {tool} --addr [::]:5000"));

            for family in Family::BOTH {
                let pod = at_pod(family, 3000);
                let seen = visit(&net.pod, any(family.unspecified()), pod).unwrap();

                assert_eq!((seen.peer, seen.server), (seen.client, pod), "{mode} {tool}");
            }
            assert_eq!(proxy.stop(), 0, "{mode} {tool}");
        }
    }
}

#[test]
fn the_pod_s_own_connections_to_others_are_left_alone() {
    for mode in MODES {
        for tool in TOOLS {
            let Some(net) = pod() else { return };
            let _server = Server::start(&net.client, everywhere(4000));
            for reply in REPLIES {
                let args = format!(
                    "--mode {mode} --rules {tool} --reply {reply} --server loopback:3000 --addr [::]:5000"
                );
                let proxy = Proxy::start(&net.pod, &args);
                for family in Family::BOTH {
                    let to = (near(family).ip(), 4000);
                    let seen = visit(&net.pod, any(family.unspecified()), to);
                    let seen = seen.unwrap_or_else(|error| panic!("{args} {family:?}: {error}"));

                    assert_eq!(seen.peer, seen.client, "{args}");
                }
                assert_eq!(proxy.stop(), 0, "{args}");
            }
        }
    }
}

#[test]
fn a_client_is_refused_at_once_where_no_server_listens() {
    for mode in MODES {
        for tool in TOOLS {
            let Some(net) = pod() else { return };
            for reply in REPLIES {
                // Whoever waits for the connection to fail by itself waits longer than the client.
                let args = format!(
                    "--mode {mode} --rules {tool} --reply {reply} --server loopback:3000 --addr [::]:5000 \
                     --connect-timeout 60s"
                );
                let proxy = Proxy::start(&net.pod, &args);
                for family in Family::BOTH {
                    let result = visit(&net.client, near(family), at_pod(family, 8080));
                    assert!(is_refused(&result), "{args} {family:?}: {result:?}");
                }
                proxy.stop();
            }
        }
    }
}

#[test]
fn routed_packets_are_left_alone() {
    for tool in TOOLS {
        let Some(net) = pod() else { return };
        // An address behind the pod, which says that there is no way to it.
        net.client.sh("ip route add 192.0.2.1 via 10.77.0.3");
        net.pod.sh("ip route add unreachable 192.0.2.1");
        net.pod.set_sysctl("net.ipv4.ip_forward", "1");
        let proxy = Proxy::start(&net.pod, &format!("--mode tproxy --rules {tool}"));

        let result = visit(&net.client, near(Family::V4), ([192, 0, 2, 1], 80));

        assert_eq!(result.unwrap_err().kind(), ErrorKind::HostUnreachable, "{tool}");
        assert_eq!(proxy.stop(), 0, "{tool}");
    }
}
