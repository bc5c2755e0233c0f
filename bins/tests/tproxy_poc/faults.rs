//! What is wrong with the rules of the proof of concept, and right with ours.

use meshlib::test_util::netns::Family;
use meshlib::test_util::netns::Pod;

use crate::net::MODES;
use crate::net::TOOLS;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::process::succeed;
use crate::seed;
use crate::talk::Server;
use crate::talk::Talk;
use crate::talk::any;
use crate::talk::is_hanging;
use crate::talk::is_refused;
use crate::talk::visit;
use crate::talk::visit_briefly;

const V4: Family = Family::V4;

/// Whose rules bring connections to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    Seed,
    Ours,
}

/// Starts a proxy with the one or the other rules.
fn start(net: &Pod, rules: Rules, mode: &str, args: &str) -> Proxy {
    if rules == Rules::Ours {
        return Proxy::start(&net.pod, &format!("--mode {mode} {args}"));
    }
    let proxy = Proxy::start(&net.pod, &format!("--mode {mode} --rules none {args}"));
    seed::rules(&net.pod, mode);
    proxy
}

const BOTH: [Rules; 2] = [Rules::Seed, Rules::Ours];

#[test]
fn the_seed_s_rules_are_set_as_they_should() {
    for mode in MODES {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let _proxy = start(&net, Rules::Seed, mode, "--source client");

        let seen = visit(&net.client, near(V4), at_pod(V4, 8080)).unwrap();

        assert!(seen.is_client(), "{mode}: {seen:?}");
    }
}

#[test]
fn nat_where_the_server_s_own_port_is_dialled() {
    // The proxy refuses what cannot work, unless it is told that connection tracking is out of the way.
    for (rules, args) in [(Rules::Seed, "--source client --reply fwmark"), (Rules::Ours, "")] {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let _proxy = start(&net, rules, "nat", args);

        let result = visit_briefly(&net.client, near(V4), at_pod(V4, 3000));

        match rules {
            Rules::Seed => assert!(is_hanging(&result), "{result:?}"),
            Rules::Ours => assert!(result.unwrap().is_client_ip()),
        }
    }
}

#[test]
fn nat_where_the_server_s_own_port_is_dialled_and_the_client_s_is_a_must() {
    let Some(net) = pod() else { return };
    let _server = Server::start(&net.pod, everywhere(3000));
    let _proxy = start(&net, Rules::Ours, "nat", "--source client --connect-timeout 60s");

    let result = visit(&net.client, near(V4), at_pod(V4, 3000));

    assert!(is_refused(&result), "{result:?}");
}

#[test]
fn a_server_at_the_pod_s_address() {
    for rules in BOTH {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, at_pod(V4, 3000));
        let proxy = start(&net, rules, "tproxy", "--server original:original");

        visit(&net.client, near(V4), at_pod(V4, 3000)).unwrap();

        let bypassed = proxy.stop() == 0;
        assert_eq!(bypassed, rules == Rules::Seed, "{rules:?}");
    }
}

#[test]
fn a_client_port_that_is_still_in_time_wait() {
    for rules in BOTH {
        let Some(net) = pod() else { return };
        let _server = Server::start_brief(&net.pod, everywhere(3000));
        let _proxy = start(&net, rules, "tproxy", "");
        let from = (Pod::client_ip(V4), 40_000);

        let [first, second] = [1, 2].map(|_| {
            let talk = Talk::open(&net.client, from, at_pod(V4, 3000)).unwrap();
            let seen = talk.seen;
            talk.end().unwrap();
            seen
        });

        assert!(first.server.ip().is_loopback(), "{rules:?}: {first:?}");
        let bypassed = second.server == at_pod(V4, 3000);
        assert_eq!(bypassed, rules == Rules::Seed, "{rules:?}: {second:?}");
    }
}

#[test]
fn the_pod_s_call_of_its_own_address() {
    for rules in BOTH {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let proxy = start(&net, rules, "tproxy", "");

        let seen = visit(&net.pod, any(V4.unspecified()), at_pod(V4, 3000)).unwrap();

        // The original then fails to use an address that is its own; our proxy does not try.
        assert_eq!(proxy.stop(), usize::from(rules == Rules::Seed), "{rules:?}");
        assert_eq!(seen.is_client(), rules == Rules::Ours, "{rules:?}: {seen:?}");
    }
}

