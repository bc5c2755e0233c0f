//! An ACME authority under another name, and a look at what it is sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex as StdMutex;

use meshlib::test_util::Pebble;
use meshlib::test_util::TestCa;
use serde_json::Value;
use tokio::io;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Ends TLS in front of an authority, which says in all its URLs what it was asked as. Its directory is also found where
/// Let's Encrypt has it, and it suggests to renew every certificate now. Its port is closed when this is dropped.
pub(crate) struct Front {
    pub(crate) addr: SocketAddr,
    ca: TestCa,
    sent: Arc<StdMutex<Vec<u8>>>,
    accepting: JoinHandle<()>,
}

impl Front {
    /// Listens at an address for a name.
    ///
    /// # Errors
    ///
    /// If nobody may listen there.
    pub(crate) async fn start(pebble: &Pebble, listen: SocketAddr, name: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let ca = TestCa::new();
        let acceptor = TlsAcceptor::from(ca.server_config([name]));
        let connector = TlsConnector::from(pebble.client_config());
        let url = pebble.directory();
        let to = url.trim_start_matches("https://").trim_end_matches("/dir").to_owned();
        let sent: Arc<StdMutex<Vec<u8>>> = Arc::default();
        let seen = Arc::clone(&sent);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, connector) = (acceptor.clone(), connector.clone());
                connections.spawn(pass(stream, acceptor, connector, to.clone(), Arc::clone(&seen)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { addr, ca, sent, accepting })
    }

    /// Who vouches for it, in PEM.
    pub(crate) fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// The payloads of signed requests so far (RFC 7515 section 7.2.2), those without one left out.
    pub(crate) fn payloads(&self) -> Vec<Value> {
        let sent = self.sent.lock().unwrap();
        let text = String::from_utf8_lossy(&sent);
        let encoded = text.split(r#""payload":""#).skip(1).filter_map(|rest| rest.split('"').next());
        encoded.filter_map(|encoded| serde_json::from_slice(&decode(encoded)).ok()).collect()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    to: String,
    sent: Arc<StdMutex<Vec<u8>>>,
) -> io::Result<()> {
    let client = acceptor.accept(stream).await?;
    let name = ServerName::try_from("127.0.0.1").map_err(io::Error::other)?;
    let server = connector.connect(name, TcpStream::connect(to).await?).await?;
    let (mut from_client, to_client) = io::split(client);
    let (mut from_server, mut to_server) = io::split(server);
    let to_client = Mutex::new(to_client);
    let up = async {
        let mut read = vec![0; 64 * 1024];
        loop {
            let n = from_client.read(&mut read).await?;
            if n == 0 {
                return Ok(());
            }
            sent.lock().unwrap().extend_from_slice(&read[..n]);
            let text = String::from_utf8_lossy(&read[..n]);
            if text.starts_with("GET ") && text.contains("/renewalInfo/") {
                // One request at a time: nothing else is on its way to the client.
                to_client.lock().await.write_all(SUGGESTION.as_bytes()).await?;
                to_client.lock().await.flush().await?;
                continue;
            }
            to_server.write_all(text.replacen("GET /directory ", "GET /dir ", 1).as_bytes()).await?;
            to_server.flush().await?;
        }
    };
    let down = async {
        let mut read = vec![0; 64 * 1024];
        loop {
            let n = from_server.read(&mut read).await?;
            if n == 0 {
                return Ok(());
            }
            to_client.lock().await.write_all(&read[..n]).await?;
            to_client.lock().await.flush().await?;
        }
    };
    tokio::select! {
        result = up => result,
        result = down => result,
    }
}

/// A window that is over.
const SUGGESTION: &str = "HTTP/1.1 200 OK\r\nRetry-After: 21600\r\nContent-Length: 81\r\n\r\n\
    {\"suggestedWindow\":{\"start\":\"2020-01-01T00:00:00Z\",\"end\":\"2020-01-02T00:00:00Z\"}}";

/// Base64url without padding.
fn decode(text: &str) -> Vec<u8> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut n, mut bytes) = (0_u32, 0, Vec::new());
    for value in text.chars().filter_map(|c| ALPHABET.find(c)) {
        bits = bits << 6 | u32::try_from(value).unwrap();
        n += 6;
        if n >= 8 {
            n -= 8;
            bytes.push((bits >> n & 0xff) as u8);
        }
    }
    bytes
}
