//! A way to Consul on which some requests get stuck.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;

/// Passes everything on but what gets stuck. Its port and its connections are closed when this is dropped.
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Passes connections on to an address. Requests that hold the text stay where they are.
    pub(crate) async fn start(to: SocketAddr, text: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let text: Arc<str> = text.into();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(pass(stream, to, Arc::clone(&text)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { addr, accepting }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, to: SocketAddr, text: Arc<str>) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async move {
        let mut read = vec![0; 64 * 1024];
        loop {
            let n = from_client.read(&mut read).await.unwrap_or(0);
            if String::from_utf8_lossy(&read[..n]).contains(&*text) {
                std::future::pending::<()>().await;
            }
            if n == 0 || to_server.write_all(&read[..n]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}
