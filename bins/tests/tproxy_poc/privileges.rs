//! What the program may do, and what it says when it may not.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use meshlib::test_util::netns::Family;
use rustix::process::Signal;

use crate::net::MODES;
use crate::net::NET_ADMIN;
use crate::net::NET_RAW;
use crate::net::NOBODY;
use crate::net::REPLIES;
use crate::net::TOOLS;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::for_everybody;
use crate::net::near;
use crate::net::pod;
use crate::net::text;
use crate::process::PROGRAM;
use crate::process::Proxy;
use crate::process::run_with;
use crate::process::succeed;
use crate::talk::Server;
use crate::talk::visit;

#[test]
fn without_any_privilege_it_says_what_is_missing_and_does_nothing() {
    let Some(net) = pod() else { return };
    let before = net.pod.snapshot();
    let (_dir, program) = for_everybody();

    for mode in MODES {
        for (args, expected) in
            [("", ["CAP_NET_ADMIN", "--rules none"]), ("--rules none", ["CAP_NET_RAW", "--source none"])]
        {
            let ended = run_with(&net.pod, &NOBODY, &program, &format!("--mode {mode} {args}"));

            assert_eq!(ended.code, Some(77), "{mode} {args}: {ended:?}");
            for text in expected {
                assert!(ended.stderr.contains(text), "{mode} {args}: {ended:?}");
            }
        }
        for command in ["apply", "check", "remove"] {
            let ended = run_with(&net.pod, &NOBODY, &program, &format!("rules {command} --mode {mode}"));

            assert_eq!(ended.code, Some(77), "{mode} {command}: {ended:?}");
            assert!(ended.stderr.contains("CAP_NET_ADMIN"), "{mode} {command}: {ended:?}");
        }
    }
    assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new());
}

#[test]
fn with_net_raw_alone_it_serves_in_every_mode() {
    for mode in MODES {
        for tool in TOOLS {
            let Some(net) = pod() else { return };
            let (_dir, program) = for_everybody();
            let _server = Server::start(&net.pod, everywhere(3000));
            for reply in REPLIES {
                let args = format!("--mode {mode} --reply {reply} --server loopback:3000 --addr [::]:5000");
                succeed(&net.pod, &format!("rules apply --rules {tool} {args}"));
                let proxy = Proxy::start_with(&net.pod, &NET_RAW, &program, &format!("{args} --rules none"));

                for family in Family::BOTH {
                    let seen = visit(&net.client, near(family), at_pod(family, 8080));
                    let seen = seen.unwrap_or_else(|error| panic!("{tool} {args} {family:?}: {error}"));
                    assert!(seen.is_client(), "{tool} {args}: {seen:?}");
                }
                proxy.stop();
                succeed(&net.pod, "rules remove");
            }
        }
    }
}

#[test]
fn it_keeps_only_what_it_needs() {
    let Some(net) = pod() else { return };
    succeed(&net.pod, "rules apply --mode tproxy");

    let own_rules = Proxy::start(&net.pod, "--mode tproxy");
    own_rules.log().wait_for("its privileges", |line| {
        line.contains("CAP_NET_ADMIN") && line.contains("CAP_NET_RAW") && !line.contains("SYS_ADMIN")
    });
    drop(own_rules);
    let rules_of_others = Proxy::start(&net.pod, "--mode tproxy --rules none");
    rules_of_others
        .log()
        .wait_for("its privileges", |line| line.contains("CAP_NET_RAW") && !line.contains("CAP_NET_ADMIN"));
}

/// The sets of capabilities of each thread, by their names in proc(5).
fn threads(proxy: &Proxy) -> Vec<HashMap<String, u64>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
    let sets = |status: String| {
        let lines = status.lines().filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"));
        lines.map(|(name, set)| (name.to_owned(), u64::from_str_radix(set, 16).unwrap())).collect()
    };
    // One that ends meanwhile holds nothing.
    tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok()).map(sets).collect()
}

#[test]
fn what_sets_rules_has_an_effect_only_while_it_does() {
    // capabilities(7)
    const NET_ADMIN_BIT: u64 = 1 << 12;
    for user in [&[][..], &NET_ADMIN] {
        for args in ["--rules iptables", "--rules nft --keep-rules"] {
            let Some(net) = pod() else { return };
            let (_dir, program) = for_everybody();
            let proxy = Proxy::start_with(&net.pod, user, &program, &format!("--mode tproxy {args}"));

            // A thread that looks and sets is there from now on.
            net.pod.sh("ip -4 route flush table 100");
            proxy.signal(Signal::HUP);
            proxy.log().wait_for("the whole rules", |line| line.contains("again as they were set"));

            let holds =
                |set: &str| threads(&proxy).iter().filter(|sets| sets[set] & NET_ADMIN_BIT != 0).count();
            for set in ["Eff", "Inh", "Amb"] {
                assert_eq!(holds(set), 0, "{user:?} {args}: {set}: {:x?}", threads(&proxy));
            }
            assert!(holds("Prm") >= 2, "{user:?} {args}: {:x?}", threads(&proxy));
            proxy.stop();
        }
    }
}

#[test]
fn a_read_only_proc_sys_matters_to_fwmark_only() {
    let Some(net) = pod() else { return };
    let _server = Server::start(&net.pod, everywhere(3000));
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("read-only");
    let text_of_script =
        format!("#!/bin/sh\nset -e\nmount --bind -o ro /proc/sys /proc/sys\nexec {PROGRAM} \"$@\"\n");
    fs::write(&script, text_of_script).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    // In a mount namespace of its own.
    let script = format!("-m {}", text(&script));

    for mode in MODES {
        let before = net.pod.snapshot();
        let args = format!("{script} --mode {mode}");
        let proxy = Proxy::start_with(&net.pod, &[], "unshare", &args);
        let seen = visit(&net.client, near(Family::V4), at_pod(Family::V4, 8080)).unwrap();
        assert!(seen.is_client(), "{mode}: {seen:?}");
        proxy.stop();

        let ended = run_with(&net.pod, &[], "unshare", &format!("{args} --reply fwmark"));

        assert_eq!(ended.code, Some(77), "{mode}: {ended:?}");
        for text in ["tcp_fwmark_accept", "= 1", "connmark", "source-rule"] {
            assert!(ended.stderr.contains(text), "{mode}: {ended:?}");
        }
        assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new(), "{mode}");
    }
}
