//! Learning from a proxy before this one who its client is.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use bytes::BytesMut;
use futures::future::BoxFuture;
use tokio::io::AsyncReadExt;
use tokio::time;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;

use crate::error::Error;
use crate::error::Phase;
use crate::error::Side;
use crate::forward::Transferred;
use crate::io::Io;
use crate::session::Conn;

/// Reads a header of the PROXY protocol, in either form, from connections of proxies that are believed.
///
/// The session then has the address of the proxy's client, and the address that this one had connected to. A connection
/// of such a proxy without the header, or with one that is broken or does not come within 5 s, is closed; connections of
/// others are left alone. Belongs around everything that reads.
///
/// # Examples
///
/// ```
/// use meshlib::AcceptProxyHeaderLayer;
///
/// let from_balancer = AcceptProxyHeaderLayer::new(|peer| peer.is_loopback());
/// # let _ = from_balancer;
/// ```
#[derive(Clone)]
#[must_use = "layers do nothing unless applied"]
pub struct AcceptProxyHeaderLayer {
    believes: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

/// Room for what a proxy may take for its header.
const WITHIN: Duration = Duration::from_secs(5);
/// The longest line of the first form, its end included.
const MAX_V1: usize = 107;
/// The longest header of the second form that is taken: addresses and a few hundred bytes of what else is said.
const MAX_V2: usize = 4096;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

impl AcceptProxyHeaderLayer {
    /// Believes the proxies at these addresses.
    pub fn new(believes: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self { believes: Arc::new(believes) }
    }
}

impl fmt::Debug for AcceptProxyHeaderLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptProxyHeaderLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for AcceptProxyHeaderLayer {
    type Service = AcceptProxyHeader<S>;

    fn layer(&self, inner: S) -> AcceptProxyHeader<S> {
        AcceptProxyHeader { inner, layer: self.clone() }
    }
}

/// Reads headers of the PROXY protocol; made by [`AcceptProxyHeaderLayer`].
#[derive(Clone, Debug)]
pub struct AcceptProxyHeader<S> {
    inner: S,
    layer: AcceptProxyHeaderLayer,
}

impl<S> Service<Conn> for AcceptProxyHeader<S>
where
    S: Service<Conn, Error = Error, Future: Send> + Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = Error;
    type Future = BoxFuture<'static, Result<S::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, conn: Conn) -> Self::Future {
        let inner = self.inner.clone();
        let peer = conn.session.peer.map(|peer| peer.ip().to_canonical());
        if !peer.is_some_and(|peer| (self.layer.believes)(peer)) {
            return Box::pin(inner.oneshot(conn));
        }
        Box::pin(async move {
            let Conn { mut io, mut session, draining } = conn;
            let read = time::timeout(WITHIN, header(&mut io)).await;
            let read = read.map_err(|_| Error::Timeout { phase: Phase::ClientHandshake, after: WITHIN })?;
            let (said, rest) = read.map_err(|source| Error::Forward {
                side: Side::Client,
                transferred: Box::new(Transferred::default()),
                source,
            })?;
            if let Some((from, to)) = said {
                session.peer = Some(from);
                session.local = Some(to);
            }
            inner.oneshot(Conn::new(io.replaying(rest), session, draining)).await
        })
    }
}

/// What a header says: from where to where, if it says so.
type Said = Option<(SocketAddr, SocketAddr)>;

/// What the header says, and what was read beyond it.
async fn header(io: &mut Io) -> io::Result<(Said, BytesMut)> {
    let mut read = BytesMut::with_capacity(256);
    loop {
        if io.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((said, len)) = parse(&read)? {
            read.advance(len);
            return Ok((said, read));
        }
    }
}

/// What the header at the beginning of `read` says, and its length. `None`: there must be more of it.
fn parse(read: &[u8]) -> io::Result<Option<(Said, usize)>> {
    let n = read.len().min(SIGNATURE.len());
    if read[..n] == SIGNATURE[..n] {
        return v2(read);
    }
    let n = read.len().min(V1.len());
    if read[..n] != V1[..n] {
        return Err(broken("it begins with something else"));
    }
    match read.iter().take(MAX_V1).position(|byte| *byte == b'\n') {
        Some(end) if read[..end].ends_with(b"\r") => Ok(Some((v1(&read[..end - 1])?, end + 1))),
        Some(_) => Err(broken("its line ends with a line feed alone")),
        None if read.len() >= MAX_V1 => Err(broken("its line is too long")),
        None => Ok(None),
    }
}

const V1: &[u8] = b"PROXY ";

