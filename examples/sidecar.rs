//! A sidecar that encrypts what its pod's clients send, and keeps their addresses.
//!
//! Shows interception: connections that were meant for a server of this pod come to the sidecar's listener; it goes on to
//! where each was meant to go, from the client's own address, and speaks TLS there. The server sees the client, and the
//! client sees nothing of it all.
//!
//! Run it as root with the address to listen at and the name in the server's certificate, after the rules that
//! `tproxy-poc rules apply --mode tproxy --addr 0.0.0.0:5000` sets (the library writes the same: `meshlib::tproxy::rules`):
//!
//! ```text
//! cargo run -p examples --example sidecar -- 0.0.0.0:5000 localhost
//! ```
//!
//! Connect from another machine, without TLS, to a TLS server of this one: it answers, and knows your address.

use std::env;
use std::time::Duration;

use meshlib::Drain;
use meshlib::ListenOptions;
use meshlib::Listener;
use meshlib::Server;
use meshlib::TcpConnector;
use meshlib::TcpProxy;
use meshlib::TimeoutLayer;
use meshlib::TlsLayer;
use meshlib::connect::DirectLayer;
use meshlib::connect::SocketOptions;
use meshlib::tls::Always;
use meshlib::tls::ClientTls;
use meshlib::tproxy::ClientSource;
use meshlib::tproxy::Intercept;
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = env::args().nth(1).unwrap_or_else(|| "0.0.0.0:5000".into());
    let name = env::args().nth(2).unwrap_or_else(|| "localhost".into());

    // The rules know the connections to servers by their mark.
    let from_client =
        SocketOptions::default().with_client_source(Some(ClientSource::default())).with_mark(Some(1));
    let connect = ServiceBuilder::new()
        .layer(TimeoutLayer::connect(Duration::from_secs(5)))
        .layer(DirectLayer::new())
        .layer(TlsLayer::new(Always::new(ClientTls::from_native_roots(&name)?)))
        .service(TcpConnector::new(from_client));

    let intercepting = ListenOptions::default().with_intercept(Some(Intercept::Tproxy));
    let listener = Listener::bind(listen, &intercepting).await?;
    let drain = Drain::on_signals();
    println!("listening at {}", listener.local_addr());
    Server::from_listener(listener).serve(TcpProxy::new(connect), drain).await?;
    Ok(())
}
