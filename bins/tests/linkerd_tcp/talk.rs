//! Configurations, clients and backends that several tests use.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use meshlib_namerd::api::Addr;
use meshlib_namerd::api::Address;
use meshlib_namerd::server::NamerdServer;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;
use tokio::time::Instant;

use crate::process::LOOK;
use crate::process::SOON;

/// The name that every configuration here asks for.
pub(crate) const NAME: &str = "/svc/web";

/// Generation B with a server that asks namerd. The texts are more lines of the server and of the client.
pub(crate) fn routers(namerd: &str, server: &str, client: &str) -> String {
    let interpreter =
        format!("{{kind: io.l5d.namerd.http, baseUrl: '{namerd}', namespace: default, periodSecs: 20}}");
    routers_with(&interpreter, server, client)
}

/// Generation B with fixed endpoints.
pub(crate) fn fixed(endpoints: &[SocketAddr], server: &str, client: &str) -> String {
    let weighted: Vec<_> = endpoints.iter().map(|addr| (*addr, 1.0)).collect();
    routers_with(&interpreter(&weighted), server, client)
}

/// An interpreter with fixed endpoints of these weights.
pub(crate) fn interpreter(endpoints: &[(SocketAddr, f64)]) -> String {
    let addrs = endpoints
        .iter()
        .map(|(addr, weight)| format!("{{ip: '{}', port: {}, weight: {weight}}}", addr.ip(), addr.port()));
    format!("{{kind: io.l5d.static, addrs: {{'{NAME}': [{}]}}}}", addrs.collect::<Vec<_>>().join(", "))
}

/// Generation B with one server.
pub(crate) fn routers_with(interpreter: &str, server: &str, client: &str) -> String {
    let server = indented(8, server);
    let client = indented(6, client);
    format!(
        "admin: {{port: 0, graceSecs: 2}}
routers:
  - label: default
    servers:
      - port: 0
        dstName: {NAME}
{server}    interpreter: {interpreter}
    client:
      kind: io.l5d.global
{client}"
    )
}

/// Generation A with one plain server. The text is more lines of the proxy.
pub(crate) fn proxies(namerd: &str, proxy: &str) -> String {
    let proxy = indented(4, proxy);
    format!(
        "admin: {{addr: '127.0.0.1:0'}}
proxies:
  - label: default
    servers:
      - {{kind: io.l5d.tcp, addr: '127.0.0.1:0'}}
    namerd: {{url: '{namerd}', path: {NAME}, intervalSecs: 20}}
{proxy}"
    )
}

fn indented(by: usize, text: &str) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// A name server that knows the name with these endpoints.
pub(crate) async fn namerd(endpoints: &[SocketAddr]) -> NamerdServer {
    let namerd = NamerdServer::bind("127.0.0.1:0").await.unwrap();
    set(&namerd, endpoints);
    namerd
}

/// Tells the name server what the endpoints are.
pub(crate) fn set(namerd: &NamerdServer, endpoints: &[SocketAddr]) {
    let addrs = endpoints.iter().map(|addr| Address::new(*addr));
    namerd.set("default", NAME, Addr::bound(addrs)).unwrap();
}

/// An address where nobody listens. The socket keeps the port from being given to others.
pub(crate) fn dead() -> (tokio::net::TcpSocket, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// Connects, exchanges a few bytes, closes, and waits for the other side's close.
pub(crate) async fn exchange(addr: SocketAddr) -> io::Result<()> {
    let work = async {
        let mut io = TcpStream::connect(addr).await?;
        let answer = meshlib::test_util::echo_to_end(&mut io, b"hello").await?;
        if answer == b"hello" { Ok(()) } else { Err(io::Error::other(format!("answered {answer:?}"))) }
    };
    time::timeout(SOON, work).await?
}

/// Connects and reads so many bytes of greeting. The connection stays open.
pub(crate) async fn greeted(addr: SocketAddr, bytes: usize) -> io::Result<(TcpStream, String)> {
    let work = async {
        let mut io = TcpStream::connect(addr).await?;
        let mut greeting = vec![0; bytes];
        io.read_exact(&mut greeting).await?;
        Ok((io, String::from_utf8_lossy(&greeting).into_owned()))
    };
    time::timeout(SOON, work).await?
}

/// Connects and waits until the connection is closed without a byte; how long that took.
pub(crate) async fn closed_after(addr: SocketAddr) -> Duration {
    let began = Instant::now();
    let mut io = TcpStream::connect(addr).await.unwrap();
    let mut byte = [0];
    let read = time::timeout(SOON, io.read(&mut byte)).await.expect("it is closed");
    assert!(!matches!(read, Ok(1..)), "the proxy says nothing of its own");
    began.elapsed()
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let late = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < late, "never: {what}");
        time::sleep(LOOK).await;
    }
}

/// An answer of the admin server.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The head, from the status line to the empty line, in lower case.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: String,
}

/// Asks the admin server something over a connection of its own.
pub(crate) async fn ask(admin: SocketAddr, method: &str, path: &str) -> io::Result<Answer> {
    let work = async {
        let mut io = TcpStream::connect(admin).await?;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        Ok(Answer {
            status: status.ok_or(io::ErrorKind::InvalidData)?,
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        })
    };
    time::timeout(SOON, work).await?
}

/// All samples of the metrics page: a name with its labels as printed, and a value.
pub(crate) async fn metrics(admin: SocketAddr) -> BTreeMap<String, f64> {
    let answer = ask(admin, "GET", "/metrics").await.unwrap();
    assert_eq!(answer.status, 200);
    let lines = answer.body.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    lines.map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line:?}"))).collect()
}

/// The sum of all samples of a name whose labels hold a text.
pub(crate) fn sum(metrics: &BTreeMap<String, f64>, name: &str, labels: &str) -> f64 {
    let of_name = metrics.iter().filter(|(sample, _)| sample.split('{').next() == Some(name));
    of_name.filter(|(sample, _)| sample.contains(labels)).map(|(_, value)| value).sum()
}

/// Waits until a sum of samples has this value.
pub(crate) async fn metric_is(admin: SocketAddr, name: &str, labels: &str, wanted: f64) {
    let late = Instant::now() + SOON;
    loop {
        let found = sum(&metrics(admin).await, name, labels);
        if found == wanted {
            return;
        }
        assert!(Instant::now() < late, "{name}{{{labels}}} is {found} and not {wanted}");
        time::sleep(LOOK).await;
    }
}
