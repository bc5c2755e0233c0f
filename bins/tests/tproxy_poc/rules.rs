//! `tproxy-poc rules`.

use meshlib::test_util::netns::Family;

use crate::net::MODES;
use crate::net::NOBODY;
use crate::net::REPLIES;
use crate::net::TOOLS;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::for_everybody;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::process::run;
use crate::process::run_with;
use crate::process::succeed;
use crate::talk::Server;
use crate::talk::visit;

/// Every mode, tool and way to keep answers inside, for a pod and both families; a gateway's too.
pub(crate) fn all() -> Vec<String> {
    let mut all = Vec::new();
    for tool in TOOLS {
        for mode in MODES {
            for reply in REPLIES {
                all.push(format!(
                    "--mode {mode} --rules {tool} --reply {reply} --server loopback:3000 --addr [::]:5000"
                ));
            }
        }
        all.push(format!(
            "--mode tproxy --topology gateway --rules {tool} --addr [::]:5000 --interface eth0"
        ));
        all.push(format!(
            "--mode tproxy --rules {tool} --ports 80,8000-8010 --skip-ports 22 --skip-subnets 10.1.0.0/16"
        ));
    }
    all
}

#[test]
fn what_is_printed_sets_what_is_applied() {
    for args in all() {
        let Some(net) = pod() else { return };
        let before = net.pod.snapshot();
        let printed = succeed(&net.pod, &format!("rules print {args}"));
        assert_eq!(
            net.pod.snapshot().since(&before),
            Vec::<String>::new(),
            "{args}: print has set something"
        );

        net.pod.sh(&printed);
        let by_shell = net.pod.snapshot();
        succeed(&net.pod, "rules remove");
        assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new(), "{args}");
        succeed(&net.pod, &format!("rules apply {args}"));

        assert_eq!(net.pod.snapshot().since(&by_shell), Vec::<String>::new(), "{args}");
        assert_ne!(by_shell, before, "{args}");
        net.pod.sh(&succeed(&net.pod, &format!("rules print --remove {args}")));
        assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new(), "{args}: print --remove");
    }
}

#[test]
fn applying_twice_is_applying_once() {
    for args in all() {
        let Some(net) = pod() else { return };
        succeed(&net.pod, &format!("rules apply {args}"));
        let once = net.pod.snapshot();

        succeed(&net.pod, &format!("rules apply {args}"));

        assert_eq!(net.pod.snapshot().since(&once), Vec::<String>::new(), "{args}");
    }
}

#[test]
fn removing_nothing_succeeds() {
    let Some(net) = pod() else { return };
    let before = net.pod.snapshot();

    succeed(&net.pod, "rules remove");

    assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new());
}

#[test]
fn rules_of_others_stay() {
    let Some(net) = pod() else { return };
    net.pod.sh("iptables -w 5 -t mangle -A PREROUTING -p udp -j ACCEPT
        iptables -w 5 -t nat -N OTHER
        nft add table inet other
        ip rule add pref 7088 fwmark 0x4000/0x4000 lookup 200
        ip route add 192.0.2.0/24 via 10.77.0.2 table 200");
    let before = net.pod.snapshot();

    for args in all() {
        succeed(&net.pod, &format!("rules apply {args}"));
        succeed(&net.pod, "rules remove");

        assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new(), "{args}");
    }
}

#[test]
fn check_knows_whether_exactly_these_are_set() {
    for args in all() {
        let Some(net) = pod() else { return };
        let check = format!("rules check {args}");
        assert_eq!(run(&net.pod, &check).code, Some(1), "{args}: nothing is set");

        succeed(&net.pod, &format!("rules apply {args}"));

        let ended = run(&net.pod, &check);
        assert_eq!(ended.code, Some(0), "{args}: {ended:?}");
    }
}

#[test]
fn check_shows_what_is_missing() {
    for (args, damage, missing) in [
        (
            "--mode tproxy --rules iptables",
            "iptables -w 5 -t mangle -D PREROUTING -p tcp -j MESHLIB_PRE",
            "PREROUTING -p tcp -j MESHLIB_PRE",
        ),
        (
            "--mode tproxy --rules iptables",
            "iptables -w 5 -t mangle -D MESHLIB_PRE -i lo -j RETURN",
            "-i lo -j RETURN",
        ),
        ("--mode nat --rules nft", "nft delete chain inet meshlib_tproxy out", "chain out"),
        ("--mode nat --rules iptables", "ip -4 rule del pref 7089 fwmark 1/1", "fwmark 0x1"),
        ("--mode nat --rules iptables", "ip -4 route flush table 100", "local default"),
        (
            "--mode nat --rules iptables --reply fwmark",
            "echo 0 >/proc/sys/net/ipv4/fwmark_reflect",
            "fwmark_reflect",
        ),
    ] {
        let Some(net) = pod() else { return };
        succeed(&net.pod, &format!("rules apply {args}"));
        net.pod.sh(damage);

        let ended = run(&net.pod, &format!("rules check {args}"));

        assert_eq!(ended.code, Some(1), "{args}: {damage}: {ended:?}");
        assert!(ended.stdout.contains(missing), "{args}: {damage}: {ended:?}");
    }
}

#[test]
fn the_command_line_of_the_proxy_may_stand_behind_a_subcommand() {
    let Some(net) = pod() else { return };
    let rules = "--mode tproxy --ports 80";
    let all = "--source client-ip --on-spoof-error local --keep-rules --connect-timeout 1s --drain 3s --backlog 9 \
               --max-connections 5 --send-proxy-protocol v2 --metrics 127.0.0.1:9990 --workers 1 --log-format json";

    assert_eq!(
        succeed(&net.pod, &format!("rules print {rules} {all}")),
        succeed(&net.pod, &format!("rules print {rules}"))
    );
    succeed(&net.pod, &format!("rules apply {all} {rules}"));
    succeed(&net.pod, &format!("rules check {rules}"));
    succeed(&net.pod, &format!("rules {all} check {rules}"));
    succeed(&net.pod, &format!("rules remove {rules} {all}"));

    let misspelt = run(&net.pod, &format!("rules check {rules} --worker 1"));
    assert_eq!(misspelt.code, Some(2), "{misspelt:?}");
    let wrong = run(&net.pod, &format!("rules check {rules} --workers 0"));
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    let help = succeed(&net.pod, "rules check --help");
    assert!(help.contains("--mode") && !help.contains("--metrics") && !help.contains("--keep"), "{help}");
}

#[test]
fn printing_needs_no_privilege() {
    let Some(net) = pod() else { return };
    let (_dir, program) = for_everybody();

    for args in all() {
        let ended = run_with(&net.pod, &NOBODY, &program, &format!("rules print {args}"));

        assert_eq!(ended.code, Some(0), "{args}: {ended:?}");
        assert!(!ended.stdout.is_empty(), "{args}");
    }
}

#[test]
fn a_proxy_serves_with_rules_that_were_applied_before() {
    for mode in MODES {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        succeed(&net.pod, &format!("rules apply --mode {mode}"));
        let applied = net.pod.snapshot();

        let proxy = Proxy::start(&net.pod, &format!("--mode {mode} --rules none"));
        let seen = visit(&net.client, near(Family::V4), at_pod(Family::V4, 8080)).unwrap();
        proxy.stop();

        assert!(seen.is_client(), "{mode}: {seen:?}");
        assert_eq!(net.pod.snapshot().since(&applied), Vec::<String>::new(), "{mode}: not its own rules");
    }
}
