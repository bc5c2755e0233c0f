//! Rules that others change while the proxy runs.

use std::env;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use meshlib::test_util::netns::Family;
use meshlib::test_util::netns::Namespace;
use rustix::process::Signal;

use crate::lines::SOON;
use crate::net::NET_ADMIN;
use crate::net::TOOLS;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::for_everybody;
use crate::net::near;
use crate::net::pod;
use crate::net::text;
use crate::process::PROGRAM;
use crate::process::Proxy;
use crate::process::eventually;
use crate::process::succeed;
use crate::rules::all;
use crate::talk::Server;
use crate::talk::visit;

/// What is said of rules that somebody has changed, and of those that are whole again.
const CHANGED: &str = "WARN tproxy_poc: somebody has changed the rules";
const WHOLE: &str = "INFO tproxy_poc: the rules are again as they were set";

/// Status and body of a page of the proxy's admin server.
fn page(pod: &Namespace, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    let answer = pod.run(move || {
        let mut io = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 9990))).unwrap();
        io.set_read_timeout(Some(SOON)).unwrap();
        io.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).unwrap();
        answer
    });
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.into())
}

/// What `/ready` says, and the number of `tproxy_rules_intact`.
fn condition(pod: &Namespace) -> (u16, String, String) {
    let (status, ready) = page(pod, "/ready");
    let metrics = page(pod, "/metrics").1;
    let intact = metrics.lines().find_map(|line| line.strip_prefix("tproxy_rules_intact "));
    (status, ready, intact.unwrap().to_owned())
}

#[test]
fn rules_that_go_are_told_of_and_set_again_when_that_is_asked_for() {
    let mut cases = Vec::new();
    // Each damage is done at once: of two steps a look between them would tell twice.
    for (args, damage, missing) in [
        (
            "--mode tproxy --rules iptables",
            "iptables -w 5 -t mangle -F",
            "- mangle -A PREROUTING -p tcp -j MESHLIB_PRE",
        ),
        ("--mode nat --rules nft --addr [::]:5000", "nft flush ruleset", "- chain pre {"),
        (
            "--mode nat --rules iptables --reply fwmark",
            "echo 0 >/proc/sys/net/ipv4/fwmark_reflect",
            "- net.ipv4.fwmark_reflect = 1",
        ),
        (
            "--mode nat --rules iptables --reply fwmark",
            "ip -4 rule del pref 7089",
            "- from all fwmark 0x1/0x1 lookup 100",
        ),
        (
            "--mode tproxy --rules nft --reply source-rule --addr [::]:5000 --keep-rules",
            "ip -6 route flush table 100",
            "- local default dev lo",
        ),
        (
            "--mode nat --rules iptables --addr [::]:5000",
            "ip6tables -w 5 -t nat -I MESHLIB_PRE -j RETURN",
            "+ nat -A MESHLIB_PRE -j RETURN",
        ),
    ] {
        let Some(net) = pod() else { return };
        let before = net.pod.snapshot();
        let server = Server::start(&net.pod, everywhere(3000));
        let proxy = Proxy::start(&net.pod, &format!("{args} --metrics 127.0.0.1:9990"));
        let whole = net.pod.snapshot();
        assert_eq!(condition(&net.pod), (200, "ready\n".into(), "1".into()), "{args}");
        net.pod.sh(damage);
        let damaged = net.pod.snapshot();
        cases.push((args, missing, net, before, whole, damaged, server, proxy));
    }
    // All of them wait for their clocks at the same time.
    for (args, missing, net, before, whole, damaged, _server, proxy) in cases {
        let line = proxy.log().wait_for("the rules", |line| line.contains(CHANGED));
        assert!(line.contains(missing) && line.contains("HUP sets them again"), "{args}: {line}");
        let (status, ready, intact) = condition(&net.pod);
        assert_eq!((status, &*intact), (503, "0"), "{args}: {ready}");
        let reason = ready.trim_end();
        let says = |text: &str| reason.contains(text);
        assert!(says("not as they were set") && says("HUP sets") && says(" difference"), "{args}: {ready}");
        let state: serde_json::Value = serde_json::from_str(&page(&net.pod, "/state.json").1).unwrap();
        assert_eq!(state["unready"], serde_json::json!([reason]), "{args}");
        let by_itself = net.pod.snapshot().since(&damaged);
        assert_eq!(by_itself, Vec::<String>::new(), "{args}: it has set them by itself");

        proxy.signal(Signal::HUP);

        proxy.log().wait_for("what it has set", |line| line.contains("INFO tproxy_poc: rules set again"));
        proxy.log().wait_for("the whole rules", |line| line.contains(WHOLE));
        assert_eq!(condition(&net.pod), (200, "ready\n".into(), "1".into()), "{args}");
        assert_eq!(net.pod.snapshot().since(&whole), Vec::<String>::new(), "{args}");
        let seen = visit(&net.client, near(Family::V4), at_pod(Family::V4, 8080)).unwrap();
        assert!(seen.is_client(), "{args}: {seen:?}");
        assert_eq!(proxy.log().count(CHANGED), 1, "{args}");
        proxy.stop();
        let left = if args.contains("--keep-rules") { &whole } else { &before };
        assert_eq!(net.pod.snapshot().since(left), Vec::<String>::new(), "{args}");
    }
}

