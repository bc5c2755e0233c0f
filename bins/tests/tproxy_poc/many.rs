//! Many connections.

use std::sync::Arc;
use std::thread;

use meshlib::test_util::netns::Family;

use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::talk::Server;
use crate::talk::Talk;

/// How many connections one client address makes. It has 28,232 ports.
const CONNECTIONS: usize = 20_000;

/// How many of them at a time.
const THREADS: usize = 4;

#[test]
fn short_connections_of_one_client_all_succeed_in_nat() {
    // The server's own port: the client's port cannot be kept.
    check("nat", 3000);
}

#[test]
fn short_connections_of_one_client_all_succeed_in_tproxy() {
    check("tproxy", 8080);
}

fn check(mode: &str, dialled: u16) {
    let Some(net) = pod() else { return };
    let _server = Server::start_brief(&net.pod, everywhere(3000));
    let _proxy = Proxy::start(&net.pod, &format!("--mode {mode}"));
    let net = Arc::new(net);

    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let net = Arc::clone(&net);
            thread::spawn(move || {
                for i in 0..CONNECTIONS / THREADS {
                    let talk = Talk::open(&net.client, near(Family::V4), at_pod(Family::V4, dialled));
                    let talk = talk.unwrap_or_else(|error| panic!("after {i} connections: {error}"));
                    assert_eq!(talk.seen.peer.ip(), talk.seen.client.ip());
                    talk.end().unwrap_or_else(|error| panic!("after {i} connections: {error}"));
                }
            })
        })
        .collect();

    for thread in threads {
        thread.join().unwrap();
    }
}
