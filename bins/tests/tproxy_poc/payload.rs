//! Bytes both ways.

use std::io::Read;
use std::net::Shutdown;

use meshlib::test_util::netns::Family;

use crate::lines::SOON;
use crate::net::MODES;
use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::process::eventually;
use crate::talk::Server;
use crate::talk::Talk;
use crate::talk::connect;

#[test]
fn what_comes_back_after_the_client_s_end_is_what_was_sent() {
    for mode in MODES {
        for family in Family::BOTH {
            let Some(net) = pod() else { return };
            let _server = Server::start(&net.pod, everywhere(3000));
            let _proxy = Proxy::start(&net.pod, &format!("--mode {mode} --addr [::]:5000"));
            let sent: Vec<u8> =
                (0..32 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();

            let talk = Talk::open(&net.client, near(family), at_pod(family, 8080)).unwrap();
            let received = talk.echo_to_end(sent.clone()).unwrap();

            // Comparing first keeps 32 MiB out of a failure's message.
            assert!(received == sent, "{mode} {family:?}: {} of {} bytes", received.len(), sent.len());
        }
    }
}

#[test]
fn a_server_may_speak_first_and_a_client_not_at_all() {
    for mode in MODES {
        let Some(net) = pod() else { return };
        let _server = Server::start_brief(&net.pod, everywhere(3000));
        let _proxy = Proxy::start(&net.pod, &format!("--mode {mode}"));

        let mut client = connect(&net.client, near(Family::V4), at_pod(Family::V4, 8080), SOON).unwrap();
        let mut greeting = String::new();
        client.read_to_string(&mut greeting).unwrap();
        client.shutdown(Shutdown::Write).unwrap();

        assert!(greeting.starts_with("10.77.0.2:"), "{mode}: {greeting}");
    }
}

#[test]
fn a_conversation_goes_back_and_forth() {
    let Some(net) = pod() else { return };
    let _server = Server::start(&net.pod, everywhere(3000));
    let _proxy = Proxy::start(&net.pod, "--mode tproxy");

    let mut talk = Talk::open(&net.client, near(Family::V4), at_pod(Family::V4, 8080)).unwrap();

    for round in 0..100u8 {
        assert_eq!(talk.echo(&[round]).unwrap(), [round]);
    }
}

#[test]
fn what_is_large_stays_in_the_kernel() {
    for mode in MODES {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let proxy = Proxy::start(&net.pod, &format!("--mode {mode}"));

        let mut talk = Talk::open(&net.client, near(Family::V4), at_pod(Family::V4, 8080)).unwrap();
        let before = proxy.pipes();
        let sent = vec![7; 32 << 20];

        // Splicing needs a pipe for each direction, and begins when reads fill the buffer: soon, in bulk.
        eventually("both directions are spliced", || {
            assert!(talk.echo_bulk(sent.clone()).unwrap() == sent, "{mode}");
            proxy.pipes() >= before + 4
        });
    }
}
