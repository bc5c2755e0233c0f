//! Servers that say whom they see, and clients that ask.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use meshlib::test_util::netns::Namespace;
use socket2::Domain;
use socket2::SockRef;
use socket2::Socket;
use socket2::Type;

use crate::lines::SOON;

/// How long to wait for what is expected not to come.
pub(crate) const NEVER: Duration = Duration::from_millis(1500);

/// A server that tells each client at once whom it sees and where, then sends back what it gets.
///
/// The greeting is `PEER LOCAL` on a line. Dropping the server closes its listening socket.
pub(crate) struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one that ends a connection when the client does.
    pub(crate) fn start(namespace: &Namespace, addr: impl Into<SocketAddr>) -> Self {
        Self::start_with(namespace, addr, greet_and_echo)
    }

    /// Starts one that ends a connection when it has said what it sees.
    pub(crate) fn start_brief(namespace: &Namespace, addr: impl Into<SocketAddr>) -> Self {
        Self::start_with(namespace, addr, |stream, peer| greet(&stream, peer))
    }

    fn start_with(
        namespace: &Namespace,
        addr: impl Into<SocketAddr>,
        serve: fn(TcpStream, SocketAddr) -> io::Result<()>,
    ) -> Self {
        let addr = addr.into();
        let listener = namespace.run(move || TcpListener::bind(addr)).unwrap();
        let accepting = listener.try_clone().unwrap();
        // Ends when the listening socket is shut down.
        let thread = thread::spawn(move || {
            while let Ok((stream, peer)) = accepting.accept() {
                // Ends with the connection.
                thread::spawn(move || {
                    // How a connection ends is the client's to judge.
                    let _ = serve(stream, peer);
                });
            }
        });
        Self { listener, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        SockRef::from(&self.listener).shutdown(Shutdown::Both).unwrap();
        let _ = self.thread.take().unwrap().join();
    }
}

fn greet(mut stream: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A socket of both families shows IPv4 as IPv6.
    let [peer, local] =
        [peer, stream.local_addr()?].map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()));
    stream.write_all(format!("{peer} {local}\n").as_bytes())
}

fn greet_and_echo(mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    greet(&stream, peer)?;
    io::copy(&mut stream.try_clone()?, &mut stream)?;
    stream.shutdown(Shutdown::Write)
}

/// What a client and the server it reached know about their connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The client's own address.
    pub(crate) client: SocketAddr,
    /// The server's peer.
    pub(crate) peer: SocketAddr,
    /// The server's own address.
    pub(crate) server: SocketAddr,
}

impl Seen {
    /// Whether the server sees the client's address and port.
    pub(crate) fn is_client(&self) -> bool {
        self.peer == self.client
    }

    /// Whether the server sees the client's address with another port.
    pub(crate) fn is_client_ip(&self) -> bool {
        self.peer.ip() == self.client.ip() && self.peer != self.client
    }
}

/// An open connection to a [`Server`].
pub(crate) struct Talk {
    input: BufReader<TcpStream>,
    /// What was learned from the greeting.
    pub(crate) seen: Seen,
}

impl Talk {
    /// Connects from an address and port (0: any) and hears the greeting.
    pub(crate) fn open(
        namespace: &Namespace,
        from: impl Into<SocketAddr>,
        to: impl Into<SocketAddr>,
    ) -> io::Result<Self> {
        Self::begin(connect(namespace, from, to, SOON)?)
    }

    /// Hears the greeting on a connection.
    pub(crate) fn begin(stream: TcpStream) -> io::Result<Self> {
        let client = stream.local_addr()?;
        let mut input = BufReader::new(stream);
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let addrs = line
            .trim_end()
            .split_once(' ')
            .and_then(|(peer, server)| Some((peer.parse().ok()?, server.parse().ok()?)));
        let (peer, server) = addrs.unwrap_or_else(|| panic!("a strange greeting: {line:?}"));
        Ok(Self { input, seen: Seen { client, peer, server } })
    }

    /// Sends bytes and reads back as many.
    pub(crate) fn echo(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.input.get_mut().write_all(bytes)?;
        let mut answer = vec![0; bytes.len()];
        self.input.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// Sends so many bytes that they do not fit between the two ends, while it reads them back.
    pub(crate) fn echo_bulk(&mut self, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut output = self.input.get_ref().try_clone()?;
        let mut answer = vec![0; bytes.len()];
        let sender = thread::spawn(move || output.write_all(&bytes));
        self.input.read_exact(&mut answer)?;
        sender.join().unwrap()?;
        Ok(answer)
    }

    /// Reads all that still comes, then ends the connection.
    pub(crate) fn end(mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.input.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Sends bytes, ends the sending side, and reads all that comes back.
    pub(crate) fn echo_to_end(mut self, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut output = self.input.get_ref().try_clone()?;
        let sender = thread::spawn(move || {
            output.write_all(&bytes)?;
            output.shutdown(Shutdown::Write)
        });
        let mut answer = Vec::new();
        self.input.read_to_end(&mut answer)?;
        sender.join().unwrap()?;
        Ok(answer)
    }
}

/// Connects, checks that bytes come back and that both sides can end, and returns what was seen.
pub(crate) fn visit(
    namespace: &Namespace,
    from: impl Into<SocketAddr>,
    to: impl Into<SocketAddr>,
) -> io::Result<Seen> {
    let talk = Talk::open(namespace, from, to)?;
    let seen = talk.seen;
    assert_eq!(talk.echo_to_end(b"to and fro".to_vec())?, b"to and fro");
    Ok(seen)
}

/// A client that gives up early: for what is expected to hang.
pub(crate) fn visit_briefly(
    namespace: &Namespace,
    from: impl Into<SocketAddr>,
    to: impl Into<SocketAddr>,
) -> io::Result<Seen> {
    let stream = connect(namespace, from, to, NEVER)?;
    Ok(Talk::begin(stream)?.seen)
}

/// A connection that neither takes longer to open, nor waits longer for bytes, than this.
pub(crate) fn connect(
    namespace: &Namespace,
    from: impl Into<SocketAddr>,
    to: impl Into<SocketAddr>,
    within: Duration,
) -> io::Result<TcpStream> {
    let (from, to) = (from.into(), to.into());
    let socket = namespace.run(move || client_socket(from))?;
    socket.connect_timeout(&to.into(), within)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    Ok(stream)
}

fn client_socket(from: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
    // So that a port can be had that a connection before this one has used.
    socket.set_reuse_address(true)?;
    if !from.ip().is_unspecified() || from.port() != 0 {
        socket.bind(&from.into())?;
    }
    Ok(socket)
}

/// Any port of this address.
pub(crate) fn any(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 0)
}

/// Whether the other end, or the kernel on its behalf, said no, rather than nothing.
pub(crate) fn is_refused<T>(result: &io::Result<T>) -> bool {
    use io::ErrorKind::ConnectionRefused;
    use io::ErrorKind::ConnectionReset;
    result.as_ref().is_err_and(|error| matches!(error.kind(), ConnectionRefused | ConnectionReset))
}

/// Whether nothing came for as long as the client waited.
pub(crate) fn is_hanging<T>(result: &io::Result<T>) -> bool {
    use io::ErrorKind::TimedOut;
    use io::ErrorKind::WouldBlock;
    result.as_ref().is_err_and(|error| matches!(error.kind(), TimedOut | WouldBlock))
}
