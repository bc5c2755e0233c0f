//! A client that sees bytes.

use std::time::Duration;

use meshlib_namerd::server::NamerdServer;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;

/// One connection, and what was read from it and not yet looked at.
pub(crate) struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    pub(crate) async fn connect(server: &NamerdServer) -> Self {
        let stream = TcpStream::connect(server.addr()).await.unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn get(&mut self, target: &str) {
        self.send(&format!("GET {target} HTTP/1.1\r\nhost: namerd\r\n\r\n")).await;
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads up to and with the first `end`.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            let at = self.read.windows(end.len()).position(|bytes| bytes == end.as_bytes());
            if let Some(at) = at {
                let rest = self.read.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
            }
            let n = soon(self.stream.read_buf(&mut self.read)).await.unwrap();
            assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Reads a head and as many bytes as it announces.
    pub(crate) async fn answer(&mut self) -> (String, String) {
        let head = self.until("\r\n\r\n").await;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            let n = soon(self.stream.read_buf(&mut self.read)).await.unwrap();
            assert!(n > 0, "closed inside a body");
        }
        let rest = self.read.split_off(length);
        let body = String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
        (head, body)
    }

    /// Reads a chunk. The last one is empty.
    pub(crate) async fn chunk(&mut self) -> String {
        let size = self.until("\r\n").await;
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        let mut chunk = String::new();
        while chunk.len() < size + 2 {
            chunk += &self.until("\n").await;
        }
        chunk.truncate(size);
        chunk
    }

    /// Reads to the end, which may be a reset.
    pub(crate) async fn rest(&mut self) -> (String, std::io::Result<()>) {
        let end = loop {
            match soon(self.stream.read_buf(&mut self.read)).await {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        (String::from_utf8(std::mem::take(&mut self.read)).unwrap(), end)
    }

    /// Asserts that nothing comes for a while.
    pub(crate) async fn is_silent(&mut self) {
        let silence = time::timeout(Duration::from_millis(50), self.stream.read_buf(&mut self.read)).await;
        assert!(silence.is_err(), "{:?}", String::from_utf8_lossy(&self.read));
        assert_eq!(self.read, b"");
    }
}

/// Asks once, on a connection of its own.
pub(crate) async fn ask(server: &NamerdServer, target: &str) -> (String, String) {
    let mut raw = Raw::connect(server).await;
    raw.get(target).await;
    raw.answer().await
}

/// Sends a request with a body, and returns the head of the answer and its body.
pub(crate) async fn send(server: &NamerdServer, line: &str, fields: &str, body: &str) -> (String, String) {
    let mut raw = Raw::connect(server).await;
    let length = body.len();
    raw.send(&format!("{line} HTTP/1.1\r\nhost: namerd\r\n{fields}content-length: {length}\r\n\r\n{body}"))
        .await;
    raw.answer().await
}

/// Fails instead of waiting for ever.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    time::timeout(Duration::from_secs(10), future).await.expect("in time")
}
