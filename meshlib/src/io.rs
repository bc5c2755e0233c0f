//! The byte stream of an accepted or opened connection.
//!
//! [`Io`] is a plain socket, a TLS stream or whatever else implements [`Transport`]. A plain socket stays reachable as
//! such ([`Transport::raw`]), so that forwarding can leave the bytes in the kernel; bytes that were read to look at them
//! are kept and read again first. Guards that must live as long as the connection are held by it ([`Io::hold`]) instead
//! of wrapping it, so that they cost the fast path nothing.
//!
//! # Examples
//!
//! A stream of one's own as a connection, which counts as open until it is dropped:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use std::sync::Arc;
//! use meshlib::Io;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let (ours, mut theirs) = tokio::io::duplex(64);
//! let mut io = Io::new(ours);
//! let open = Arc::new(());
//! io.hold(Arc::clone(&open));
//!
//! io.write_all(b"hello").await?;
//! assert_eq!(Arc::strong_count(&open), 2);
//! drop(io);
//!
//! let mut said = String::new();
//! theirs.read_to_string(&mut said).await?;
//! assert_eq!(said, "hello");
//! assert_eq!(Arc::strong_count(&open), 1);
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::io;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio_rustls::client;
use tokio_rustls::server;

pub mod sniff;

/// Who goes away sooner after asking was not left without an answer.
pub(crate) const TIME_TO_ANSWER: Duration = Duration::from_secs(1);

/// Is told how a peer does while bytes are forwarded to it.
pub trait PeerStats: Send + Sync {
    /// One answer came this long after what asked for it.
    fn answered(&self, took: Duration);

    /// The peer broke the connection, which was in use. Default: nothing.
    fn broke(&self, _error: &io::Error) {}

    /// The peer was asked over a connection and has sent no byte, as [`Event::Unanswered`](crate::observe::Event::Unanswered)
    /// is told. Once per connection. Default: nothing.
    fn unanswered(&self) {}

    /// Of how many answers over one connection one is to be recorded. The first always is. Default: 1, all are.
    fn one_in(&self) -> u32 {
        1
    }
}

/// A byte stream between two peers.
///
/// Implement it for a stream of your own to use it wherever meshlib takes an [`Io`]:
/// `Io::new(stream)`. A wrapper that does not change bytes forwards [`raw`](Self::raw) to what it wraps.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The socket beneath, if the bytes of this stream are the bytes of a socket.
    fn raw(&mut self) -> Option<Raw<'_>> {
        None
    }

    /// Who wants to know how fast this peer answers. Default: nobody.
    fn peer_stats(&self) -> Option<Arc<dyn PeerStats>> {
        None
    }
}

impl Transport for TcpStream {
    fn raw(&mut self) -> Option<Raw<'_>> {
        Some(Raw { unread: None, wire: Wire::Plain(self) })
    }
}

/// The parts beneath a stream, for code that moves bytes without its help.
#[derive(Debug)]
#[non_exhaustive]
pub struct Raw<'a> {
    /// Bytes that were taken from the socket already and come first.
    pub unread: Option<&'a mut Bytes>,
    /// How the bytes travel.
    pub wire: Wire<'a>,
}

/// How the bytes of a stream travel.
#[non_exhaustive]
pub enum Wire<'a> {
    /// As they are, through a socket.
    Plain(&'a mut TcpStream),
    /// Encrypted by rustls, as the server side of a connection.
    TlsServer(&'a mut TcpStream, &'a mut rustls::ServerConnection),
    /// Encrypted by rustls, as the client side of a connection.
    TlsClient(&'a mut TcpStream, &'a mut rustls::ClientConnection),
}

impl fmt::Debug for Wire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::TlsServer(..) => "TlsServer",
            Self::TlsClient(..) => "TlsClient",
        })
    }
}

/// A connection's bytes.
///
/// Dropping it closes the connection and then drops what it [holds](Self::hold).
pub struct Io {
    kind: Kind,
    held: Vec<Box<dyn Send>>,
    peer_stats: Option<Arc<dyn PeerStats>>,
}

enum Kind {
    Tcp(Tcp),
    TlsServer(Box<server::TlsStream<Tcp>>),
    TlsClient(Box<client::TlsStream<Tcp>>),
    /// With the application protocol of its handshake, if it had one.
    Other(Box<dyn Transport>, TlsStatus, Option<Box<[u8]>>),
}

/// Whether and by whom the bytes of an [`Io`] are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsStatus {
    /// They are not encrypted by us.
    None,
    /// We were the server of the handshake.
    Server,
    /// We were the client of the handshake.
    Client,
}

impl Io {
    /// Wraps a stream of another kind.
    pub fn new(transport: impl Transport) -> Self {
        Self::from(Kind::Other(Box::new(transport), TlsStatus::None, None))
    }

