//! A client that writes its requests as they are, and reads answers as they come.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use meshlib::tls;
use meshlib::tls::identity::Unverified;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::process::SOON;

/// Asks over HTTPS.
#[derive(Clone)]
pub(crate) struct Client {
    addr: SocketAddr,
    config: Arc<ClientConfig>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The fields, with names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that may be there once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} more than once: {self:?}");
        all.first().copied()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// Takes whatever certificate it is shown.
    pub(crate) fn lenient(addr: SocketAddr) -> Self {
        let provider = tls::provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let anybody = Unverified::new(provider, "the proxy under test");
        let config = builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth();
        Self { addr, config: config.into() }
    }

    /// Takes certificates of these authorities only, and wants to see one with each connection.
    pub(crate) fn trusting(addr: SocketAddr, roots: RootCertStore) -> Self {
        let mut config = tls::client_config(tls::provider(), roots).unwrap();
        config.resumption = Resumption::disabled();
        Self { addr, config: config.into() }
    }

    /// Connects, naming this server.
    pub(crate) async fn connect(&self, name: &str) -> io::Result<Conn> {
        let tcp = time::timeout(SOON, TcpStream::connect(self.addr)).await??;
        self.handshake(tcp, name).await
    }

    /// The same over a connection that is there.
    pub(crate) async fn handshake(&self, tcp: TcpStream, name: &str) -> io::Result<Conn> {
        let handshake = async {
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
            let tls = TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await?;
            let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
            Ok(Conn { certificate: certificate.map(CertificateDer::into_owned), ..Conn::new(tls) })
        };
        time::timeout(SOON, handshake).await?
    }

    /// Asks for a page over a connection of its own.
    pub(crate) async fn get(&self, host: &str, path: &str) -> io::Result<Answer> {
        self.connect(host).await?.get(host, path).await
    }

    /// The status of a page, or nothing if there is no answer.
    pub(crate) async fn status(&self, host: &str, path: &str) -> Option<u16> {
        self.get(host, path).await.ok().map(|answer| answer.status)
    }

    /// Sends a request as it is over a connection of its own.
    pub(crate) async fn send(&self, name: &str, request: &str) -> io::Result<Answer> {
        self.connect(name).await?.send(request).await
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection, for one request after another.
pub(crate) struct Conn {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
    /// What the server has shown.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

impl Conn {
    fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), read: Vec::new(), certificate: None }
    }

    /// Connects without TLS.
    pub(crate) async fn plain(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(time::timeout(SOON, TcpStream::connect(addr)).await??))
    }

    /// Asks for a page.
    pub(crate) async fn get(&mut self, host: &str, path: &str) -> io::Result<Answer> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&mut self, request: &str) -> io::Result<Answer> {
        // Who answers before all of it has been read may close the connection under the rest.
        let written = self.write(request).await;
        self.answer(!request.starts_with("HEAD")).await.map_err(|error| written.err().unwrap_or(error))
    }

    /// Writes text.
    pub(crate) async fn write(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes()).await?;
        self.stream.flush().await
    }

    /// Reads an answer, with its body if it may have one.
    pub(crate) async fn answer(&mut self, with_body: bool) -> io::Result<Answer> {
        time::timeout(SOON, self.read_answer(with_body)).await?
    }

    async fn read_answer(&mut self, with_body: bool) -> io::Result<Answer> {
        let head = self.until(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status: u16 = status.ok_or_else(|| io::Error::other(head.clone()))?;
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let fields: Vec<_> = lines.filter_map(field).collect();
        let mut answer = Answer { status, fields, body: Vec::new() };
        let is_empty = !with_body || matches!(status, 101 | 204 | 304);
        answer.body = match answer.field("content-length").map(str::parse) {
            _ if is_empty => Vec::new(),
            Some(length) => self.exactly(length.map_err(io::Error::other)?).await?,
            None if answer.field("transfer-encoding").is_some() => self.chunks().await?,
            None => {
                let mut body = std::mem::take(&mut self.read);
                self.stream.read_to_end(&mut body).await?;
                body
            }
        };
        Ok(answer)
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            body.extend(self.exactly(length).await?);
            self.exactly(2).await?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    async fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                let left = self.read.split_off(at + end.len());
                return Ok(std::mem::replace(&mut self.read, left));
            }
            self.more().await?;
        }
    }

    /// Reads so many bytes.
    pub(crate) async fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < n {
            self.more().await?;
        }
        let left = self.read.split_off(n);
        Ok(std::mem::replace(&mut self.read, left))
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Sends a request as it is over a connection of its own, without TLS.
pub(crate) async fn plain(addr: SocketAddr, request: &str) -> io::Result<Answer> {
    Conn::plain(addr).await?.send(request).await
}

/// Asks for a page without TLS.
pub(crate) async fn page(addr: SocketAddr, path: &str) -> Answer {
    plain(addr, &format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n")).await.unwrap()
}
