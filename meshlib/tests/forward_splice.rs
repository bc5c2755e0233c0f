//! Bulk between plain sockets moves inside the kernel. Alone in its process, whose pipes it counts.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as loudly as the test")]
#![cfg(target_os = "linux")]

use std::fs;

use meshlib::ForwardOptions;
use meshlib::Io;
use meshlib::forward;
use meshlib::test_util::echo;
use meshlib::test_util::echo_to_end;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

const MEGABYTE: usize = 1024 * 1024;

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (peer, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (accepted.unwrap().0, peer.unwrap())
}

/// Ends of pipes that the process has open.
fn pipes() -> usize {
    let fds = fs::read_dir("/proc/self/fd").unwrap();
    fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .count()
}

/// A client whose bytes come back through forwarding.
async fn echoing(options: &ForwardOptions) -> TcpStream {
    let ((ours, client), (upstream, mut server)) = (sockets().await, sockets().await);
    let options = options.clone();
    tokio::spawn(async move {
        let (mut client, mut server) = (Io::from(ours), Io::from(upstream));
        forward(&mut client, &mut server, &options).await
    });
    tokio::spawn(async move {
        let (mut input, mut output) = server.split();
        tokio::io::copy(&mut input, &mut output).await.unwrap();
        output.shutdown().await.unwrap();
    });
    client
}

fn random_bytes(n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    fastrand::fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn bulk_is_spliced_and_chat_is_not() {
    let options = ForwardOptions::default();
    let before = pipes();

    let mut client = echoing(&options).await;
    assert_eq!(echo(&mut client, b"hello").await.unwrap(), b"hello");
    assert_eq!(pipes(), before, "a message needs no pipe");

    let bulk = random_bytes(8 * MEGABYTE);
    assert!(echo(&mut client, &bulk).await.unwrap() == bulk);
    let spliced = pipes();
    assert!(spliced > before, "bulk goes through pipes");

    // More messages than it takes for a direction to count as chatty again, in both directions.
    for n in 0..50_u32 {
        let message = random_bytes(n as usize + 1);
        assert_eq!(echo(&mut client, &message).await.unwrap(), message);
    }

    // The pipes of the first connection are free again although it lives: the second needs no more of them.
    let mut other = echoing(&options).await;
    assert!(echo(&mut other, &bulk).await.unwrap() == bulk);
    assert!(pipes() <= spliced, "{} ends of pipes, {spliced} before", pipes());

    // Both go on as if nothing had been, and end as they should.
    for mut client in [client, other] {
        assert!(echo(&mut client, &bulk).await.unwrap() == bulk);
        assert_eq!(echo_to_end(&mut client, b"bye").await.unwrap(), b"bye");
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn splicing_can_be_forbidden() {
    let mut client = echoing(&ForwardOptions::default().with_splice_after(None)).await;
    let bulk = random_bytes(2 * MEGABYTE);

    assert!(echo_to_end(&mut client, &bulk).await.unwrap() == bulk);
}