    /// A plain socket from which `unread` was taken already; it is read again first.
    pub fn with_unread(stream: TcpStream, unread: Bytes) -> Self {
        Self::from(Kind::Tcp(Tcp { stream, unread }))
    }

    pub(crate) fn tls_server(stream: server::TlsStream<Tcp>) -> Self {
        Self::from(Kind::TlsServer(Box::new(stream)))
    }

    pub(crate) fn tls_client(stream: client::TlsStream<Tcp>) -> Self {
        Self::from(Kind::TlsClient(Box::new(stream)))
    }

    pub(crate) fn tls_over(transport: impl Transport, status: TlsStatus, alpn: Option<Box<[u8]>>) -> Self {
        Self::from(Kind::Other(Box::new(transport), status, alpn))
    }

    /// Keeps a value until the connection is closed.
    pub fn hold(&mut self, guard: impl Send + 'static) {
        // Most hold one thing, and grown by itself the list would begin with room for four.
        self.held.reserve_exact(1);
        self.held.push(Box::new(guard));
    }

    /// Reports how fast the peer answers while this connection is [forwarded](crate::forward()) as the server's.
    pub fn set_peer_stats(&mut self, stats: Option<Arc<dyn PeerStats>>) {
        self.peer_stats = stats;
    }

    /// How this very connection is encrypted.
    pub fn tls(&self) -> TlsStatus {
        match &self.kind {
            Kind::Tcp(_) => TlsStatus::None,
            Kind::TlsServer(_) => TlsStatus::Server,
            Kind::TlsClient(_) => TlsStatus::Client,
            Kind::Other(_, status, _) => *status,
        }
    }

    /// The application protocol that the TLS handshake of this connection agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Tcp(_) => None,
            Kind::TlsServer(tls) => tls.get_ref().1.alpn_protocol(),
            Kind::TlsClient(tls) => tls.get_ref().1.alpn_protocol(),
            Kind::Other(_, _, alpn) => alpn.as_deref(),
        }
    }

    /// The address of the other end, where the stream is a socket or TLS over one.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.socket().and_then(|socket| socket.peer_addr().ok())
    }

    /// The address of this end, where the stream is a socket or TLS over one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket().and_then(|socket| socket.local_addr().ok())
    }

    /// The socket beneath, TLS or not.
    pub fn socket(&self) -> Option<&TcpStream> {
        match &self.kind {
            Kind::Tcp(tcp) => Some(&tcp.stream),
            Kind::TlsServer(tls) => Some(&tls.get_ref().0.stream),
            Kind::TlsClient(tls) => Some(&tls.get_ref().0.stream),
            Kind::Other(..) => None,
        }
    }

    /// Takes the plain socket out, with the bytes that were read from it already.
    ///
    /// What the connection [holds](Self::hold) is dropped.
    ///
    /// # Errors
    ///
    /// The stream itself, if it is not a plain socket.
    pub fn into_tcp(self) -> Result<(TcpStream, Bytes), Self> {
        match self.kind {
            Kind::Tcp(tcp) => Ok((tcp.stream, tcp.unread)),
            _ => Err(self),
        }
    }

    /// Takes the plain socket out together with what must outlive it.
    pub(crate) fn into_parts(self) -> Result<(Tcp, Vec<Box<dyn Send>>), Self> {
        match self.kind {
            Kind::Tcp(tcp) => Ok((tcp, self.held)),
            _ => Err(self),
        }
    }

    /// Lets this stream hold what another held.
    pub(crate) fn holding(mut self, held: Vec<Box<dyn Send>>) -> Self {
        self.held = held;
        self
    }

    /// The stream with bytes in front that were read from it: they are read again first.
    pub(crate) fn replaying(self, read: BytesMut) -> Self {
        if read.is_empty() {
            return self;
        }
        let read = read.freeze();
        match self.into_parts() {
            Ok((tcp, held)) => {
                // What is still unread comes after what was read.
                let unread = if tcp.unread.is_empty() { read } else { [read, tcp.unread].concat().into() };
                Self::with_unread(tcp.stream, unread).holding(held)
            }
            Err(io) => Self::new(Prefixed::new(read, io)),
        }
    }

    /// Moves a plain socket to the runtime this is called in, which from then on is woken for it. Anything else stays
    /// with the runtime it came from.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`](crate::Error) if the runtime cannot take it.
    pub(crate) fn rehome(self) -> Result<Self, crate::Error> {
        let Self { kind, held, peer_stats } = self;
        let kind = match kind {
            Kind::Tcp(Tcp { stream, unread }) => {
                let addr = stream.peer_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
                let moved = stream.into_std().and_then(TcpStream::from_std);
                let stream = moved.map_err(|source| crate::Error::Connect { addr, source })?;
                Kind::Tcp(Tcp { stream, unread })
            }
            kind => kind,
        };
        Ok(Self { kind, held, peer_stats })
    }

    /// Makes closing the connection a reset, for a peer that must learn that the other side broke.
    pub fn reset_on_close(&self) {
        if let Some(socket) = self.socket() {
            // A socket that is gone already needs no reset.
            let _ = socket.set_zero_linger();
        }
    }

    fn stream(&mut self) -> Pin<&mut dyn Transport> {
        match &mut self.kind {
            Kind::Tcp(tcp) => Pin::new(tcp),
            Kind::TlsServer(tls) => Pin::new(tls.as_mut()),
            Kind::TlsClient(tls) => Pin::new(tls.as_mut()),
            Kind::Other(other, ..) => Pin::new(other.as_mut()),
        }
    }
}

