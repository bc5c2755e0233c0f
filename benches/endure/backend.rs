//! A server behind the proxy, which may stop listening and serve its connections to their end.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use benches::counters;
use benches::wire::MESSAGE;
use futures::FutureExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task;
use tokio::time;

/// A listening socket. Dropping it closes the socket; its connections go on.
#[derive(Debug)]
pub(crate) struct Backend {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// How its connections ended.
    pub(crate) ends: Arc<Ends>,
    /// Ends accepting when it is dropped.
    _accepting: oneshot::Sender<()>,
}

/// How connections ended, as the backend saw it.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Accepted at all.
    pub(crate) accepted: AtomicU64,
    /// Read to a proper end.
    pub(crate) clean: AtomicU64,
    /// Reset by the other side.
    pub(crate) reset: AtomicU64,
}

/// What the backend does with a connection, told by the first byte of the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Sends everything back.
    Echo,
    /// Sends the first message back and closes.
    Close,
    /// Resets the connection.
    Reset,
    /// Sends the first message back once the client has ended.
    AnswerAtEnd,
    /// Sends the first message back, ends, and reads one more message.
    HalfClose,
}

impl Manner {
    /// The first message.
    pub(crate) fn message(self) -> [u8; MESSAGE] {
        let byte = match self {
            Self::Echo => b'e',
            Self::Close => b'c',
            Self::Reset => b'r',
            Self::AnswerAtEnd => b'a',
            Self::HalfClose => b'h',
        };
        [byte; MESSAGE]
    }

    /// Understands a first message; what is unknown is echoed.
    fn of(message: &[u8; MESSAGE]) -> Self {
        match message[0] {
            b'c' => Self::Close,
            b'r' => Self::Reset,
            b'a' => Self::AnswerAtEnd,
            b'h' => Self::HalfClose,
            _ => Self::Echo,
        }
    }
}

impl Backend {
    /// Listens at a free port. Must be called in a runtime.
    pub(crate) fn start(ip: IpAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((ip, 0).into())?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        let ends = Arc::new(Ends::default());
        let (accepting, stopped) = oneshot::channel();
        tokio::spawn(accept(listener, Arc::clone(&ends), stopped));
        Ok(Self { addr, ends, _accepting: accepting })
    }
}

async fn accept(listener: TcpListener, ends: Arc<Ends>, mut stopped: oneshot::Receiver<()>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        match accepted {
            Ok((socket, _)) => attend(socket, &ends),
            // Only a lack of descriptors fails here; the clients report the missing answers.
            Err(_) => time::sleep(Duration::from_millis(1)).await,
        }
    }
    // To close the socket resets who waits in the kernel's queue, which is none of the program's faults.
    while let Some(Ok((socket, _))) = task::unconstrained(listener.accept()).now_or_never() {
        attend(socket, &ends);
    }
}

/// Serves a connection in a task that ends with it, and counts how that was.
fn attend(socket: TcpStream, ends: &Arc<Ends>) {
    counters::add(&ends.accepted, 1);
    let ends = Arc::clone(ends);
    tokio::spawn(async move {
        match serve(socket).await {
            Ok(()) => counters::add(&ends.clean, 1),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                counters::add(&ends.reset, 1);
            }
            // Counted nowhere, which is what the runs look for.
            Err(_) => {}
        }
    });
}

async fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    // A client may come and go without a word.
    if socket.read(&mut message[..1]).await? == 0 {
        return Ok(());
    }
    socket.read_exact(&mut message[1..]).await?;
    match Manner::of(&message) {
        Manner::Echo => {
            socket.write_all(&message).await?;
            let mut buf = vec![0; 1024];
            loop {
                match socket.read(&mut buf).await? {
                    0 => return Ok(()),
                    n => socket.write_all(&buf[..n]).await?,
                }
            }
        }
        Manner::Close => socket.write_all(&message).await,
        Manner::Reset => socket.set_zero_linger(),
        Manner::AnswerAtEnd => {
            expect_end(&mut socket).await?;
            socket.write_all(&message).await
        }
        Manner::HalfClose => {
            socket.write_all(&message).await?;
            socket.shutdown().await?;
            socket.read_exact(&mut message).await?;
            expect_end(&mut socket).await
        }
    }
}

/// Reads the end, and nothing before it.
pub(crate) async fn expect_end(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<()> {
    match io.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err(io::Error::other("bytes instead of the end")),
    }
}

/// Connections the kernel keeps until they are accepted; bursts of connects are part of the work.
const BACKLOG: u32 = 4096;
