//! A backend that answers every request alike and keeps what it got.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::wire::Wire;
use super::wire::field;
use super::wire::soon;

/// Each connection's bytes, in the order in which the connections were opened.
pub(crate) struct Recorder {
    pub(crate) addr: SocketAddr,
    connections: Arc<Mutex<JoinSet<Vec<u8>>>>,
}

impl Recorder {
    /// Answers 200 with two bytes.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let spawn_on = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_on.lock().unwrap().spawn(record(Wire::new(stream)));
            }
        });
        Self { addr, connections }
    }

    /// What has come, once the proxy has closed its connections.
    pub(crate) async fn got(self) -> Vec<String> {
        let mut connections = std::mem::take(&mut *self.connections.lock().unwrap());
        let mut all = Vec::new();
        while let Some(bytes) = soon(connections.join_next()).await {
            all.push(String::from_utf8_lossy(&bytes.unwrap()).into_owned());
        }
        all
    }
}

async fn record(mut wire: Wire) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(head) = wire.until(b"\r\n\r\n").await {
        let text = String::from_utf8_lossy(&head).to_lowercase();
        all.extend(head);
        if field(&text, "transfer-encoding").is_some() {
            // Up to the end of the last chunk and its trailers.
            let end = match wire.until(b"0\r\n").await {
                Some(data) => {
                    all.extend(data);
                    wire.until(b"\r\n").await
                }
                None => None,
            };
            let Some(end) = end else { break };
            all.extend(end);
        } else if let Some(n) = field(&text, "content-length") {
            let Some(data) = wire.take(n.parse().unwrap()).await else { break };
            all.extend(data);
        }
        if wire.try_send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            break;
        }
    }
    all.extend(wire.rest().await);
    all
}
