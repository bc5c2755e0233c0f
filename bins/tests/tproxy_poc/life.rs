//! Rules from the start of the proxy to its end, however it ends.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use meshlib::test_util::netns::Family;
use rustix::process::Signal;

use crate::net::MODES;
use crate::net::REPLIES;
use crate::net::TOOLS;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::near;
use crate::net::pod;
use crate::process::PROGRAM;
use crate::process::Proxy;
use crate::process::run;
use crate::process::succeed;
use crate::talk::Server;
use crate::talk::is_hanging;
use crate::talk::is_refused;
use crate::talk::visit;
use crate::talk::visit_briefly;

#[test]
fn a_proxy_that_ends_leaves_nothing_behind() {
    for mode in MODES {
        for tool in TOOLS {
            for reply in REPLIES {
                let Some(net) = pod() else { return };
                let before = net.pod.snapshot();
                let _server = Server::start(&net.pod, everywhere(3000));
                let args = format!(
                    "--mode {mode} --rules {tool} --reply {reply} --server loopback:3000 --addr [::]:5000"
                );

                let proxy = Proxy::start(&net.pod, &args);
                visit(&net.client, near(Family::V4), at_pod(Family::V4, 8080)).unwrap();
                assert_ne!(net.pod.snapshot(), before, "{args}: no rules");
                proxy.stop();

                assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new(), "{args}");
            }
        }
    }
}

#[test]
fn the_next_proxy_takes_over_what_a_killed_one_left() {
    for mode in MODES {
        for tool in TOOLS {
            for reply in REPLIES {
                let Some(net) = pod() else { return };
                let before = net.pod.snapshot();
                let _server = Server::start(&net.pod, everywhere(3000));
                let args = format!(
                    "--mode {mode} --rules {tool} --reply {reply} --server loopback:3000 --addr [::]:5000"
                );

                let first = Proxy::start(&net.pod, &args);
                let with_first = net.pod.snapshot();
                first.kill();
                let second = Proxy::start(&net.pod, &args);

                assert_eq!(net.pod.snapshot().since(&with_first), Vec::<String>::new(), "{args}");
                visit(&net.client, near(Family::V4), at_pod(Family::V4, 8080)).unwrap();
                second.stop();
                assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new(), "{args}");
            }
        }
    }
}

#[test]
fn another_mode_and_tool_replace_what_a_killed_one_left() {
    let Some(net) = pod() else { return };
    let before = net.pod.snapshot();
    let _server = Server::start(&net.pod, everywhere(3000));

    for args in [
        "--mode nat --rules iptables --reply fwmark",
        "--mode tproxy --rules nft",
        "--mode nat --rules nft --addr [::]:5000",
        "--mode tproxy --rules iptables --reply source-rule",
    ] {
        let proxy = Proxy::start(&net.pod, args);
        let seen = visit(&net.client, near(Family::V4), at_pod(Family::V4, 8080)).unwrap();
        assert!(seen.is_client(), "{args}: {seen:?}");
        proxy.log().wait_for("the client", |line| line.contains("Handling connection"));
        proxy.kill();
    }

    succeed(&net.pod, "rules remove");
    assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new());
}

#[test]
fn without_its_proxy_nobody_is_served() {
    for mode in MODES {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));

        Proxy::start(&net.pod, &format!("--mode {mode}")).kill();

        // A redirected connection finds a closed port; one that is handed over finds nobody to take it.
        let result = visit_briefly(&net.client, near(Family::V4), at_pod(Family::V4, 3000));
        let expected = if mode == "nat" { is_refused(&result) } else { is_hanging(&result) };
        assert!(expected, "{mode}: {result:?}");
    }
}

#[test]
fn rules_can_be_kept() {
    let Some(net) = pod() else { return };
    let before = net.pod.snapshot();

    let proxy = Proxy::start(&net.pod, "--mode tproxy --keep-rules");
    let during = net.pod.snapshot();
    proxy.stop();

    assert_eq!(net.pod.snapshot().since(&during), Vec::<String>::new());
    assert_ne!(during, before);
}

#[test]
fn a_proxy_that_cannot_listen_sets_no_rules() {
    let Some(net) = pod() else { return };
    let before = net.pod.snapshot();
    let _taken = Server::start(&net.pod, everywhere(5000));

    let ended = run(&net.pod, "--mode tproxy");

    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("0.0.0.0:5000"), "{ended:?}");
    assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new());
}

#[test]
fn a_terminal_that_closes_does_not_end_the_proxy() {
    let Some(net) = pod() else { return };
    let _server = Server::start(&net.pod, everywhere(3000));
    let proxy = Proxy::start(&net.pod, "--mode tproxy");

    proxy.signal(Signal::HUP);

    proxy.log().wait_for("what it makes of HUP", |line| line.contains("nothing to load again"));
    visit(&net.client, near(Family::V4), at_pod(Family::V4, 8080)).unwrap();
    proxy.stop();
}

/// Sets no rules, and otherwise does what the tool does: removing and listing.
const BROKEN: &str = r#"#!/bin/sh
case "$*" in
    *noflush* | *'-f -'*) echo broken >&2; exit 1 ;;
esac
PATH=${PATH#*:}
exec TOOL "$@"
"#;

#[test]
fn rules_that_fail_halfway_leave_nothing_behind() {
    for (tool, failing) in [("iptables", "ip6tables-restore"), ("nft", "nft")] {
        let Some(net) = pod() else { return };
        let before = net.pod.snapshot();
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join(failing);
        fs::write(&script, BROKEN.replace("TOOL", failing)).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", dir.path().display(), env::var("PATH").unwrap());

        let args = ["--mode", "nat", "--reply", "fwmark", "--addr", "[::]:5000", "--rules", tool];
        let output = net.pod.command(PROGRAM).args(args).env("PATH", path).output().unwrap();

        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{tool}: {stderr}");
        assert!(stderr.contains(failing) && stderr.contains("broken"), "{tool}: {stderr}");
        assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new(), "{tool}");
    }
}
