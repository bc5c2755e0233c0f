//! Carrying out a policy on endpoints.

use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use rustls::pki_types::ServerName;
use tokio::time;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tower::Service;
use tower::ServiceExt;

use super::ClientTls;
use super::ConnectTls;
use super::Tls;
use super::TlsError;
use super::TlsLayer;
use super::fallback::Plan;
use crate::error::Error;
use crate::error::Refusal;
use crate::error::Side;
use crate::io::Io;
use crate::io::TlsStatus;
use crate::observe::Event;
use crate::session::Session;
use crate::session::To;

impl<S> Service<To<Session>> for Tls<S>
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
        let decision = self.layer.policy.connect(&to);
        self.connect_as(decision, to)
    }
}

impl<S> Tls<S>
where
    S: Service<To<Session>, Response = Io, Error = Error, Future: Send> + Clone + Send + 'static,
{
    /// Connects as the policy has decided already.
    pub(crate) fn connect_as(
        &self,
        decision: ConnectTls,
        to: To<Session>,
    ) -> BoxFuture<'static, Result<Io, Error>> {
        let inner = self.inner.clone();
        match decision {
            ConnectTls::Plaintext => Box::pin(inner.oneshot(to)),
            ConnectTls::Refuse => Box::pin(async { Err(Error::Refused(Refusal::Policy)) }),
            ConnectTls::Required(tls) => {
                let layer = self.layer.clone();
                Box::pin(async move {
                    let addr = to.endpoint.addr;
                    let io = inner.oneshot(to).await?;
                    layer.secure(io, &tls, layer.within).await.map_err(|error| failed(addr, error))
                })
            }
            ConnectTls::Opportunistic { tls, fallback, within } => {
                let layer = self.layer.clone();
                Box::pin(async move {
                    let plan = layer.memory.plan(&to.endpoint, &tls.server_name, fallback);
                    if plan == Plan::Plaintext {
                        return inner.oneshot(to).await;
                    }
                    let io = inner.clone().oneshot(to.clone()).await?;
                    let error = match layer.secure(io, &tls, within).await {
                        Ok(io) => {
                            layer.memory.succeeded(&to.endpoint, &tls.server_name);
                            return Ok(io);
                        }
                        Err(error) => error,
                    };
                    if !layer.memory.failed(&to.endpoint, &tls.server_name, fallback, &error) {
                        return Err(failed(to.endpoint.addr, error));
                    }
                    layer.observer.on(&Event::TlsFallback { endpoint: &to.endpoint, reason: error.reason() });
                    tracing::debug!(endpoint = %to.endpoint.addr, %error, "no TLS; going on in plaintext");
                    inner.oneshot(to).await
                })
            }
        }
    }
}

impl TlsLayer {
    /// A handshake as the client.
    async fn secure(&self, io: Io, tls: &ClientTls, within: Duration) -> Result<Io, TlsError> {
        let began = Instant::now();
        let addr = io.peer_addr();
        let result = time::timeout(within, handshake(io, Arc::clone(&tls.config), tls.server_name.clone()))
            .await
            .unwrap_or(Err(TlsError::Timeout(within)));
        let took = began.elapsed();
        match result {
            Ok(io) => {
                self.observer.on(&Event::Handshake { side: Side::Server, took, error: None });
                Ok(io)
            }
            Err(error) => {
                let addr = addr.unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
                let error = failed(addr, error);
                self.observer.on(&Event::Handshake { side: Side::Server, took, error: Some(&error) });
                match error {
                    Error::Tls { source, .. } => Err(*source),
                    _ => unreachable!("it was made a TLS error a moment ago"),
                }
            }
        }
    }
}

async fn handshake(
    io: Io,
    config: Arc<rustls::ClientConfig>,
    server_name: ServerName<'static>,
) -> Result<Io, TlsError> {
    let connector = TlsConnector::from(config);
    match io.into_parts() {
        Ok((tcp, held)) => Ok(Io::tls_client(connector.connect(server_name, tcp).await?).holding(held)),
        Err(io) => {
            let stream = connector.connect(server_name, io).await?;
            let alpn = stream.get_ref().1.alpn_protocol().map(Into::into);
            Ok(Io::tls_over(stream, TlsStatus::Client, alpn))
        }
    }
}

fn failed(addr: std::net::SocketAddr, error: TlsError) -> Error {
    Error::Tls { side: Side::Server, addr, source: Box::new(error) }
}