fn v1(line: &[u8]) -> io::Result<Said> {
    let line = std::str::from_utf8(line).map_err(|_| broken("its line is no text"))?;
    let words: Vec<&str> = line.split(' ').collect();
    let wrong = || broken("its line says something else than addresses");
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let ip = |text: &str| {
                let ip: IpAddr = text.parse().map_err(|_| wrong())?;
                if ip.is_ipv4() == (family == "TCP4") { Ok(ip) } else { Err(wrong()) }
            };
            let port = |text: &str| text.parse::<u16>().map_err(|_| wrong());
            Ok(Some(((ip(from)?, port(from_port)?).into(), (ip(to)?, port(to_port)?).into())))
        }
        _ => Err(wrong()),
    }
}

fn v2(read: &[u8]) -> io::Result<Option<(Said, usize)>> {
    let Some((head, rest)) = read.split_at_checked(16) else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if 16 + len > MAX_V2 {
        return Err(broken("it is too long"));
    }
    let Some(body) = rest.get(..len) else { return Ok(None) };
    let said = match (head[12], head[13]) {
        // The proxy speaks for itself: a health check.
        (0x20, _) => None,
        (0x21, 0x11) => {
            let body: &[u8; 12] = body.first_chunk().ok_or_else(|| broken("its addresses are cut off"))?;
            let [a, b, c, d, e, f, g, h, p, q, r, s] = *body;
            let from = (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([p, q])).into();
            Some((from, (Ipv4Addr::new(e, f, g, h), u16::from_be_bytes([r, s])).into()))
        }
        (0x21, 0x21) => {
            let short = || broken("its addresses are cut off");
            let (from, body) = body.split_first_chunk::<16>().ok_or_else(short)?;
            let (to, body) = body.split_first_chunk::<16>().ok_or_else(short)?;
            let [p, q, r, s] = *body.first_chunk().ok_or_else(short)?;
            let from = (Ipv6Addr::from(*from), u16::from_be_bytes([p, q])).into();
            Some((from, (Ipv6Addr::from(*to), u16::from_be_bytes([r, s])).into()))
        }
        // Other families and transports have no address that a session could have.
        (0x21, _) => None,
        _ => return Err(broken("it is of a version or a command that is not known")),
    };
    Ok(Some((said, 16 + len)))
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the PROXY header is broken: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(bytes: &[u8]) -> Option<(Said, usize)> {
        // However it is cut, the answer is the same and comes as soon as it can.
        let whole = parse(bytes);
        for n in 0..bytes.len() {
            match parse(&bytes[..n]) {
                Ok(None) => {}
                Ok(Some(early)) => assert_eq!(Some(early), whole.as_ref().ok().copied().flatten()),
                Err(_) => assert!(whole.is_err()),
            }
        }
        whole.ok().flatten()
    }

    fn addrs(from: &str, to: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((from.parse().unwrap(), to.parse().unwrap()))
    }

    #[test]
    fn both_forms_are_read_with_what_follows_left_alone() {
        let v1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\nGET";
        assert_eq!(said(v1), Some((addrs("192.0.2.1:4711", "198.51.100.2:443"), v1.len() - 3)));
        let v1 = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n";
        assert_eq!(said(v1), Some((addrs("[2001:db8::1]:1", "[2001:db8::2]:65535"), v1.len())));
        let v2 = [
            &SIGNATURE[..],
            &[0x21, 0x11, 0, 15, 192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x67, 1, 0xbb, 4, 0, 0],
        ];
        let v2 = v2.concat();
        assert_eq!(
            said(&[&v2[..], b"x"].concat()),
            Some((addrs("192.0.2.1:4711", "198.51.100.2:443"), v2.len()))
        );
    }

    #[test]
    fn a_proxy_may_say_that_it_does_not_know_or_speaks_for_itself() {
        assert_eq!(said(b"PROXY UNKNOWN ffff::1 whatever\r\n"), Some((None, 32)));
        assert_eq!(said(&[&SIGNATURE[..], &[0x20, 0, 0, 0]].concat()), Some((None, 16)));
        assert_eq!(said(&[&SIGNATURE[..], &[0x21, 0x31, 0, 0]].concat()), Some((None, 16)));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.1 198.51.100.2 4711\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 70000\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n",
            b"PROXY UNKNOWN\n",
            &[b'P'; 8],
            &[&SIGNATURE[..], &[0x31, 0x11, 0, 0]].concat(),
            &[&SIGNATURE[..], &[0x21, 0x11, 0, 4, 1, 2, 3, 4]].concat(),
            &[&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat(),
            &[&b"PROXY UNKNOWN "[..], &[b'x'; MAX_V1]].concat(),
        ] {
            assert!(parse(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_read_beyond_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..200), v2: bool) {
            let mut all = if v2 { SIGNATURE.to_vec() } else { V1.to_vec() };
            all.extend(bytes);
            all.resize(MAX_V2, 0);

            prop_assert!(!matches!(parse(&all), Ok(None)), "more is wanted than may be");
        }
    }
}
