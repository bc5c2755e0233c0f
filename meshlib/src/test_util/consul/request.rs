//! One request to an agent, without an HTTP client that may be what is tested.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;

/// Longer than a server without a leader takes to say so.
const LIMIT: Duration = Duration::from_secs(30);

/// What an agent answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsulAnswer {
    /// The status code.
    pub status: u16,
    /// The index of the state that was read, if it says so.
    pub index: Option<u64>,
    /// The body.
    pub body: String,
}

/// Asks in HTTP/1.0, so that the answer comes in one piece and ends with the connection.
pub(super) async fn request(
    addr: SocketAddr,
    token: Option<&str>,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<ConsulAnswer> {
    let token = token.map(|token| format!("X-Consul-Token: {token}\r\n")).unwrap_or_default();
    let head = format!("{method} {path} HTTP/1.0\r\n{token}Content-Length: {}\r\n\r\n{body}", body.len());
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer =
        time::timeout(LIMIT, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse(answer: &str) -> Option<ConsulAnswer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut fields = lines.filter_map(|line| line.split_once(": "));
    let index = fields.find(|(name, _)| name.eq_ignore_ascii_case("x-consul-index"));
    Some(ConsulAnswer { status, index: index.and_then(|(_, index)| index.parse().ok()), body: body.into() })
}
