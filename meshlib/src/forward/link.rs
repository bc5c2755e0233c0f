//! One side of a forwarded connection: a socket, rustls over a socket, or any other stream.

use std::io;
use std::io::IoSlice;
use std::io::Read;
use std::io::Write;
use std::ops::Deref;
use std::ops::DerefMut;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Buf;
use bytes::Bytes;
use rustls::ConnectionCommon;
use rustls::SideData;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::buffer;
use super::would_block;
use crate::io::Raw;
use crate::io::Transport;
use crate::io::Wire;

/// A side, taken apart as far as it allows.
pub(super) enum Link<'a> {
    Plain(Plain<'a>),
    TlsServer(Tls<'a, rustls::ServerConnection>),
    TlsClient(Tls<'a, rustls::ClientConnection>),
    Other(&'a mut dyn Transport),
}

impl<'a> Link<'a> {
    pub(super) fn new(transport: &'a mut impl Transport) -> Self {
        // Asked twice because a borrow that is returned in one branch would last for both.
        if transport.raw().is_none() {
            return Self::Other(transport);
        }
        let Some(Raw { unread, wire }) = transport.raw() else {
            unreachable!("it had a raw form a moment ago")
        };
        match wire {
            Wire::Plain(socket) => Self::Plain(Plain { socket, unread }),
            Wire::TlsServer(socket, tls) => Self::TlsServer(Tls::new(Plain { socket, unread }, tls)),
            Wire::TlsClient(socket, tls) => Self::TlsClient(Tls::new(Plain { socket, unread }, tls)),
        }
    }

    /// The socket, if the payload is what travels and nothing that was read before is left.
    #[cfg(target_os = "linux")]
    pub(super) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(plain) if plain.unread.as_ref().is_none_or(|unread| unread.is_empty()) => {
                Some(plain.socket)
            }
            _ => None,
        }
    }

    /// Reads payload: up to `limit` bytes of what the socket has. Zero is the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(plain) => plain.poll_read(cx, &mut buf[..limit]),
            Self::TlsServer(tls) => tls.poll_read(cx, buf, limit),
            Self::TlsClient(tls) => tls.poll_read(cx, buf, limit),
            Self::Other(stream) => {
                let mut buf = ReadBuf::new(&mut buf[..limit]);
                ready!(Pin::new(&mut **stream).poll_read(cx, &mut buf))?;
                Poll::Ready(Ok(buf.filled().len()))
            }
        }
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(plain) => Pin::new(&mut *plain.socket).poll_write(cx, bytes),
            Self::TlsServer(tls) => tls.poll_write(cx, bytes),
            Self::TlsClient(tls) => tls.poll_write(cx, bytes),
            Self::Other(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    /// Sends what was taken and not sent yet.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::TlsServer(tls) => tls.poll_flush(cx),
            Self::TlsClient(tls) => tls.poll_flush(cx),
            Self::Other(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    /// Says that nothing more comes.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(plain) => plain.poll_shutdown(cx),
            Self::TlsServer(tls) => tls.poll_shutdown(cx),
            Self::TlsClient(tls) => tls.poll_shutdown(cx),
            Self::Other(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }

    /// Says that nothing more comes to a peer that has ended too. Its socket is about to be closed, which says the same
    /// as a shutdown with one system call less.
    pub(super) fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::TlsServer(tls) => tls.poll_farewell(cx),
            Self::TlsClient(tls) => tls.poll_farewell(cx),
            Self::Other(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }

    /// Lets the next shutdown close the socket without saying that this is a proper end.
    pub(super) fn withhold_close_notify(&mut self) {
        match self {
            Self::TlsServer(tls) => tls.closing = true,
            Self::TlsClient(tls) => tls.closing = true,
            Self::Plain(_) | Self::Other(_) => {}
        }
    }

    pub(super) fn reset_on_close(&self) {
        let socket = match self {
            Self::Plain(plain) => &*plain.socket,
            Self::TlsServer(tls) => &*tls.plain.socket,
            Self::TlsClient(tls) => &*tls.plain.socket,
            Self::Other(_) => return,
        };
        // A socket that is gone already needs no reset.
        let _ = socket.set_zero_linger();
    }

    /// Whether a TLS peer ended without saying so.
    pub(super) fn was_truncated(&self) -> bool {
        match self {
            Self::TlsServer(tls) => tls.truncated,
            Self::TlsClient(tls) => tls.truncated,
            Self::Plain(_) | Self::Other(_) => false,
        }
    }
}

/// A socket and what was read from it before.
pub(super) struct Plain<'a> {
    socket: &'a mut TcpStream,
    unread: Option<&'a mut Bytes>,
}

impl Plain<'_> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(unread) = self.unread.as_mut().filter(|unread| !unread.is_empty()) {
            let n = unread.len().min(buf.len());
            buf[..n].copy_from_slice(&unread[..n]);
            unread.advance(n);
            if unread.is_empty() {
                **unread = Bytes::new();
            }
            return Poll::Ready(Ok(n));
        }
        // A read that does not fill the buffer clears the readiness, so that no second system call has to find out.
        let mut buf = ReadBuf::new(buf);
        ready!(Pin::new(&mut *self.socket).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut *self.socket).poll_shutdown(cx)) {
            // The peer closed first; there is nobody left to tell.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

/// A rustls connection over a socket, driven without the stream that did the handshake.
pub(super) struct Tls<'a, C> {
    plain: Plain<'a>,
    tls: &'a mut C,
    truncated: bool,
    closing: bool,
}

