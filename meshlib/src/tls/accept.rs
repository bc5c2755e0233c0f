//! Carrying out a policy on accepted connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use futures::future::BoxFuture;
use rustls::AlertDescription;
use rustls::ServerConfig;
use rustls::server::ServerConnection;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::time;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tower::ServiceExt;

use super::AcceptTls;
use super::Hello;
use super::Inspect;
use super::Tls;
use super::TlsError;
use super::TlsLayer;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Refusal;
use crate::error::Side;
use crate::io::Io;
use crate::io::TlsStatus;
use crate::io::sniff;
use crate::io::sniff::Look;
use crate::io::sniff::Sniffed;
use crate::observe::Event;
use crate::session::Conn;
use crate::session::Session;
use crate::session::TlsSession;

/// What is read at a time while looking at the first bytes: a usual hello, with a post-quantum key, in one read.
const READ_BYTES: usize = 2048;

impl<S> Service<Conn> for Tls<S>
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
        let mut inner = self.inner.clone();
        // A future of its own, made here, and a connection in a box: neither the handshake's state nor the room for the
        // connection is kept by the service that goes on with it.
        let accepting = Box::pin(self.layer.clone().accept(conn));
        Box::pin(async move {
            let conn = accepting.await?;
            inner.ready().await?.call(*conn).await
        })
    }
}

impl TlsLayer {
    async fn accept(self, conn: Conn) -> Result<Box<Conn>, Error> {
        let Conn { mut io, mut session, draining } = conn;
        let deadline = from_now(self.within);
        let mut unread = BytesMut::new();
        if let Inspect::FirstBytes { within } = self.policy.inspect(&session) {
            let until = deadline.min(from_now(within));
            // Too late, too little, broken: the policy decides by what is there.
            let _ = time::timeout_at(until, look(&mut io, &mut unread)).await;
        }

        let mut reassembled = Vec::new();
        let protocol = match sniff::sniff(&unread, &mut reassembled) {
            Look::Decided(protocol) => protocol,
            _ => Sniffed::Unknown,
        };
        if let Sniffed::Tls { server_name: Some(name), .. } = &protocol {
            session.server_name = Some(name.to_ascii_lowercase().into());
        }
        let mut decision = self.policy.accept(&Hello::new(&session, protocol));
        if let AcceptTls::Later(later) = decision {
            let began = Instant::now();
            let Ok(decided) = time::timeout_at(deadline, later).await else {
                let (error, took) = (self.too_slow(), began.elapsed());
                self.observer.on(&Event::Handshake { side: Side::Client, took, error: Some(&error) });
                return Err(error);
            };
            decision = decided;
        }
        let io = io.replaying(unread);
        match decision {
            AcceptTls::Forward => Ok(Box::new(Conn::new(io, session, draining))),
            AcceptTls::Terminate(config) => {
                let began = Instant::now();
                let result = self.handshake(io, &mut session, config, deadline).await;
                let error = result.as_ref().err();
                self.observer.on(&Event::Handshake { side: Side::Client, took: began.elapsed(), error });
                Ok(Box::new(Conn::new(result?, session, draining)))
            }
            AcceptTls::Alert(alert) => {
                let error = refuse(io, peer(&session), alert, deadline).await;
                let error = Error::from(error);
                let took = Duration::ZERO;
                self.observer.on(&Event::Handshake { side: Side::Client, took, error: Some(&error) });
                Err(error)
            }
            AcceptTls::Refuse | AcceptTls::Later(_) => Err(Error::Refused(Refusal::Policy)),
        }
    }

    async fn handshake(
        &self,
        io: Io,
        session: &mut Session,
        config: Arc<ServerConfig>,
        deadline: Instant,
    ) -> Result<Io, Error> {
        let failed = |error: std::io::Error| Error::Tls {
            side: Side::Client,
            addr: peer(session),
            source: Box::new(TlsError::from(error)),
        };
        let acceptor = TlsAcceptor::from(config);
        let io = match io.into_parts() {
            Ok((tcp, held)) => {
                let accepted =
                    time::timeout_at(deadline, acceptor.accept(tcp)).await.map_err(|_| self.too_slow())?;
                let stream = accepted.map_err(failed)?;
                learn(session, stream.get_ref().1);
                Io::tls_server(stream).holding(held)
            }
            Err(io) => {
                let accepted =
                    time::timeout_at(deadline, acceptor.accept(io)).await.map_err(|_| self.too_slow())?;
                let stream = accepted.map_err(failed)?;
                learn(session, stream.get_ref().1);
                Io::tls_over(stream, TlsStatus::Server, session.alpn.as_deref().map(Into::into))
            }
        };
        Ok(io)
    }

    fn too_slow(&self) -> Error {
        Error::Timeout { phase: Phase::ClientHandshake, after: self.within }
    }
}

/// The instant in so long; for a time that never comes, one in 30 years.
fn from_now(after: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

    let now = Instant::now();
    now.checked_add(after).unwrap_or_else(|| now + FAR)
}

/// Reads until the bytes can be told, or the client has nothing more to say.
async fn look(io: &mut Io, unread: &mut BytesMut) -> std::io::Result<()> {
    let mut reassembled = Vec::new();
    loop {
        unread.reserve(READ_BYTES);
        // Cancel-safe: what was read is in the buffer.
        if io.read_buf(unread).await? == 0 {
            return Ok(());
        }
        if matches!(sniff::sniff(unread, &mut reassembled), Look::Decided(_)) {
            return Ok(());
        }
    }
}

/// Tells the client in TLS why it is closed.
async fn refuse(mut io: Io, addr: SocketAddr, alert: AlertDescription, deadline: Instant) -> Refused {
    // RFC 8446 section 5.1 and 6: content type alert, version TLS 1.2 for compatibility, two bytes, fatal.
    let record = [21, 3, 3, 0, 2, 2, u8::from(alert)];
    // The client may be gone; it is not owed more than an attempt.
    let _ = time::timeout_at(deadline, async {
        io.write_all(&record).await?;
        io.shutdown().await
    })
    .await;
    Refused { addr, alert }
}

struct Refused {
    addr: SocketAddr,
    alert: AlertDescription,
}

impl From<Refused> for Error {
    fn from(Refused { addr, alert }: Refused) -> Self {
        Self::Tls { side: Side::Client, addr, source: Box::new(TlsError::Rejected(alert)) }
    }
}

/// The address for messages; a connection that came over no socket has none.
fn peer(session: &Session) -> SocketAddr {
    session.peer.unwrap_or_else(|| ([0, 0, 0, 0], 0).into())
}

fn learn(session: &mut Session, tls: &ServerConnection) {
    session.server_name = tls.server_name().map(|name| name.to_ascii_lowercase().into());
    session.alpn = tls.alpn_protocol().map(Into::into);
    session.tls = Some(Arc::new(describe(tls)));
}

/// How a connection is encrypted, as names that are registered.
pub(super) fn describe<D>(tls: &rustls::ConnectionCommon<D>) -> TlsSession {
    let version = match tls.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "unknown",
    };
    let suite = tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown");
    let resumed = tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    let certificate =
        tls.peer_certificates().and_then(|chain| chain.first()).map(|leaf| Arc::from(leaf.as_ref()));
    TlsSession::new(version, suite).with_resumed(resumed).with_peer_certificate(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_may_never_come() {
        assert!(from_now(Duration::MAX) > Instant::now());
    }
}
