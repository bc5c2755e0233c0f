//! Every mode with every way to keep answers inside, every server and every tool.

use meshlib::test_util::netns::Family;
use meshlib::test_util::netns::Pod;
use meshlib::test_util::or_skip;
use meshlib::test_util::require_programs;

use crate::net::MODES;
use crate::net::TOOLS;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::far;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::process::run;
use crate::talk::Server;
use crate::talk::visit;

/// What the server sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    Client,
    ClientIp,
}

/// A mode, ways to keep answers inside, a server, the port that is dialled, and what the server sees.
type Row = (&'static str, &'static [&'static str], &'static str, u16, Sees);

const ROWS: [Row; 8] = [
    ("nat", &["connmark", "fwmark", "source-rule"], "loopback:3000", 3000, Sees::Client),
    ("nat", &["connmark", "fwmark"], "original:3000", 8080, Sees::Client),
    ("nat", &["connmark"], "original:original", 3000, Sees::ClientIp),
    ("nat", &["fwmark"], "original:original", 3000, Sees::Client),
    ("tproxy", &["connmark", "fwmark", "source-rule"], "loopback:3000", 3000, Sees::Client),
    ("tproxy", &["connmark", "fwmark", "source-rule"], "loopback:original", 3000, Sees::Client),
    ("tproxy", &["connmark", "fwmark"], "original:3000", 8080, Sees::Client),
    ("tproxy", &["connmark", "fwmark"], "original:original", 3000, Sees::ClientIp),
];

#[test]
fn nat_with_iptables() {
    check("nat", "iptables");
}

#[test]
fn nat_with_nft() {
    check("nat", "nft");
}

#[test]
fn tproxy_with_iptables() {
    check("tproxy", "iptables");
}

#[test]
fn tproxy_with_nft() {
    check("tproxy", "nft");
}

#[test]
fn both_with_legacy_iptables() {
    if or_skip(require_programs(&["iptables-legacy", "ip6tables-legacy"])).is_some() {
        MODES.iter().for_each(|mode| check(mode, "iptables-legacy"));
    }
}

fn check(mode: &str, tool: &str) {
    let Some(net) = pod() else { return };
    let before = net.pod.snapshot();
    let _server = Server::start(&net.pod, everywhere(3000));
    for (_, replies, server, dialled, sees) in ROWS.iter().filter(|row| row.0 == mode) {
        for reply in *replies {
            let args =
                format!("--mode {mode} --rules {tool} --reply {reply} --server {server} --addr [::]:5000");
            let proxy = Proxy::start(&net.pod, &args);
            serves(&net, &args, *dialled, *sees);
            assert_eq!(proxy.stop(), 4, "{args}");
            assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new(), "{args}");
        }
    }
}

fn serves(net: &Pod, args: &str, dialled: u16, sees: Sees) {
    for family in Family::BOTH {
        for from in [near(family), far(family)] {
            let seen = visit(&net.client, from, at_pod(family, dialled));
            let seen = seen.unwrap_or_else(|error| panic!("{args} {family:?} from {from}: {error}"));
            let expected = match sees {
                Sees::Client => seen.is_client(),
                Sees::ClientIp => seen.is_client_ip(),
            };
            assert!(expected, "{args} {family:?}: {seen:?}, expected {sees:?}");
        }
    }
}

#[test]
fn a_server_that_listens_at_the_pod_s_address_only_is_reached() {
    for mode in MODES {
        for reply in ["connmark", "fwmark"] {
            for tool in TOOLS {
                let Some(net) = pod() else { return };
                let _server = Server::start(&net.pod, at_pod(Family::V4, 3000));
                let args = format!("--mode {mode} --reply {reply} --rules {tool} --server original:original");
                let proxy = Proxy::start(&net.pod, &args);

                let seen = visit(&net.client, near(Family::V4), at_pod(Family::V4, 3000)).unwrap();

                assert_eq!(seen.peer.ip(), seen.client.ip(), "{args}");
                assert_eq!(proxy.stop(), 1, "{args}: bypassed");
            }
        }
    }
}

#[test]
fn source_rule_needs_a_server_at_loopback() {
    for mode in MODES {
        let Some(net) = pod() else { return };

        let ended = run(&net.pod, &format!("--mode {mode} --reply source-rule --server original:3000"));

        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("source-rule"), "{ended:?}");
    }
}
