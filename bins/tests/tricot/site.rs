//! An instance of a site: says who it is, and keeps what it was asked.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// How a site answers.
#[derive(Clone, Default)]
pub(crate) struct SiteOptions {
    /// More fields of each answer, each with its line end.
    pub(crate) fields: String,
    /// The status line's code and text; `200 OK` if empty.
    pub(crate) status: String,
    /// The body; the name of the site if empty.
    pub(crate) body: String,
    /// The certificate to show; without one it speaks no TLS.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// The address to listen on; a free port of `127.0.0.1` if none.
    pub(crate) listen: Option<SocketAddr>,
}

/// A server of HTTP/1.1 at a port of its own. Its port and its connections are closed when this is dropped.
pub(crate) struct Site {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    open: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

struct Shared {
    options: SiteOptions,
    seen: Mutex<Vec<Seen>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The head, up to and with its empty line.
    pub(crate) head: String,
    /// The server name of the TLS handshake.
    pub(crate) server_name: Option<String>,
}

impl Seen {
    /// The values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").filter_map(|line| line.split_once(':'));
        let own = fields.filter(|(own, _)| own.eq_ignore_ascii_case(name));
        own.map(|(_, value)| value.trim()).collect()
    }
}

impl Site {
    /// Answers every request with its name.
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_with(SiteOptions { body: name.into(), ..SiteOptions::default() }).await
    }

    /// Answers as told.
    pub(crate) async fn start_with(options: SiteOptions) -> Self {
        let listen = options.listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        let listener = TcpListener::bind(listen).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { options, seen: Mutex::default() });
        let (open, gate) = watch::channel(true);
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            // Connections end with this task, which ends with the site.
            async move {
                let mut connections = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(connection(stream, Arc::clone(&shared), gate.clone()));
                    while connections.try_join_next().is_some() {}
                }
            }
        });
        Self { addr, shared, open, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// What it was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How often it was asked so far.
    pub(crate) fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// The last request.
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("it was asked")
    }

    /// Keeps requests waiting, or no more.
    pub(crate) fn hold(&self, hold: bool) {
        self.open.send_replace(!hold);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, gate: watch::Receiver<bool>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match &shared.options.tls {
        None => serve(stream, None, &shared, gate).await,
        Some(config) => {
            let tls = TlsAcceptor::from(Arc::clone(config)).accept(stream).await?;
            let name = tls.get_ref().1.server_name().map(str::to_owned);
            serve(tls, name, &shared, gate).await
        }
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    server_name: Option<String>,
    shared: &Shared,
    mut gate: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut read = Vec::new();
    loop {
        let head_ends = loop {
            if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let left = read.split_off(head_ends);
        let head = String::from_utf8_lossy(&std::mem::replace(&mut read, left)).into_owned();
        let seen = Seen { head, server_name: server_name.clone() };
        let length: usize = seen.all("content-length").first().map_or(0, |length| length.parse().unwrap());
        while read.len() < length {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        read.drain(..length);
        let is_head = seen.head.starts_with("HEAD ");
        shared.seen.lock().unwrap().push(seen);
        if gate.wait_for(|open| *open).await.is_err() {
            return Ok(());
        }
        let SiteOptions { fields, status, body, .. } = &shared.options;
        let status = if status.is_empty() { "200 OK" } else { status };
        let body = body.as_str();
        let mut answer = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        if !is_head {
            answer.push_str(body);
        }
        stream.write_all(answer.as_bytes()).await?;
    }
}
