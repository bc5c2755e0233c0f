//! How connections end: one direction at a time, all at once, or badly.

use std::io::ErrorKind;
use std::time::Duration;

use meshlib::Error;
use meshlib::ForwardOptions;
use meshlib::Side;
use meshlib::Transferred;
use meshlib::forward;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio::time;

use crate::legs;
use crate::legs::LEGS;
use crate::legs::Leg;
use crate::legs::Stream;
use crate::legs::client_side;
use crate::legs::server_side;

/// What must happen at all must happen within this.
const SOON: Duration = Duration::from_secs(10);

fn relay(client: legs::Side, server: legs::Side) -> (Box<dyn Stream>, Box<dyn Stream>, JoinHandle<Outcome>) {
    let (mut client_io, mut server_io) = (client.ours, server.ours);
    let relay = tokio::spawn(async move {
        let outcome = forward(&mut client_io, &mut server_io, &ForwardOptions::default()).await;
        drop((client_io, server_io));
        outcome
    });
    (client.peer, server.peer, relay)
}

type Outcome = Result<Transferred, Error>;

async fn say(io: &mut Box<dyn Stream>, text: &str) {
    io.write_all(text.as_bytes()).await.unwrap();
    io.flush().await.unwrap();
}

async fn hear(io: &mut Box<dyn Stream>, text: &str) {
    let mut heard = vec![0; text.len()];
    let read = time::timeout(SOON, io.read_exact(&mut heard));
    read.await.expect("it arrives soon").unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), text);
}

/// The clean end of what the peer sends.
async fn hear_end(io: &mut Box<dyn Stream>) {
    let mut more = [0; 16];
    let read = time::timeout(SOON, io.read(&mut more));
    assert_eq!(read.await.expect("it ends soon").unwrap(), 0);
}