#[test]
fn src_valid_mark() {
    for rules in BOTH {
        let Some(net) = pod() else { return };
        net.pod.set_sysctl("net.ipv4.conf.all.src_valid_mark", "1");
        let _server = Server::start(&net.pod, everywhere(3000));
        let _proxy = start(&net, rules, "tproxy", "");

        let result = visit_briefly(&net.client, near(V4), at_pod(V4, 8080));

        match rules {
            Rules::Seed => assert!(is_hanging(&result), "{result:?}"),
            Rules::Ours => assert!(result.unwrap().is_client()),
        }
    }
}

#[test]
fn a_neighbour_that_asks_for_what_listens_at_loopback_only() {
    for rules in BOTH {
        let Some(net) = pod() else { return };
        let _secret = Server::start(&net.pod, (V4.loopback(), 4000));
        let _proxy = start(&net, rules, "tproxy", "");
        // The neighbour sends what is for 127.0.0.1 to the pod instead of to itself.
        net.client.set_sysctl("net.ipv4.conf.all.route_localnet", "1");
        net.client.sh("ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 10.77.0.3 src 10.77.0.2");

        let result = visit_briefly(&net.client, near(V4), (V4.loopback(), 4000));

        match rules {
            Rules::Seed => assert!(result.unwrap().is_client()),
            Rules::Ours => assert!(is_hanging(&result), "{result:?}"),
        }
    }
}

#[test]
fn a_neighbour_that_asks_where_route_localnet_is_on_already() {
    for mode in MODES {
        for tool in TOOLS {
            let Some(net) = pod() else { return };
            net.pod.set_sysctl("net.ipv4.conf.eth0.route_localnet", "1");
            let before = net.pod.snapshot();
            let _secret = Server::start(&net.pod, (V4.loopback(), 4000));
            net.client.set_sysctl("net.ipv4.conf.all.route_localnet", "1");
            net.client
                .sh("ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 10.77.0.3 src 10.77.0.2");
            visit(&net.client, near(V4), (V4.loopback(), 4000)).unwrap();

            let proxy = Proxy::start(&net.pod, &format!("--mode {mode} --rules {tool}"));
            let result = visit_briefly(&net.client, near(V4), (V4.loopback(), 4000));

            assert!(is_hanging(&result), "{mode} {tool}: {result:?}");
            proxy.stop();
            assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new(), "{mode} {tool}");
        }
    }
}

#[test]
fn a_server_at_loopback_without_route_localnet() {
    for rules in BOTH {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let _proxy = start(&net, rules, "tproxy", "");
        net.pod.set_sysctl("net.ipv4.conf.eth0.route_localnet", "0");

        let result = visit_briefly(&net.client, near(V4), at_pod(V4, 8080));

        match rules {
            Rules::Seed => assert!(is_hanging(&result), "{result:?}"),
            Rules::Ours => assert!(result.unwrap().is_client()),
        }
    }
}

#[test]
fn another_port_to_listen_at() {
    for rules in BOTH {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let _proxy = start(&net, rules, "tproxy", "--addr 0.0.0.0:6000");

        let result = visit_briefly(&net.client, near(V4), at_pod(V4, 8080));

        match rules {
            Rules::Seed => assert!(is_hanging(&result), "{result:?}"),
            Rules::Ours => assert!(result.unwrap().is_client()),
        }
    }
}

#[test]
fn a_second_set_of_the_same_rules() {
    for rules in BOTH {
        let Some(net) = pod() else { return };
        let twice = |set: &dyn Fn()| {
            set();
            let once = net.pod.snapshot();
            set();
            net.pod.snapshot().since(&once)
        };

        let more = match rules {
            // As the original does, whatever the commands say.
            Rules::Seed => twice(&|| seed::rules_whatever_happens(&net.pod, "tproxy")),
            Rules::Ours => twice(&|| {
                succeed(&net.pod, "rules apply --mode tproxy");
            }),
        };

        assert_eq!(more.is_empty(), rules == Rules::Ours, "{rules:?}: {more:?}");
    }
}
