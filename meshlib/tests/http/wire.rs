//! One end of a connection whose bytes the test writes and reads itself.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::time;

/// What must happen at all must happen within this.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Waits for what must happen soon.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    time::timeout(SOON, what).await.expect("it happens soon")
}

/// A connection, and what was read from it and not looked at yet.
pub(crate) struct Wire<T = TcpStream> {
    pub(crate) io: T,
    unread: Vec<u8>,
}

/// An answer as a client of HTTP/1.1 sees it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::new(soon(TcpStream::connect(addr)).await.unwrap())
    }

    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        Self::new(soon(listener.accept()).await.unwrap().0)
    }

    /// Closes with a reset instead of an end.
    pub(crate) fn reset(self) {
        self.io.set_zero_linger().unwrap();
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire<T> {
    pub(crate) fn new(io: T) -> Self {
        Self { io, unread: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// For bytes that the peer may refuse to take.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        soon(self.io.write_all(bytes.as_ref())).await?;
        soon(self.io.flush()).await
    }

    /// Reads more. False at the end; a reset is one too.
    async fn more(&mut self) -> bool {
        matches!(soon(self.io.read_buf(&mut self.unread)).await, Ok(n) if n > 0)
    }

    /// The bytes up to and with this mark; `None` if the peer ends before.
    pub(crate) async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|window| window == mark) {
                return Some(self.unread.drain(..at + mark.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The head of a message, with its empty line.
    pub(crate) async fn head(&mut self) -> String {
        let Some(head) = self.until(b"\r\n\r\n").await else {
            panic!("no head, but {:?}", String::from_utf8_lossy(&self.unread))
        };
        String::from_utf8_lossy(&head).into_owned()
    }

    /// This many bytes; `None` if the peer ends before.
    pub(crate) async fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.unread.len() < n {
            if !self.more().await {
                return None;
            }
        }
        Some(self.unread.drain(..n).collect())
    }

    /// The next bytes are these.
    pub(crate) async fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let got = self.take(bytes.len()).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(got.as_deref().map(text), Some(text(bytes)), "unread: {}", text(&self.unread));
    }

    /// Everything up to the end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.unread)
    }

    /// The next answer. Panics if it is not complete.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await.expect("the answer is complete")
    }

    /// The next answer to a request of this method; an error if it breaks off.
    pub(crate) async fn answer_to(&mut self, method: &str) -> Result<Answer, Answer> {
        let head = self.head().await;
        let status: u16 = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head: head.to_lowercase(), body: Vec::new() };
        let without_body = method == "HEAD" || matches!(status, 100..=199 | 204 | 304);
        if without_body {
            return Ok(answer);
        }
        if let Some(n) = field(&answer.head, "content-length") {
            let n = n.parse().unwrap();
            return match self.take(n).await {
                Some(body) => Ok(Answer { body, ..answer }),
                None => Err(answer),
            };
        }
        if field(&answer.head, "transfer-encoding").is_none() {
            answer.body = self.rest().await;
            return Ok(answer);
        }
        while let Some(chunk) = self.chunk().await {
            if chunk.is_empty() {
                return Ok(answer);
            }
            answer.body.extend(chunk);
        }
        Err(answer)
    }

    /// The data of the next chunk, empty for the last one, which must have no trailers; `None` if it breaks off.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.until(b"\r\n").await?;
        let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim_end(), 16).unwrap();
        let mut data = self.take(size + 2).await?;
        assert!(data.ends_with(b"\r\n"), "{data:?}");
        data.truncate(size);
        Some(data)
    }
}

/// The value of a field of a head in lower case.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}
