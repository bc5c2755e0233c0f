//! Telling the server who the client is, in front of everything else.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::task::Context;
use std::task::Poll;

use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;

use crate::error::Error;
use crate::io::Io;
use crate::session::Session;
use crate::session::To;

/// A form of the [PROXY protocol](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt)'s header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxyHeader {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Begins each connection with a header of the PROXY protocol: the client's address, and where it wanted to go.
///
/// Belongs directly around what connects, inside of TLS. The server must expect the header, and must believe it from this
/// proxy only. It says that the client is unknown where there is none, or where the two addresses are of different
/// families.
#[derive(Clone, Copy, Debug)]
pub struct ProxyHeaderLayer {
    form: ProxyHeader,
}

impl ProxyHeaderLayer {
    /// A layer that sends this form.
    pub fn new(form: ProxyHeader) -> Self {
        Self { form }
    }
}

impl<S> Layer<S> for ProxyHeaderLayer {
    type Service = WithProxyHeader<S>;

    fn layer(&self, inner: S) -> WithProxyHeader<S> {
        WithProxyHeader { inner, form: self.form }
    }
}

/// A connector that begins with a header; made by [`ProxyHeaderLayer`].
#[derive(Clone, Debug)]
pub struct WithProxyHeader<S> {
    inner: S,
    form: ProxyHeader,
}

impl<S> Service<To<Session>> for WithProxyHeader<S>
where
    S: Service<To<Session>, Response = Io, Error = Error, Future: Send> + Clone + Send + 'static,
{
    type Response = Io;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Io, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: To<Session>) -> Self::Future {
        let header = self.form.header(&to.request);
        let addr = to.endpoint.addr;
        let connecting = self.inner.clone().oneshot(to);
        Box::pin(async move {
            let mut io = connecting.await?;
            // A new socket has room for so little.
            io.write_all(&header).await.map_err(|source| Error::Connect { addr, source })?;
            Ok(io)
        })
    }
}

impl ProxyHeader {
    fn header(self, session: &Session) -> Vec<u8> {
        let pair = session.peer.zip(session.original_dst.or(session.local));
        match (self, pair) {
            (Self::V1, pair) => v1(pair).into_bytes(),
            (Self::V2, pair) => v2(pair),
        }
    }
}

fn v1(pair: Option<(SocketAddr, SocketAddr)>) -> String {
    match pair {
        Some((from, to)) if from.is_ipv4() == to.is_ipv4() => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
        }
        _ => "PROXY UNKNOWN\r\n".to_owned(),
    }
}

fn v2(pair: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    // Version 2 in the upper half; the proxy speaks for a client, or for itself.
    const PROXY: u8 = 0x21;
    const LOCAL: u8 = 0x20;

    let mut header = SIGNATURE.to_vec();
    match pair.map(|(from, to)| (from.ip(), to.ip(), from.port(), to.port())) {
        Some((IpAddr::V4(from), IpAddr::V4(to), from_port, to_port)) => {
            // TCP over IPv4, and the length of what follows.
            header.extend([PROXY, 0x11, 0, 12]);
            header.extend(from.octets());
            header.extend(to.octets());
            header.extend(from_port.to_be_bytes());
            header.extend(to_port.to_be_bytes());
        }
        Some((IpAddr::V6(from), IpAddr::V6(to), from_port, to_port)) => {
            header.extend([PROXY, 0x21, 0, 36]);
            header.extend(from.octets());
            header.extend(to.octets());
            header.extend(from_port.to_be_bytes());
            header.extend(to_port.to_be_bytes());
        }
        _ => header.extend([LOCAL, 0, 0, 0]),
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use tokio::io::AsyncReadExt;

    fn session(peer: &str, dst: &str) -> Session {
        let local = "192.0.2.1:5000".parse().unwrap();
        Session::accepted(peer.parse().unwrap(), local).with_original_dst(dst.parse().unwrap())
    }

    #[test]
    fn the_first_form_is_a_line() {
        let line = |session: &Session| String::from_utf8(ProxyHeader::V1.header(session)).unwrap();

        assert_eq!(
            line(&session("10.0.0.1:40000", "10.0.0.2:80")),
            "PROXY TCP4 10.0.0.1 10.0.0.2 40000 80\r\n"
        );
        assert_eq!(line(&session("[fd77::2]:1", "[fd77::3]:2")), "PROXY TCP6 fd77::2 fd77::3 1 2\r\n");
        assert_eq!(line(&session("10.0.0.1:1", "[fd77::3]:2")), "PROXY UNKNOWN\r\n");
        assert_eq!(line(&Session::default()), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn the_second_form_is_binary() {
        let header = ProxyHeader::V2.header(&session("10.0.0.1:40000", "10.0.0.2:80"));

        assert_eq!(&header[..16], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c");
        assert_eq!(header[16..], [10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 80]);
        let v6 = ProxyHeader::V2.header(&session("[fd77::2]:1", "[fd77::3]:2"));
        assert_eq!((v6[13], v6[15], v6.len()), (0x21, 36, 16 + 36));
        assert_eq!(ProxyHeader::V2.header(&Session::default())[12..], [0x20, 0, 0, 0]);
    }

    #[tokio::test]
    async fn the_header_comes_first() {
        let (near, mut far) = tokio::io::duplex(1024);
        let near = std::sync::Arc::new(std::sync::Mutex::new(Some(near)));
        let connect = tower::service_fn(move |_: To<Session>| {
            let io = near.lock().unwrap().take().map(Io::new);
            async move { io.ok_or(Error::Refused(crate::error::Refusal::Limit)) }
        });
        let to = To::new(Endpoint::new("10.0.0.2:80".parse().unwrap()), session("10.0.0.1:1", "10.0.0.2:80"));

        let mut io = ProxyHeaderLayer::new(ProxyHeader::V1).layer(connect).oneshot(to).await.unwrap();
        io.write_all(b"hello").await.unwrap();
        drop(io);

        let mut sent = String::new();
        far.read_to_string(&mut sent).await.unwrap();
        assert_eq!(sent, "PROXY TCP4 10.0.0.1 10.0.0.2 1 80\r\nhello");
    }
}