#[test]
fn rules_that_nobody_has_changed_are_as_they_were_set() {
    let more = TOOLS.map(|tool| {
        format!("--mode nat --rules {tool} --addr 10.77.0.3:5000 --mark 0x40 --table 7 --rule-priority 9 --ports 1-9")
    });
    for args in all().into_iter().chain(more) {
        let Some(net) = pod() else { return };
        let proxy = Proxy::start(&net.pod, &args);

        proxy.signal(Signal::HUP);

        let line = proxy.log().wait_for("what it makes of HUP", |line| {
            line.contains("rules are as they were set") || line.contains(CHANGED)
        });
        assert!(line.contains("there is nothing to load again"), "{args}: {line}");
        proxy.stop();
    }
}

#[test]
fn each_change_is_told_of_once_whoever_makes_it() {
    let Some(net) = pod() else { return };
    let proxy = Proxy::start(&net.pod, "--mode tproxy --rules iptables");

    net.pod.sh("iptables -w 5 -t mangle -D PREROUTING -p tcp -j MESHLIB_PRE");
    eventually("the first change is told of", || proxy.log().count(CHANGED) == 1);
    net.pod.sh("ip -4 route flush table 100");
    eventually("the second change is told of", || proxy.log().count(CHANGED) == 2);
    succeed(&net.pod, "rules apply --mode tproxy --rules iptables");
    proxy.log().wait_for("the whole rules", |line| line.contains(WHOLE));

    assert_eq!(proxy.log().count(CHANGED), 2);
    assert_eq!(proxy.log().count("rules set again"), 0);
    proxy.stop();
}