/// The end of what the peer sends, which a TLS peer must not take for a proper one.
async fn hear_cut(io: &mut Box<dyn Stream>, leg: Leg) {
    if leg == Leg::Plain {
        return hear_end(io).await;
    }
    let mut more = [0; 16];
    let read = time::timeout(SOON, io.read(&mut more));
    let error = read.await.expect("it ends soon").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

async fn outcome(relay: JoinHandle<Outcome>) -> Outcome {
    time::timeout(SOON, relay).await.expect("forwarding ends soon").unwrap()
}

#[tokio::test]
async fn half_close_keeps_the_other_direction() {
    for (client, server) in LEGS {
        let (mut client, mut server, relay) = relay(client_side(client).await, server_side(server).await);

        say(&mut client, "question").await;
        client.shutdown().await.unwrap();
        hear(&mut server, "question").await;
        hear_end(&mut server).await;
        say(&mut server, "answer").await;
        hear(&mut client, "answer").await;
        server.shutdown().await.unwrap();
        hear_end(&mut client).await;

        let done = outcome(relay).await.unwrap();
        assert_eq!((done.upstream, done.downstream, done.truncated), (8, 6, false));
    }
}

#[tokio::test]
async fn a_server_may_close_its_side_first() {
    for (client, server) in LEGS {
        let (mut client, mut server, relay) = relay(client_side(client).await, server_side(server).await);

        say(&mut server, "hello").await;
        server.shutdown().await.unwrap();
        hear(&mut client, "hello").await;
        hear_end(&mut client).await;
        say(&mut client, "late words").await;
        hear(&mut server, "late words").await;
        client.shutdown().await.unwrap();
        hear_end(&mut server).await;

        let done = outcome(relay).await.unwrap();
        assert_eq!((done.upstream, done.downstream, done.truncated), (10, 5, false));
    }
}

#[tokio::test]
async fn a_tls_side_that_ends_without_saying_so_is_noted() {
    for server_leg in [Leg::Plain, Leg::Tls] {
        let (mut client, mut server, relay) =
            relay(client_side(Leg::Tls).await, server_side(server_leg).await);

        say(&mut client, "all of it?").await;
        let mut socket = client.into_socket();
        socket.shutdown().await.unwrap();

        hear(&mut server, "all of it?").await;
        hear_cut(&mut server, server_leg).await;
        server.shutdown().await.unwrap();
        let done = outcome(relay).await.unwrap();
        assert_eq!((done.upstream, done.truncated), (10, true));
    }
}

#[tokio::test]
async fn a_tls_server_that_ends_without_saying_so_is_noted() {
    for client_leg in [Leg::Plain, Leg::Tls] {
        let (mut client, mut server, relay) =
            relay(client_side(client_leg).await, server_side(Leg::Tls).await);

        say(&mut server, "all of it?").await;
        let mut socket = server.into_socket();
        socket.shutdown().await.unwrap();

        hear(&mut client, "all of it?").await;
        hear_cut(&mut client, client_leg).await;
        client.shutdown().await.unwrap();
        let done = outcome(relay).await.unwrap();
        assert_eq!((done.downstream, done.truncated), (10, true));
    }
}

/// Closes a peer's socket so that the other end sees a reset.
fn reset(peer: Box<dyn Stream>) {
    peer.into_socket().set_zero_linger().unwrap();
}

async fn hear_reset(peer: Box<dyn Stream>) {
    // The socket is asked, since a TLS stream may have its own words for it.
    let mut socket = peer.into_socket();
    let mut rest = Vec::new();
    let read = time::timeout(SOON, socket.read_to_end(&mut rest));
    let error = read.await.expect("it breaks soon").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_clients_reset_reaches_the_server() {
    for legs in LEGS {
        let (mut client, mut server, relay) = relay(client_side(legs.0).await, server_side(legs.1).await);
        say(&mut client, "hi").await;
        hear(&mut server, "hi").await;

        reset(client);

        hear_reset(server).await;
        match outcome(relay).await {
            Err(Error::Forward { side: Side::Client, transferred, source }) => {
                assert_eq!(transferred.upstream, 2);
                assert_eq!(source.kind(), ErrorKind::ConnectionReset);
            }
            other => panic!("{legs:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_servers_reset_reaches_the_client() {
    for legs in LEGS {
        let (mut client, mut server, relay) = relay(client_side(legs.0).await, server_side(legs.1).await);
        say(&mut server, "hi").await;
        hear(&mut client, "hi").await;

        reset(server);

        hear_reset(client).await;
        let outcome = outcome(relay).await;
        assert!(matches!(outcome, Err(Error::Forward { side: Side::Server, .. })), "{legs:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_client_that_has_had_enough_is_no_error() {
    for legs in LEGS {
        let (mut client, mut server, relay) = relay(client_side(legs.0).await, server_side(legs.1).await);
        say(&mut client, "question").await;
        client.shutdown().await.unwrap();
        hear(&mut server, "question").await;
        hear_end(&mut server).await;

        reset(client);
        // The answer meets a client that is gone, at the latest at the second write.
        while server.write_all(b"answer").await.is_ok() && server.flush().await.is_ok() {
            time::sleep(Duration::from_millis(1)).await;
        }

        let done = outcome(relay).await;
        assert!(done.is_ok(), "{legs:?}: {done:?}");
    }
}

#[tokio::test]
async fn bytes_before_a_close_in_full_arrive() {
    for legs in LEGS {
        let (mut client, server, relay) = relay(client_side(legs.0).await, server_side(legs.1).await);
        let text = vec![7; 300_000];

        // The server reads late; the client has closed its socket by then.
        let send = async {
            client.write_all(&text).await.unwrap();
            client.shutdown().await.unwrap();
            client
        };
        let receive = async {
            time::sleep(Duration::from_millis(50)).await;
            let (mut input, mut output) = tokio::io::split(server);
            let mut received = Vec::new();
            input.read_to_end(&mut received).await.unwrap();
            output.shutdown().await.unwrap();
            received
        };
        let (_client, received) = tokio::join!(send, receive);

        assert!(received == text, "{legs:?}: {} bytes", received.len());
        assert_eq!(outcome(relay).await.unwrap().upstream, 300_000);
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_of_bulk_reaches_the_sender() {
    for legs in LEGS {
        let (mut client, mut server, relay) = relay(client_side(legs.0).await, server_side(legs.1).await);
        let sending = tokio::spawn(async move {
            let chunk = vec![7; 64 * 1024];
            loop {
                if let Err(error) = client.write_all(&chunk).await {
                    return error.kind();
                }
            }
        });

        // Far enough for the direction to have moved into the kernel where it can.
        let mut received = 0;
        let mut buf = vec![0; 64 * 1024];
        while received < 4_000_000 {
            received += server.read(&mut buf).await.unwrap();
        }
        reset(server);

        let kind = time::timeout(SOON, sending).await.expect("the sender learns it soon").unwrap();
        assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{legs:?}: {kind}");
        match outcome(relay).await {
            Err(Error::Forward { side: Side::Server, transferred, .. }) => {
                assert!(transferred.upstream >= 4_000_000, "{legs:?}: {transferred:?}");
            }
            other => panic!("{legs:?}: {other:?}"),
        }
    }
}

/// Bytes behind the end are nobody's; looking for one in them again and again would hold the thread for ever.
#[test]
fn bytes_after_a_tls_end_are_passed_over() {
    let (tx, rx) = std::sync::mpsc::channel();
    // A thread of its own, since the failure is one that no deadline inside the runtime can end.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(async {
            let (ours, peer) = legs::sockets().await;
            let ca = meshlib::test_util::TestCa::new();
            let client = legs::accepted(&ca, ours, peer).await;
            let server = server_side(Leg::Plain).await;
            let (mut socket, mut tls) = client.1.into_inner();
            let mut bytes = Vec::new();
            tls.send_close_notify();
            tls.write_tls(&mut bytes).unwrap();
            bytes.resize(bytes.len() + 32 * 1024, 0x17);
            socket.write_all(&bytes).await.unwrap();
            let (mut client_io, mut server_io) = (client.0, server.ours);
            let relay = tokio::spawn(async move {
                forward(&mut client_io, &mut server_io, &ForwardOptions::default()).await
            });
            drop(server.peer);
            relay.await.unwrap()
        });
        tx.send(outcome).unwrap();
    });

    let outcome = rx.recv_timeout(SOON).expect("it ends soon");

    assert_eq!(outcome.unwrap().upstream, 0);
}

/// The kernel tells of a reset once; whoever asks second sees an end.
#[tokio::test]
async fn a_client_that_resets_a_download_has_failed() {
    for legs in LEGS {
        let (mut client, mut server, relay) = relay(client_side(legs.0).await, server_side(legs.1).await);
        let sending = tokio::spawn(async move {
            let chunk = vec![7; 64 * 1024];
            while server.write_all(&chunk).await.is_ok() {}
        });
        let mut buf = vec![0; 64 * 1024];
        let mut received = 0;
        while received < 1_000_000 {
            received += client.read(&mut buf).await.unwrap();
        }

        reset(client);

        let done = outcome(relay).await;
        assert!(matches!(done, Err(Error::Forward { side: Side::Client, .. })), "{legs:?}: {done:?}");
        time::timeout(SOON, sending).await.expect("the sender learns it soon").unwrap();
    }
}
