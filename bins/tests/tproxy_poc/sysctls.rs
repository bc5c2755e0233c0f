//! Settings of the kernel that others make.

use meshlib::test_util::netns::Family;
use meshlib::test_util::netns::Pod;

use crate::net::MODES;
use crate::net::REPLIES;
use crate::net::TOOLS;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::talk::Server;
use crate::talk::visit;

/// Serves a client in every mode, however answers are kept inside.
fn serves(settings: &[(&str, &str)]) {
    for mode in MODES {
        for tool in TOOLS {
            let Some(net) = pod() else { return };
            for (key, value) in settings {
                net.pod.set_sysctl(key, value);
            }
            let _server = Server::start(&net.pod, everywhere(3000));
            for reply in REPLIES {
                serves_with(&net, &format!("--mode {mode} --rules {tool} --reply {reply}"), settings);
            }
        }
    }
}

fn serves_with(net: &Pod, args: &str, settings: &[(&str, &str)]) {
    let proxy = Proxy::start(&net.pod, &format!("{args} --server loopback:3000 --addr [::]:5000"));
    for family in Family::BOTH {
        for _ in 0..3 {
            let seen = visit(&net.client, near(family), at_pod(family, 8080));
            let seen = seen.unwrap_or_else(|error| panic!("{args} {settings:?} {family:?}: {error}"));
            assert!(seen.is_client(), "{args} {settings:?}: {seen:?}");
        }
    }
    proxy.stop();
    for (key, value) in settings {
        assert_eq!(&net.pod.sysctl(key), value, "{args}: {key}");
    }
}

#[test]
fn src_valid_mark_with_a_strict_reverse_path_filter() {
    serves(&[
        ("net.ipv4.conf.all.src_valid_mark", "1"),
        ("net.ipv4.conf.all.rp_filter", "1"),
        ("net.ipv4.conf.lo.rp_filter", "1"),
    ]);
}

#[test]
fn src_valid_mark_with_a_loose_reverse_path_filter() {
    serves(&[("net.ipv4.conf.all.src_valid_mark", "1"), ("net.ipv4.conf.all.rp_filter", "2")]);
}

#[test]
fn syn_cookies_for_every_connection() {
    serves(&[("net.ipv4.tcp_syncookies", "2")]);
}

#[test]
fn no_early_demultiplexing() {
    serves(&[("net.ipv4.ip_early_demux", "0")]);
}

#[test]
fn syn_cookies_and_a_server_at_the_pod_s_address() {
    for mode in MODES {
        let Some(net) = pod() else { return };
        net.pod.set_sysctl("net.ipv4.tcp_syncookies", "2");
        let _server = Server::start(&net.pod, at_pod(Family::V4, 3000));
        let _proxy = Proxy::start(&net.pod, &format!("--mode {mode} --server original:original"));

        let seen = visit(&net.client, near(Family::V4), at_pod(Family::V4, 3000)).unwrap();

        assert!(seen.is_client_ip(), "{mode}: {seen:?}");
    }
}
