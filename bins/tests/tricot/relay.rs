//! A way to Consul that lets some requests down.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;

/// What becomes of requests that hold a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing: they go on.
    None,
    /// They stay where they are.
    Stall,
    /// Their connection is closed.
    Cut,
}

/// Passes everything on but what is troubled. Its port and its connections are closed when this is dropped.
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    trouble: watch::Sender<Trouble>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Passes connections on to an address. Requests that hold the text are in trouble.
    pub(crate) async fn start(to: SocketAddr, text: &str, trouble: Trouble) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (trouble, now) = watch::channel(trouble);
        let text: Arc<str> = text.into();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(pass(stream, to, Arc::clone(&text), now.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { addr, trouble, accepting }
    }

    /// From now on this becomes of them.
    pub(crate) fn set(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, to: SocketAddr, text: Arc<str>, trouble: watch::Receiver<Trouble>) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async move {
        let mut read = vec![0; 64 * 1024];
        loop {
            let n = from_client.read(&mut read).await.unwrap_or(0);
            let troubled = String::from_utf8_lossy(&read[..n]).contains(&*text);
            let trouble = if troubled { *trouble.borrow() } else { Trouble::None };
            match trouble {
                Trouble::Stall => std::future::pending().await,
                Trouble::None if n > 0 && to_server.write_all(&read[..n]).await.is_ok() => {}
                _ => return,
            }
        }
    };
    tokio::select! {
        () = up => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}
