//! A backend that sends back what it gets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustls::ServerConfig;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A server that sends back what it gets and closes its side when the client has closed its own.
///
/// Dropping it closes the listening socket and every connection, as soon as the runtime gets to it; [`stop`](Self::stop)
/// waits for that.
#[derive(Debug)]
#[must_use = "dropping it stops the server"]
pub struct Echo {
    addr: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl Echo {
    /// Starts one on a free port of 127.0.0.1, in plaintext.
    ///
    /// # Panics
    ///
    /// If no socket can be had.
    pub async fn start() -> Self {
        EchoOptions::default().start().await.expect("a free port")
    }

    /// Starts one in TLS, on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// If no socket can be had.
    pub async fn start_tls(config: Arc<ServerConfig>) -> Self {
        let options = EchoOptions::default().with_tls(config);
        options.start().await.expect("a free port")
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections it has accepted so far.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// Closes the listening socket and every connection, and waits until that is done.
    pub async fn stop(mut self) {
        self.task.abort();
        // An error says that it was aborted, which is what is waited for.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What kind of [`Echo`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EchoOptions {
    /// Where to listen. Default: a free port of 127.0.0.1.
    pub addr: SocketAddr,
    /// How to be a TLS server. Default: plaintext.
    pub tls: Option<Arc<ServerConfig>>,
    /// What every client is told first. Default: nothing.
    pub greeting: Bytes,
}

impl Default for EchoOptions {
    fn default() -> Self {
        Self { addr: ([127, 0, 0, 1], 0).into(), tls: None, greeting: Bytes::new() }
    }
}

impl EchoOptions {
    /// Sets where to listen.
    #[must_use]
    pub fn with_addr(mut self, addr: SocketAddr) -> Self {
        self.addr = addr;
        self
    }

    /// Makes it a TLS server.
    #[must_use]
    pub fn with_tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Sets what every client is told first.
    #[must_use]
    pub fn with_greeting(mut self, greeting: impl Into<Bytes>) -> Self {
        self.greeting = greeting.into();
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    ///
    /// What the operating system says, for example that the address is taken.
    pub async fn start(self) -> io::Result<Echo> {
        let listener = TcpListener::bind(self.addr).await?;
        let addr = listener.local_addr()?;
        let counts = Arc::<Counts>::default();
        let task = tokio::spawn(serve(listener, self, Arc::clone(&counts)));
        Ok(Echo { addr, counts, task })
    }
}

/// Ends by being aborted, and its connections with it.
async fn serve(listener: TcpListener, options: EchoOptions, counts: Arc<Counts>) {
    let options = Arc::new(options);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // A failed accept is of one connection; a test that runs out of descriptors fails on its own.
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                counts.accepted.fetch_add(1, Ordering::SeqCst);
                let open = Open::new(Arc::clone(&counts));
                let options = Arc::clone(&options);
                connections.spawn(async move {
                    let _open = open;
                    // The client may reset the connection, or speak no TLS; neither is the server's concern.
                    let _ = connection(stream, &options).await;
                });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, options: &EchoOptions) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match &options.tls {
        Some(config) => {
            let stream = TlsAcceptor::from(Arc::clone(config)).accept(stream).await?;
            send_back(stream, &options.greeting).await
        }
        None => send_back(stream, &options.greeting).await,
    }
}

async fn send_back(stream: impl AsyncRead + AsyncWrite, greeting: &[u8]) -> io::Result<()> {
    let (mut input, mut output) = tokio::io::split(stream);
    output.write_all(greeting).await?;
    output.flush().await?;
    tokio::io::copy(&mut input, &mut output).await?;
    output.shutdown().await
}

/// Counts a connection as open while it lives.
struct Open(Arc<Counts>);

impl Open {
    fn new(counts: Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Ordering::SeqCst);
        Self(counts)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::super::TestCa;
    use super::super::echo;
    use super::super::echo_to_end;
    use super::*;

    #[tokio::test]
    async fn it_sends_back_after_its_greeting_and_counts() {
        let options = EchoOptions::default().with_greeting("hello");
        let server = options.start().await.unwrap();
        let mut client = TcpStream::connect(server.addr()).await.unwrap();

        assert_eq!(echo_to_end(&mut client, b" you").await.unwrap(), b"hello you");
        assert_eq!(server.accepted(), 1);
    }

    #[tokio::test]
    async fn it_speaks_tls() {
        let ca = TestCa::new();
        let server = Echo::start_tls(ca.server_config(["localhost"])).await;
        let tls = ca.client_tls("localhost");
        let client = TcpStream::connect(server.addr()).await.unwrap();
        let mut client =
            tokio_rustls::TlsConnector::from(tls.config).connect(tls.server_name, client).await.unwrap();

        assert_eq!(echo(&mut client, b"secret").await.unwrap(), b"secret");
    }

    #[tokio::test]
    async fn a_stopped_one_refuses_and_its_port_can_be_had_again() {
        let server = Echo::start().await;
        let addr = server.addr();
        let mut client = TcpStream::connect(addr).await.unwrap();
        assert_eq!(echo(&mut client, b"1").await.unwrap(), b"1");

        server.stop().await;

        assert!(TcpStream::connect(addr).await.is_err());
        assert!(echo(&mut client, b"2").await.is_err());
        let again = EchoOptions::default().with_addr(addr).start().await.unwrap();
        assert_eq!(again.addr(), addr);
    }
}
