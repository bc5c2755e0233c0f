//! The end of a proxy that has connections.

use meshlib::test_util::netns::Family;
use rustix::process::Signal;

use crate::net::MODES;
use crate::net::REPLIES;
use crate::net::TOOLS;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::process::eventually;
use crate::talk::Server;
use crate::talk::Talk;
use crate::talk::visit;

#[test]
fn a_live_connection_goes_on_while_new_ones_go_past_the_proxy() {
    for mode in MODES {
        for tool in TOOLS {
            for reply in REPLIES {
                let Some(net) = pod() else { return };
                let before = net.pod.snapshot();
                let _server = Server::start(&net.pod, everywhere(3000));
                let args = format!(
                    "--mode {mode} --rules {tool} --reply {reply} --server loopback:3000 --addr [::]:5000 \
                     --drain-timeout 60s"
                );
                let mut proxy = Proxy::start(&net.pod, &args);
                let mut talks = Family::BOTH
                    .map(|family| Talk::open(&net.client, near(family), at_pod(family, 3000)).unwrap());

                proxy.signal(Signal::TERM);

                for family in Family::BOTH {
                    // What is dialled is the server's own address, so that it is reached without the proxy.
                    eventually("new connections go past the proxy", || {
                        let seen = visit(&net.client, near(family), at_pod(family, 3000));
                        seen.is_ok_and(|seen| seen.server == at_pod(family, 3000))
                    });
                }
                for talk in &mut talks {
                    assert_eq!(talk.echo(b"still here").unwrap(), b"still here", "{args}");
                }
                for talk in talks {
                    assert_eq!(talk.echo_to_end(b"bye".to_vec()).unwrap(), b"bye", "{args}");
                }
                assert_eq!(proxy.wait().code(), Some(0), "{args}");
                assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new(), "{args}");
            }
        }
    }
}

#[test]
fn connections_that_do_not_end_are_ended_in_time() {
    let Some(net) = pod() else { return };
    let before = net.pod.snapshot();
    let _server = Server::start(&net.pod, everywhere(3000));
    let mut proxy = Proxy::start(&net.pod, "--mode tproxy --drain-timeout 100ms");
    let mut talk = Talk::open(&net.client, near(Family::V4), at_pod(Family::V4, 3000)).unwrap();

    proxy.signal(Signal::INT);

    assert_eq!(proxy.wait().code(), Some(0));
    assert!(talk.echo(b"gone").is_err());
    assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new());
}
