//! A proxy that tells its backends who the client is.
//!
//! Shows a connector of one's own: any tower service that takes a [`To`]`<`[`Session`]`>` and answers with an [`Io`]. This
//! one opens the connection with the connector inside it and begins it with a line of the PROXY protocol, version 1,
//! which servers such as nginx and Postfix understand. Being a layer it fits between any two others: with a `TlsLayer`
//! above it the line comes before the handshake, with one below it the line is encrypted.
//!
//! The library has this one, in both versions: `meshlib::connect::ProxyHeaderLayer`. Here it is an example of one's own.
//!
//! Run it with the address to listen at (port 0: a free one) and the backends:
//!
//! ```text
//! cargo run -p examples --example custom_connector -- 127.0.0.1:7474 127.0.0.1:9001
//! ```
//!
//! The backend gets `PROXY TCP4 127.0.0.1 127.0.0.1 50312 7474` and then what the client sends. Ctrl-C ends the proxy.

use std::env;
use std::task::Context;
use std::task::Poll;

use futures::future::BoxFuture;
use meshlib::BalanceLayer;
use meshlib::Connector;
use meshlib::Drain;
use meshlib::Error;
use meshlib::Io;
use meshlib::Server;
use meshlib::Session;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::TcpProxy;
use meshlib::To;
use tokio::io::AsyncWriteExt;
use tower::Service;
use tower::ServiceBuilder;
use tower::ServiceExt;

/// Begins each connection of the connector inside it with a line about the client.
#[derive(Clone, Debug)]
struct ProxyHeader<C> {
    inner: C,
}

impl<C: Connector> Service<To<Session>> for ProxyHeader<C> {
    type Response = Io;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Io, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // The inner connector is readied inside the future: a clone of a ready service need not be ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: To<Session>) -> Self::Future {
        let inner = self.inner.clone();
        let (addr, line) = (to.endpoint.addr, header(&to.request));
        Box::pin(async move {
            let mut io = inner.oneshot(to).await?;
            // Nothing of the client's was sent yet, so the failure counts as one to connect, which may be tried again.
            io.write_all(line.as_bytes()).await.map_err(|source| Error::Connect { addr, source })?;
            Ok(io)
        })
    }
}

/// The line of the PROXY protocol, version 1 (section 2.1 of its specification).
fn header(session: &Session) -> String {
    let Some((peer, local)) = session.peer.zip(session.local) else {
        return "PROXY UNKNOWN\r\n".into();
    };
    let family = match (peer.is_ipv4(), local.is_ipv4()) {
        (true, true) => "TCP4",
        (false, false) => "TCP6",
        _ => return "PROXY UNKNOWN\r\n".into(),
    };
    format!("PROXY {family} {} {} {} {}\r\n", peer.ip(), local.ip(), peer.port(), local.port())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7474".into());
    let backends = env::args().nth(2).unwrap_or_else(|| "127.0.0.1:9001".into());

    let backends = Static::new(backends.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?);
    let connect = ServiceBuilder::new()
        .layer(BalanceLayer::new(backends, "backends"))
        .layer_fn(|inner| ProxyHeader { inner })
        .service(TcpConnector::default());

    let server = Server::bind(listen).await?;
    let drain = Drain::on_signals();
    println!("listening at {}", server.local_addr());
    server.serve(TcpProxy::new(connect), drain).await?;
    Ok(())
}
