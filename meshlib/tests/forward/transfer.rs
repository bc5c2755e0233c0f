//! What goes in at one side comes out at the other, whatever the sides are.

use std::time::Duration;

use meshlib::Error;
use meshlib::ForwardOptions;
use meshlib::Io;
use meshlib::Transferred;
use meshlib::forward;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time;

use crate::legs::LEGS;
use crate::legs::Leg;
use crate::legs::Stream;
use crate::legs::client_over;
use crate::legs::client_side;
use crate::legs::server_over;
use crate::legs::server_side;
use crate::legs::sockets;

/// Five combinations, both ways: 40 MB in total.
const BYTES: usize = 4_000_000;

fn relay(mut client: Io, mut server: Io) -> JoinHandle<Result<Transferred, Error>> {
    tokio::spawn(async move { forward(&mut client, &mut server, &ForwardOptions::default()).await })
}

fn seed() -> u64 {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    seed
}

fn random_bytes(seed: u64, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Sends in chunks of random sizes, from one byte to 100 kB, small ones more often; then ends its direction.
async fn send(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8], seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = 10_usize.pow(random.u32(0..=5));
        let (chunk, after) = rest.split_at(random.usize(1..=most).min(rest.len()));
        io.write_all(chunk).await.unwrap();
        if random.u8(..) == 0 {
            tokio::task::yield_now().await;
        }
        rest = after;
    }
    io.shutdown().await.unwrap();
}

async fn receive(io: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// Sends both ways at once and compares what arrives.
async fn exchange(
    client: impl AsyncRead + AsyncWrite,
    server: impl AsyncRead + AsyncWrite,
    bytes: usize,
    seed: u64,
) {
    let (up, down) = (random_bytes(seed, bytes), random_bytes(seed + 1, bytes));
    let (mut client_in, mut client_out) = tokio::io::split(client);
    let (mut server_in, mut server_out) = tokio::io::split(server);
    let (_, _, at_server, at_client) = tokio::join!(
        send(&mut client_out, &up, seed + 2),
        send(&mut server_out, &down, seed + 3),
        receive(&mut server_in),
        receive(&mut client_in),
    );
    assert!(at_server == up, "the server got {} other bytes", at_server.len());
    assert!(at_client == down, "the client got {} other bytes", at_client.len());
}

#[tokio::test]
async fn every_byte_arrives_over_every_combination() {
    for (client, server) in LEGS {
        let (client, server) = (client_side(client).await, server_side(server).await);
        let relay = relay(client.ours, server.ours);

        exchange(client.peer, server.peer, BYTES, seed()).await;

        let done = relay.await.unwrap().unwrap();
        assert_eq!((done.upstream, done.downstream), (BYTES as u64, BYTES as u64));
        assert!(!done.truncated);
    }
}

#[tokio::test]
async fn every_byte_arrives_over_streams_of_other_kinds() {
    let (mut ours, client) = tokio::io::duplex(1000);
    let server = server_side(Leg::Tls).await;
    let mut upstream = server.ours;
    let relay = tokio::spawn(async move {
        let options = ForwardOptions::default().with_buffer_bytes(1024);
        forward(&mut ours, &mut upstream, &options).await
    });

    exchange(client, server.peer, BYTES, seed()).await;

    let done = relay.await.unwrap().unwrap();
    assert_eq!((done.upstream, done.downstream), (BYTES as u64, BYTES as u64));
}

#[tokio::test]
async fn every_byte_arrives_over_ipv6_with_small_buffers() {
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let mut ours = Io::from(accepted.unwrap().0);
    let server = server_side(Leg::Plain).await;
    let mut upstream = server.ours;
    let relay = tokio::spawn(async move {
        let options = ForwardOptions::default().with_buffer_bytes(1024).with_splice_after(None);
        forward(&mut ours, &mut upstream, &options).await
    });

    exchange(client.unwrap(), server.peer, BYTES / 4, seed()).await;

    relay.await.unwrap().unwrap();
}

#[tokio::test]
async fn bytes_that_were_read_before_come_first() {
    let ((ours, mut client), server) = (sockets().await, server_side(Leg::Plain).await);
    let mut server_peer = server.peer;
    let relay = relay(Io::with_unread(ours, "looked at, ".into()), server.ours);

    client.write_all(b"then the rest").await.unwrap();
    client.shutdown().await.unwrap();

    assert_eq!(receive(&mut server_peer).await, b"looked at, then the rest");
    server_peer.shutdown().await.unwrap();
    assert_eq!(relay.await.unwrap().unwrap().upstream, 24);
}

/// Passes bytes on one at a time, so that records arrive in pieces of every length.
async fn dribble(from: TcpStream, to: TcpStream) {
    let (mut from_in, mut from_out) = from.into_split();
    let (mut to_in, mut to_out) = to.into_split();
    let one_way = async |input: &mut (dyn AsyncRead + Unpin + Send),
                         output: &mut (dyn AsyncWrite + Unpin + Send)| {
        while let Ok(byte) = input.read_u8().await {
            if output.write_u8(byte).await.is_err() {
                return;
            }
            // Lets the reader see this byte before the next one is there.
            tokio::task::yield_now().await;
        }
        let _ = output.shutdown().await;
    };
    tokio::join!(one_way(&mut from_in, &mut to_out), one_way(&mut to_in, &mut from_out));
}

#[tokio::test]
async fn records_may_arrive_byte_by_byte() {
    let ((a, client_peer), (ours, b)) = (sockets().await, sockets().await);
    tokio::spawn(dribble(a, b));
    let client = client_over(Leg::Tls, ours, client_peer).await;
    let ((c, server_peer), (upstream, d)) = (sockets().await, sockets().await);
    tokio::spawn(dribble(c, d));
    let server = server_over(Leg::Tls, upstream, server_peer).await;
    let relay = relay(client.ours, server.ours);

    exchange(client.peer, server.peer, 20_000, seed()).await;

    let done = relay.await.unwrap().unwrap();
    assert_eq!((done.upstream, done.downstream), (20_000, 20_000));
}

#[tokio::test]
async fn a_message_is_not_held_back() {
    for (client, server) in LEGS {
        let (client, server) = (client_side(client).await, server_side(server).await);
        let (mut client_peer, mut server_peer) = (client.peer, server.peer);
        let _relay = relay(client.ours, server.ours);

        for n in [1_usize, 100, 20_000] {
            let message = random_bytes(n as u64, n);
            chat(&mut client_peer, &mut server_peer, &message).await;
            chat(&mut server_peer, &mut client_peer, &message).await;
        }
    }
}

/// One message, which must arrive while nothing else happens.
async fn chat(from: &mut Box<dyn Stream>, to: &mut Box<dyn Stream>, message: &[u8]) {
    let mut arrived = vec![0; message.len()];
    let exchange = async {
        let send = async {
            from.write_all(message).await?;
            from.flush().await
        };
        tokio::try_join!(send, to.read_exact(&mut arrived)).unwrap();
    };
    time::timeout(Duration::from_secs(10), exchange).await.expect("it is not held back");
    assert!(arrived == message);
}