/// Does what the tool does unless there is a file `broken` beside it, and counts. Broken, it speaks as shells do of a
/// program that is not there.
const SAVE: &str = r#"#!/bin/sh
dir=${0%/*}
echo >>"$dir/looks"
[ ! -e "$dir/broken" ] || { echo "it is broken: No such file or directory" >&2; exit 127; }
PATH=${PATH#*:}
exec iptables-save "$@"
"#;

#[test]
fn a_look_that_fails_is_told_of_once_and_says_nothing_about_rules() {
    let Some(net) = pod() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (script, broken) = (dir.path().join("iptables-save"), dir.path().join("broken"));
    fs::write(&script, SAVE).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", text(dir.path()), env::var("PATH").unwrap());
    let args = format!("{path} {PROGRAM} --mode tproxy --rules iptables --metrics 127.0.0.1:9990");
    let proxy = Proxy::start_with(&net.pod, &[], "env", &args);
    let looks = || fs::read_to_string(dir.path().join("looks")).unwrap().len();
    let blind = "WARN tproxy_poc: cannot look whether the rules are as they were set";

    fs::write(&broken, "").unwrap();
    let line = proxy.log().wait_for("the look", |line| line.contains(blind));
    assert!(line.contains("it is broken"), "{line}");
    let before = looks();
    eventually("it looks once more", || looks() > before);
    assert_eq!(condition(&net.pod), (200, "ready\n".into(), "1".into()));
    assert_eq!((proxy.log().count(blind), proxy.log().count(CHANGED)), (1, 0));

    fs::remove_file(&broken).unwrap();
    net.pod.sh("iptables -w 5 -t mangle -F MESHLIB_PRE");
    proxy.log().wait_for("the rules", |line| line.contains(CHANGED));
    proxy.stop();
}

/// Has other words for a protocol where there is a file `newer` beside it, as another version may.
const NEWER: &str = r#"#!/bin/sh
dir=${0%/*}
PATH=${PATH#*:}
[ -e "$dir/newer" ] || exec iptables-save "$@"
iptables-save "$@" | sed 's/-p tcp/-p 6/'
"#;

#[test]
fn rules_that_another_version_shows_in_other_words_are_whole_once_they_are_set_again() {
    let Some(net) = pod() else { return };
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("iptables-save");
    fs::write(&script, NEWER).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", text(dir.path()), env::var("PATH").unwrap());
    let args = format!("{path} {PROGRAM} --mode tproxy --rules iptables --metrics 127.0.0.1:9990");
    let proxy = Proxy::start_with(&net.pod, &[], "env", &args);
    let whole = (200, "ready\n".into(), "1".into());

    fs::write(dir.path().join("newer"), "").unwrap();
    for times in [1, 2] {
        proxy.signal(Signal::HUP);
        eventually("the change is told of", || proxy.log().count(CHANGED) == times);
        eventually("the rules are whole", || proxy.log().count(WHOLE) == times);
        assert_eq!(condition(&net.pod), whole);
        // It still sees what somebody does.
        net.pod.sh("iptables -w 5 -t mangle -F MESHLIB_PRE");
    }
    proxy.stop();
}

/// Takes its time where there is a file `slow` beside it, and says so.
const RESTORE: &str = r#"#!/bin/sh
dir=${0%/*}
[ ! -e "$dir/slow" ] || { touch "$dir/begun"; sleep 1; }
PATH=${PATH#*:}
exec iptables-restore "$@"
"#;

#[test]
fn rules_that_are_being_set_again_when_the_end_begins_are_removed() {
    let Some(net) = pod() else { return };
    let before = net.pod.snapshot();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("iptables-restore");
    fs::write(&script, RESTORE).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", text(dir.path()), env::var("PATH").unwrap());
    let args = format!("{path} {PROGRAM} --mode tproxy --rules iptables");
    let proxy = Proxy::start_with(&net.pod, &[], "env", &args);
    net.pod.sh("iptables -w 5 -t mangle -F");

    fs::write(dir.path().join("slow"), "").unwrap();
    proxy.signal(Signal::HUP);
    eventually("they are being set", || dir.path().join("begun").exists());
    proxy.stop();

    assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new());
}

#[test]
fn rules_of_somebody_else_are_not_looked_at() {
    let Some(net) = pod() else { return };
    let before = net.pod.snapshot();
    let proxy = Proxy::start(&net.pod, "--mode tproxy --rules none --metrics 127.0.0.1:9990");

    proxy.signal(Signal::HUP);

    proxy.log().wait_for("what it makes of HUP", |line| {
        line.ends_with("there is nothing to load again signal=\"HUP\"")
    });
    assert_eq!(condition(&net.pod), (200, "ready\n".into(), "1".into()));
    assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new());
    proxy.stop();
}

#[test]
fn who_may_set_rules_without_being_root_may_look_at_them() {
    for tool in TOOLS {
        let Some(net) = pod() else { return };
        let (_dir, program) = for_everybody();
        let proxy =
            Proxy::start_with(&net.pod, &NET_ADMIN, &program, &format!("--mode tproxy --rules {tool}"));

        proxy.signal(Signal::HUP);

        let whole = "nothing to load again: the rules are as they were set";
        proxy.log().wait_for("what it makes of HUP", |line| line.contains(whole));
        net.pod.sh("ip -4 rule del pref 7089; ip -4 rule del pref 7089");
        proxy.signal(Signal::HUP);
        proxy.log().wait_for("what it has set", |line| line.contains("rules set again"));
        proxy.log().wait_for("the whole rules", |line| line.contains(WHOLE));
        proxy.stop();
    }
}
