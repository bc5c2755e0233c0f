//! A peer that stops reading stops the sender and costs little meanwhile.

use std::time::Duration;

use meshlib::ForwardOptions;
use meshlib::forward;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;

use crate::legs::LEGS;
use crate::legs::client_over;
use crate::legs::server_over;
use crate::legs::sockets;

/// Small kernel buffers, so that what the proxy itself holds can be seen behind them.
const KERNEL: usize = 32 * 1024;
/// What the kernel may make of that at each of four sockets: twice the number, for sending and for receiving, and some.
const KERNEL_IN_ALL: usize = 4 * 3 * KERNEL;

fn narrow(pair: (TcpStream, TcpStream)) -> (TcpStream, TcpStream) {
    for socket in [&pair.0, &pair.1] {
        let socket = SockRef::from(socket);
        socket.set_send_buffer_size(KERNEL).unwrap();
        socket.set_recv_buffer_size(KERNEL).unwrap();
    }
    pair
}

#[tokio::test]
async fn a_stalled_reader_stops_the_sender() {
    for legs in LEGS {
        for splice_after in [None, Some(1)] {
            let (ours, peer) = narrow(sockets().await);
            let client = client_over(legs.0, ours, peer).await;
            let (ours, peer) = narrow(sockets().await);
            let server = server_over(legs.1, ours, peer).await;
            let (mut client_io, mut server_io) = (client.ours, server.ours);
            // Smaller than what the kernel keeps ready, so that reads fill it and the direction counts as bulky.
            let options =
                ForwardOptions::default().with_buffer_bytes(8 * 1024).with_splice_after(splice_after);
            let buffer = options.buffer_bytes;
            let relay = tokio::spawn(async move { forward(&mut client_io, &mut server_io, &options).await });

            // Writes until nothing has been taken for a while.
            let (mut client, mut server) = (client.peer, server.peer);
            let (chunk, mut pushed) = (vec![7; 8 * 1024], 0);
            while let Ok(n) = time::timeout(Duration::from_millis(200), client.write(&chunk)).await {
                pushed += n.unwrap();
                assert!(pushed < 20_000_000, "{legs:?}: nothing stops the sender");
            }

            println!("{legs:?}, splice {splice_after:?}: {pushed} bytes pushed");
            // Twice the buffer is promised, a pipe holds 256 KiB, and the sender's own TLS may buffer 64 KiB.
            let most = KERNEL_IN_ALL + 2 * buffer + 256 * 1024 + 64 * 1024;
            assert!(pushed <= most, "{legs:?}: {pushed} bytes of at most {most}");

            let receive = async {
                let mut received = Vec::new();
                server.read_to_end(&mut received).await.unwrap();
                server.shutdown().await.unwrap();
                received
            };
            let (received, ended) = tokio::join!(receive, client.shutdown());
            ended.unwrap();
            assert_eq!(received.len(), pushed, "{legs:?}: all arrives in the end");
            assert_eq!(relay.await.unwrap().unwrap().upstream, pushed as u64);
        }
    }
}
