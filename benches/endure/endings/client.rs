//! Connections to the program.

use std::io;
use std::net::SocketAddr;

use benches::tls;
use benches::tls::Identity;
use benches::tls::Sessions;
use benches::wire::MESSAGE;
use benches::wire::Wire;
use rustls::ClientConnection;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::backend::Manner;

/// What the connections of one kind share.
pub(crate) struct Client {
    port: u16,
    tls: TlsConnector,
    /// The first bytes that a TLS client sends.
    hello: Vec<u8>,
}

impl Client {
    /// Clients of the server at `port`.
    pub(crate) fn new(port: u16, identity: &Identity) -> io::Result<Self> {
        let config = identity.client(Sessions::Forget)?;
        let mut hello = Vec::new();
        ClientConnection::new(config.clone(), tls::server_name()?)
            .map_err(io::Error::other)?
            .write_tls(&mut hello)?;
        Ok(Self { port, tls: config.into(), hello })
    }

    /// Connects. The n-th connection goes to one of eight addresses of the server, which gives each its own ports.
    pub(crate) async fn connect(&self, n: usize) -> io::Result<TcpStream> {
        let addr = SocketAddr::from(([127, 0, 0, 2 + (n % 8) as u8], self.port));
        let socket = TcpStream::connect(addr).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    /// Connects with TLS.
    pub(crate) async fn connect_tls(&self, n: usize) -> io::Result<Wire> {
        let socket = self.connect(n).await?;
        Ok(Wire::tls(self.tls.connect(tls::server_name()?, socket).await?))
    }

    /// The beginning of a hello, of any length but the whole.
    pub(crate) fn part_of_hello(&self) -> &[u8] {
        &self.hello[..fastrand::usize(1..self.hello.len())]
    }
}

/// Tells the backend what to do and reads the first message back.
pub(crate) async fn exchange(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    manner: Manner,
) -> io::Result<()> {
    let message = manner.message();
    io.write_all(&message).await?;
    io.flush().await?;
    expect_answer(io, manner).await
}

/// Reads the first message back.
pub(crate) async fn expect_answer(io: &mut (impl AsyncRead + Unpin), manner: Manner) -> io::Result<()> {
    let mut answer = [0; MESSAGE];
    io.read_exact(&mut answer).await?;
    if answer == manner.message() { Ok(()) } else { Err(io::Error::other("the answer is not the request")) }
}

/// Reads to the end, which may be a reset: what the connection was closed with does not matter.
pub(crate) async fn expect_closed(io: &mut TcpStream, may_speak: bool) -> io::Result<()> {
    let mut buf = [0; 1024];
    loop {
        match io.read(&mut buf).await {
            Ok(0) => return Ok(()),
            Ok(_) if may_speak => {}
            Ok(_) => return Err(io::Error::other("the program said something of its own")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
