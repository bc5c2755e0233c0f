//! hyper-util's HTTP client on connections that are balanced and encrypted.
//!
//! Shows that any connector of meshlib can open the connections of [`hyper_util::client::legacy::Client`], and so of
//! whatever is built on it: the stack is that of the example `client`, and a wrapper of forty lines tells hyper what it
//! wants to know of a connection. The client keeps its own pool and its own rules of when to try again.
//!
//! What is balanced are connections: a request that finds one in the pool goes where that one goes, and with HTTP/2 all
//! do. [`ClientLayer`](meshlib::http::ClientLayer) chooses for each request; the examples `consul` and `http_proxy` show it.
//!
//! Run it with the addresses of the replicas, the name their certificates carry, and the number of requests:
//!
//! ```text
//! cargo run -p examples --example hyper_client -- 1.1.1.1:443,1.0.0.1:443 one.one.one.one 3
//! ```
//!
//! It prints the protocol, the status and the replica of every answer: the same replica, as long as one connection is enough.
//! The certificate must be issued by an authority that the operating system trusts; the variable `SSL_CERT_FILE` names a
//! file with others.

use std::env;
use std::io;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connected;
use hyper_util::client::legacy::connect::Connection;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use meshlib::BalanceLayer;
use meshlib::Io;
use meshlib::Session;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::TimeoutLayer;
use meshlib::TlsLayer;
use meshlib::http::ALPN;
use meshlib::http::Body;
use meshlib::tls;
use meshlib::tls::Always;
use meshlib::tls::ClientTls;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tower::ServiceBuilder;
use tower::util::BoxCloneSyncService;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addrs = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8443".into());
    let name = env::args().nth(2).unwrap_or_else(|| "localhost".into());
    let requests = env::args().nth(3).map_or(Ok(3), |n| n.parse())?;

    let replicas = Static::new(addrs.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?);
    let mut config = tls::client_config(tls::provider(), tls::native_roots()?)?;
    config.alpn_protocols = ALPN.map(Vec::from).into();
    let tls = ClientTls::new(config.into(), name.clone().try_into()?);
    let connect = ServiceBuilder::new()
        // Whatever the address says, it is the replicas that are meant, and TLS is done here.
        .map_request(|_: Uri| Session::default())
        .map_response(|io| TokioIo::new(ForHyper(io)))
        .layer(TimeoutLayer::connect(Duration::from_secs(5)))
        .layer(BalanceLayer::new(replicas, "web"))
        .layer(TlsLayer::new(Always::new(tls)))
        .service(TcpConnector::default());
    // hyper moves the future of a connection that is being opened, so it is boxed.
    let connect = BoxCloneSyncService::new(connect);
    let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connect);

    for _ in 0..requests {
        let answer = client.request(Request::get(format!("https://{name}/")).body(Body::empty())?).await?;
        let (version, status) = (answer.version(), answer.status());
        let replica = answer.extensions().get::<Replica>().and_then(|replica| replica.0);
        println!("{version:?} {status} from {replica:?}");
        // A connection goes back to the pool when the answer has been read.
        Body::new(answer.into_body()).collect(1024 * 1024).await?;
    }
    Ok(())
}

/// Which replica has answered: an extension of answers.
#[derive(Clone)]
struct Replica(Option<SocketAddr>);

/// A connection that tells hyper about itself.
struct ForHyper(Io);

impl Connection for ForHyper {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(Replica(self.0.peer_addr()));
        match self.0.alpn() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl AsyncRead for ForHyper {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ForHyper {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
