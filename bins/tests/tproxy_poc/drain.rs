//! The end of a proxy that has connections.

use meshlib::test_util::netns::Family;
use rustix::process::Signal;

use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::talk::Server;
use crate::talk::Talk;

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
