//! The rules of the proof of concept, to show what is wrong with them.

use meshlib::test_util::netns::Namespace;

/// Sets the rules as the original does, for IPv4 and port 5000.
pub(crate) fn rules(namespace: &Namespace, mode: &str) {
    namespace.sh(if mode == "nat" { NAT } else { TPROXY });
    namespace.sh(BOTH);
}

/// Sets them as the original does a second time: it does not look at how commands end.
pub(crate) fn rules_whatever_happens(namespace: &Namespace, mode: &str) {
    let script = format!("{}{BOTH}", if mode == "nat" { NAT } else { TPROXY });
    script.lines().for_each(|command| {
        // Adding the route again fails.
        let _ = namespace.try_sh(command);
    });
}

const TPROXY: &str = "
    iptables -w 5 -t mangle -N DIVERT_TEST
    iptables -w 5 -t mangle -A PREROUTING -p tcp -m socket -j DIVERT_TEST
    iptables -w 5 -t mangle -A DIVERT_TEST -j MARK --set-mark 1
    iptables -w 5 -t mangle -A DIVERT_TEST -j ACCEPT
    iptables -w 5 -t mangle -A PREROUTING -p tcp ! -d 127.0.0.1/32 -j TPROXY --tproxy-mark 0x1/0x1 --on-port 5000
    echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet";

const NAT: &str = "
    iptables -w 5 -t nat -N INIT_REDIRECT
    iptables -w 5 -t nat -A INIT_REDIRECT -p tcp -j REDIRECT --to-port 5000
    iptables -w 5 -t nat -A PREROUTING -j INIT_REDIRECT";

const BOTH: &str = "
    ip rule add fwmark 1 lookup 100
    ip route add local 0.0.0.0/0 dev lo table 100
    iptables -w 5 -t mangle -I PREROUTING -m mark --mark 1 -j CONNMARK --save-mark
    iptables -w 5 -t mangle -A OUTPUT -m connmark --mark 1 -j CONNMARK --restore-mark";