impl<'a, C, D> Tls<'a, C>
where
    C: Deref<Target = ConnectionCommon<D>> + DerefMut,
    D: SideData,
{
    fn new(plain: Plain<'a>, tls: &'a mut C) -> Self {
        Self { plain, tls, truncated: false, closing: false }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8], limit: usize) -> Poll<io::Result<usize>> {
        let Self { plain, tls, truncated, .. } = self;
        loop {
            // Left by the handshake, or by a record that held more than there was room for.
            match tls.reader().read(buf) {
                Ok(n) => return Poll::Ready(Ok(n)),
                Err(error) if would_block(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    *truncated = true;
                    return Poll::Ready(Ok(0));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            let opened = buffer::with_sealed(limit, |sealed| {
                let n = ready!(plain.poll_read(cx, sealed))?;
                Poll::Ready(open(tls, &sealed[..n], buf))
            });
            let result = ready!(opened);
            if tls.wants_write() {
                // An alert, or the answer to a key update. If the socket is full it goes with the next write.
                let _ = send(tls, plain.socket, cx);
            }
            match result? {
                0 => {}
                n => return Poll::Ready(Ok(n)),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // What was taken before goes out first, so that never more than one buffer waits inside.
        ready!(self.poll_flush(cx))?;
        let n = self.tls.writer().write(bytes)?;
        match send(self.tls, self.plain.socket, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        send(self.tls, self.plain.socket, cx)
    }

    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            self.closing = true;
            self.tls.send_close_notify();
        }
        self.poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_farewell(cx))?;
        self.plain.poll_shutdown(cx)
    }
}

/// Decrypts a buffer; no bytes at all mean that the peer has closed the socket.
fn open<D: SideData>(tls: &mut ConnectionCommon<D>, mut sealed: &[u8], buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        let taken = tls.read_tls(&mut sealed)?;
        tls.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        // The room suffices: payload is shorter than its records, and one unfinished record fits above.
        match tls.reader().read(&mut buf[filled..]) {
            Ok(n) => filled += n,
            Err(error) if would_block(&error) => {}
            // Reported again by the next read, after what came before has been delivered.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(filled),
            Err(error) => return Err(error),
        }
        // After a proper end rustls takes nothing more; what comes behind it is nobody's.
        if sealed.is_empty() || taken == 0 {
            return Ok(filled);
        }
    }
}

/// Sends all records that wait, many per system call.
fn send<D: SideData>(
    tls: &mut ConnectionCommon<D>,
    socket: &TcpStream,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while tls.wants_write() {
        match tls.write_tls(&mut Records(socket)) {
            Ok(_) => {}
            Err(error) if would_block(&error) => ready!(socket.poll_write_ready(cx))?,
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(()))
}

/// Writes records to a socket without waiting.
struct Records<'a>(&'a TcpStream);

impl Write for Records<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
