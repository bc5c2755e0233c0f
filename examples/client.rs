//! A client whose connection is balanced and encrypted.
//!
//! Shows the layers of an outbound connection, read from the top: a deadline, a choice among replicas, TLS, a socket.
//! What comes out is a stream of bytes like any other. A replica that does not answer is passed over for the next.
//!
//! Run it with the addresses of the replicas and the name their certificates carry:
//!
//! ```text
//! cargo run -p examples --example client -- 1.1.1.1:443,1.0.0.1:443 one.one.one.one
//! ```
//!
//! It asks for the front page and prints which replica it asked and the first line of the answer. The certificate must
//! be issued by an authority that the operating system trusts; the variable `SSL_CERT_FILE` names a file with others.

use std::env;
use std::time::Duration;

use meshlib::BalanceLayer;
use meshlib::Session;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::TimeoutLayer;
use meshlib::TlsLayer;
use meshlib::tls::Always;
use meshlib::tls::ClientTls;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tower::ServiceBuilder;
use tower::ServiceExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addrs = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8443".into());
    let name = env::args().nth(2).unwrap_or_else(|| "localhost".into());

    let replicas = Static::new(addrs.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?);
    let web = ServiceBuilder::new()
        .layer(TimeoutLayer::connect(Duration::from_secs(5)))
        .layer(BalanceLayer::new(replicas, "web"))
        .layer(TlsLayer::new(Always::new(ClientTls::from_native_roots(&name)?)))
        .service(TcpConnector::default());

    let mut io = web.clone().oneshot(Session::default()).await?;
    io.write_all(format!("GET / HTTP/1.0\r\nHost: {name}\r\n\r\n").as_bytes()).await?;
    let answer = BufReader::new(&mut io).lines().next_line().await?;
    println!("{:?} answered {answer:?}", io.peer_addr());
    Ok(())
}
