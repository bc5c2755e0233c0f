//! One connection of the load or the backend, plain or TLS.

use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::counters;

/// Size of a small message in bytes; also of the first message of every connection, which tells the backend
/// what to do.
pub const MESSAGE: usize = 64;
/// Size of one bulk write or read.
pub const CHUNK: usize = 256 * 1024;

/// What the backend does with a connection, told by the first byte of the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Send everything back, the first message included.
    Echo,
    /// Send as much as the connection takes.
    Source,
    /// Read and throw away.
    Sink,
    /// Throw away what comes on the socket without reading or decrypting it.
    SinkRaw,
}

impl Wish {
    /// The first message.
    pub fn message(self) -> [u8; MESSAGE] {
        let byte = match self {
            Self::Echo => b'e',
            Self::Source => b'd',
            Self::Sink => b'u',
            Self::SinkRaw => b'r',
        };
        [byte; MESSAGE]
    }

    /// Understands a first message; what is unknown is echoed.
    pub fn of(message: &[u8; MESSAGE]) -> Self {
        match message[0] {
            b'd' => Self::Source,
            b'u' => Self::Sink,
            b'r' => Self::SinkRaw,
            _ => Self::Echo,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Wire {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS on TCP. Large, so it is boxed.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Wraps an established TLS stream. Its buffer takes a whole chunk, so that a chunk is one system call.
    pub fn tls(stream: impl Into<TlsStream<TcpStream>>) -> Self {
        let mut stream = Box::new(stream.into());
        match &mut *stream {
            TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(Some(4 * CHUNK)),
            TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(Some(4 * CHUNK)),
        }
        Self::Tls(stream)
    }

    /// The socket, forgetting any TLS session.
    pub fn into_socket(self) -> TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => match *stream {
                TlsStream::Client(stream) => stream.into_inner().0,
                TlsStream::Server(stream) => stream.into_inner().0,
            },
        }
    }

    /// Writes all of `message` and pushes it out.
    pub async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.write_all(message).await?;
        self.flush().await
    }

    /// Sends one message and waits for as many bytes to come back.
    pub async fn exchange(&mut self) -> io::Result<()> {
        self.send(&Wish::Echo.message()).await?;
        let mut answer = [0; MESSAGE];
        self.read_exact(&mut answer).await?;
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// Writes a fixed pattern until the connection ends, adding to `sent`.
pub async fn pour(wire: &mut Wire, sent: &AtomicU64) -> io::Result<()> {
    let pattern: Vec<u8> = (0..CHUNK).map(|i| (i % 251) as u8).collect();
    let mut at = 0;
    loop {
        let n = wire.write(&pattern[at..]).await?;
        if n == 0 {
            return Ok(());
        }
        at = (at + n) % CHUNK;
        counters::add(sent, n as u64);
    }
}

/// Reads until the end, adding to `received`.
pub async fn drink(wire: &mut Wire, received: &AtomicU64) -> io::Result<()> {
    let mut buf = vec![0; CHUNK];
    loop {
        match wire.read(&mut buf).await? {
            0 => return Ok(()),
            n => counters::add(received, n as u64),
        }
    }
}

/// Drops bytes inside the kernel until the end, adding to `received`: with `MSG_TRUNC` a TCP receive copies
/// nothing (tcp(7)), so that the receiver costs next to nothing and the proxy is the limit.
pub async fn discard(socket: &TcpStream, received: &AtomicU64) -> io::Result<()> {
    // Never written to, so its pages are never touched.
    let mut buf = vec![0; 4 * CHUNK];
    loop {
        socket.readable().await?;
        let drop_bytes = || Ok(rustix::net::recv(socket, buf.as_mut_slice(), RecvFlags::TRUNC)?.1);
        match socket.try_io(Interest::READABLE, drop_bytes) {
            Ok(0) => return Ok(()),
            Ok(n) => counters::add(received, n as u64),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn wishes_survive_the_wire() {
        for wish in [Wish::Echo, Wish::Source, Wish::Sink, Wish::SinkRaw] {
            assert_eq!(Wish::of(&wish.message()), wish);
        }
    }

    #[tokio::test]
    async fn discard_counts_every_byte() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let received = AtomicU64::new(0);

        let write = async {
            client.write_all(&vec![1; 3_000_000]).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let (_, done) = tokio::join!(write, discard(&server, &received));

        done.unwrap();
        assert_eq!(counters::read(&received), 3_000_000);
    }
}