impl Transport for Io {
    fn raw(&mut self) -> Option<Raw<'_>> {
        match &mut self.kind {
            Kind::Tcp(tcp) => tcp.raw(),
            Kind::TlsServer(tls) => tls.raw(),
            Kind::TlsClient(tls) => tls.raw(),
            Kind::Other(other, ..) => other.raw(),
        }
    }

    fn peer_stats(&self) -> Option<Arc<dyn PeerStats>> {
        self.peer_stats.clone()
    }
}

impl From<TcpStream> for Io {
    fn from(stream: TcpStream) -> Self {
        Self::with_unread(stream, Bytes::new())
    }
}

impl From<Kind> for Io {
    fn from(kind: Kind) -> Self {
        Self { kind, held: Vec::new(), peer_stats: None }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            Kind::Tcp(tcp) => tcp.is_write_vectored(),
            Kind::TlsServer(tls) => tls.is_write_vectored(),
            Kind::TlsClient(tls) => tls.is_write_vectored(),
            Kind::Other(other, ..) => other.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("tls", &self.tls())
            .field("peer", &self.peer_addr())
            .finish_non_exhaustive()
    }
}

/// A socket with bytes that were read from it and must be read again.
pub(crate) struct Tcp {
    pub(crate) stream: TcpStream,
    pub(crate) unread: Bytes,
}

impl Transport for Tcp {
    fn raw(&mut self) -> Option<Raw<'_>> {
        Some(Raw { unread: Some(&mut self.unread), wire: Wire::Plain(&mut self.stream) })
    }
}

impl Transport for server::TlsStream<Tcp> {
    fn raw(&mut self) -> Option<Raw<'_>> {
        let (tcp, tls) = self.get_mut();
        Some(Raw { unread: Some(&mut tcp.unread), wire: Wire::TlsServer(&mut tcp.stream, tls) })
    }
}

impl Transport for client::TlsStream<Tcp> {
    fn raw(&mut self) -> Option<Raw<'_>> {
        let (tcp, tls) = self.get_mut();
        Some(Raw { unread: Some(&mut tcp.unread), wire: Wire::TlsClient(&mut tcp.stream, tls) })
    }
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn raw(&mut self) -> Option<Raw<'_>> {
        (**self).raw()
    }

    fn peer_stats(&self) -> Option<Arc<dyn PeerStats>> {
        (**self).peer_stats()
    }
}

impl Transport for tokio::io::DuplexStream {}
impl Transport for server::TlsStream<Io> {}
impl Transport for client::TlsStream<Io> {}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if replay(&mut self.unread, buf) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        if len > GATHERED {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        }
        // send(2) costs less than writev(2), and copying so little costs nothing.
        let (mut gathered, mut at) = ([0; GATHERED], 0);
        for buf in bufs {
            gathered[at..at + buf.len()].copy_from_slice(buf);
            at += buf.len();
        }
        Pin::new(&mut self.stream).poll_write(cx, &gathered[..at])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Most bytes that are put together instead of being written in parts.
const GATHERED: usize = 1024;

/// A stream of which the beginning was read already.
pub(crate) struct Prefixed<T> {
    prefix: Bytes,
    inner: T,
}

impl<T> Prefixed<T> {
    pub(crate) fn new(prefix: Bytes, inner: T) -> Self {
        Self { prefix, inner }
    }
}

impl<T: Transport> Transport for Prefixed<T> {
    fn peer_stats(&self) -> Option<Arc<dyn PeerStats>> {
        self.inner.peer_stats()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if replay(&mut self.prefix, buf) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Gives out bytes that were read before; false if there are none left.
fn replay(unread: &mut Bytes, buf: &mut ReadBuf<'_>) -> bool {
    let n = unread.len().min(buf.remaining());
    buf.put_slice(&unread[..n]);
    unread.advance(n);
    n > 0
}
