//! The PROXY protocol instead of the client's address.

use meshlib::test_util::netns::Family;
use meshlib::test_util::netns::Pod;

use crate::net::MODES;
use crate::net::NOBODY;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::for_everybody;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::process::succeed;
use crate::talk::Seen;
use crate::talk::Server;
use crate::talk::Talk;

/// What the server got, which it sends back, and what it saw.
fn received(net: &Pod, family: Family) -> (Seen, Vec<u8>) {
    let talk = Talk::open(&net.client, near(family), at_pod(family, 8080)).unwrap();
    let seen = talk.seen;
    (seen, talk.echo_to_end(b"hello".to_vec()).unwrap())
}

#[test]
fn text_names_client_and_dialled_address() {
    for mode in MODES {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let args = format!("--mode {mode} --addr [::]:5000 --source none --send-proxy-protocol v1");
        let _proxy = Proxy::start(&net.pod, &args);

        for family in Family::BOTH {
            let (seen, bytes) = received(&net, family);

            let name = if family == Family::V4 { "TCP4" } else { "TCP6" };
            let (client, pod) = (seen.client, at_pod(family, 8080));
            let expected = format!(
                "PROXY {name} {} {} {} {}\r\nhello",
                client.ip(),
                pod.ip(),
                client.port(),
                pod.port()
            );
            assert_eq!(String::from_utf8(bytes).unwrap(), expected, "{mode}");
            assert_ne!(seen.peer.ip(), client.ip(), "{mode}");
        }
    }
}

#[test]
fn binary_names_client_and_dialled_address() {
    let Some(net) = pod() else { return };
    let _server = Server::start(&net.pod, everywhere(3000));
    let _proxy = Proxy::start(&net.pod, "--mode tproxy --source none --send-proxy-protocol v2");

    let (seen, bytes) = received(&net, Family::V4);

    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x4d\0\x02\x0a\x4d\0\x03".to_vec();
    expected.extend(seen.client.port().to_be_bytes());
    expected.extend(8080u16.to_be_bytes());
    expected.extend(b"hello");
    assert_eq!(bytes, expected);
}

#[test]
fn nat_needs_no_privilege_for_it() {
    let Some(net) = pod() else { return };
    let (_dir, program) = for_everybody();
    let _server = Server::start(&net.pod, everywhere(3000));
    succeed(&net.pod, "rules apply --mode nat");
    let args = "--mode nat --rules none --source none --send-proxy-protocol v1";
    let _proxy = Proxy::start_with(&net.pod, &NOBODY, &program, args);

    let (seen, bytes) = received(&net, Family::V4);

    let client = format!("PROXY TCP4 10.77.0.2 10.77.0.3 {} 8080\r\n", seen.client.port());
    assert!(bytes.starts_with(client.as_bytes()), "{bytes:?}");
}
