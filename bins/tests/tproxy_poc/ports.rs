//! Ports: of clients, of the proxy, and none left.

use meshlib::test_util::netns::Family;
use meshlib::test_util::netns::Pod;

use crate::net::MODES;
use crate::net::REPLIES;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::process::eventually;
use crate::talk::Server;
use crate::talk::Talk;
use crate::talk::is_refused;
use crate::talk::visit;

#[test]
fn a_client_may_use_its_port_again_right_after_the_proxy_closed() {
    for mode in MODES {
        for reply in REPLIES {
            for family in Family::BOTH {
                let Some(net) = pod() else { return };
                // It ends connections first, so that the proxy does, and holds them in TIME_WAIT.
                let _server = Server::start_brief(&net.pod, everywhere(3000));
                let args = format!("--mode {mode} --reply {reply} --server loopback:3000 --addr [::]:5000");
                let proxy = Proxy::start(&net.pod, &args);
                let from = (Pod::client_ip(family), 40_000);

                for round in 1..=3 {
                    let talk = Talk::open(&net.client, from, at_pod(family, 3000));
                    let talk = talk.unwrap_or_else(|error| panic!("{args} {family:?} {round}: {error}"));
                    let seen = talk.seen;
                    assert_eq!(talk.end().unwrap(), b"");

                    assert_eq!(seen.peer.ip(), seen.client.ip(), "{args}");
                }
                assert_eq!(proxy.stop(), 3, "{args}: bypassed");
            }
        }
    }
}

#[test]
fn one_client_port_to_two_dialled_ports_is_two_connections() {
    for mode in MODES {
        for family in Family::BOTH {
            let Some(net) = pod() else { return };
            let _server = Server::start(&net.pod, everywhere(3000));
            let args = format!("--mode {mode} --server loopback:3000 --addr [::]:5000");
            let _proxy = Proxy::start(&net.pod, &args);
            let from = (Pod::client_ip(family), 40_000);

            let mut first = Talk::open(&net.client, from, at_pod(family, 8001)).unwrap();
            let mut second = Talk::open(&net.client, from, at_pod(family, 8002)).unwrap();

            assert!(first.seen.is_client(), "{args}: {:?}", first.seen);
            assert!(second.seen.is_client_ip(), "{args}: {:?}", second.seen);
            assert_eq!(first.echo(b"first").unwrap(), b"first");
            assert_eq!(second.echo(b"second").unwrap(), b"second");
        }
    }
}

#[test]
fn where_the_client_s_port_is_a_must_the_second_connection_is_refused() {
    for family in Family::BOTH {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let _proxy = Proxy::start(&net.pod, "--mode tproxy --source client --addr [::]:5000");
        let from = (Pod::client_ip(family), 40_000);

        let mut first = Talk::open(&net.client, from, at_pod(family, 8001)).unwrap();
        let second = visit(&net.client, from, at_pod(family, 8002));

        assert!(is_refused(&second), "{second:?}");
        assert_eq!(first.echo(b"first").unwrap(), b"first");
    }
}

#[test]
fn whoever_dials_the_proxy_itself_is_refused() {
    for mode in MODES {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let proxy =
            Proxy::start(&net.pod, &format!("--mode {mode} --server original:original --addr [::]:5000"));

        for family in Family::BOTH {
            let result = visit(&net.client, near(family), at_pod(family, 5000));

            assert!(is_refused(&result), "{mode}: {result:?}");
            // From inside no rule leads there.
            let result = visit(&net.pod, (family.unspecified(), 0), at_pod(family, 5000));
            assert!(is_refused(&result), "{mode}: {result:?}");
        }
        eventually("each is logged", || proxy.log().count("refused to connect to myself") == 4);
    }
}

#[test]
fn when_all_ports_are_used_clients_are_refused_at_once() {
    for mode in MODES {
        let Some(net) = pod() else { return };
        net.pod.set_sysctl("net.ipv4.ip_local_port_range", "40000 40019");
        let _server = Server::start(&net.pod, everywhere(3000));
        let args = format!("--mode {mode} --source client-ip --server loopback:3000 --connect-timeout 60s");
        let _proxy = Proxy::start(&net.pod, &args);

        let talks: Vec<_> =
            (0..40).map(|_| Talk::open(&net.client, near(Family::V4), at_pod(Family::V4, 8080))).collect();

        assert_eq!(talks.iter().filter(|talk| talk.is_ok()).count(), 20, "{mode}");
        assert_eq!(talks.iter().filter(|talk| is_refused(talk)).count(), 20, "{mode}");
    }
}

#[test]
fn connections_of_one_client_to_the_server_s_own_port_leave_each_other_alone() {
    const LIVE: u16 = 24;

    for mode in MODES {
        let Some(net) = pod() else { return };
        // The kernel of the pod has no ports but those that the client uses, too.
        let range = format!("40000 {}", 40_000 + LIVE - 1);
        net.pod.set_sysctl("net.ipv4.ip_local_port_range", &range);
        let _server = Server::start(&net.pod, everywhere(3000));
        for source in ["auto", "client-ip"] {
            let args = format!("--mode {mode} --source {source} --server original:original");
            let proxy = Proxy::start(&net.pod, &args);

            let open =
                |port| Talk::open(&net.client, (Pod::client_ip(Family::V4), port), at_pod(Family::V4, 3000));
            let mut talks: Vec<_> = (40_000..40_000 + LIVE).map(|port| open(port).unwrap()).collect();

            for talk in &mut talks {
                assert!(talk.seen.is_client_ip(), "{args}: {:?}", talk.seen);
                assert_eq!(talk.echo(b"still here").unwrap(), b"still here", "{args}");
            }
            for talk in talks {
                assert_eq!(talk.echo_to_end(b"bye".to_vec()).unwrap(), b"bye", "{args}");
            }
            proxy.stop();
        }
    }
}
