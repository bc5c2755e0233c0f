//! A TCP proxy that balances over its backends.
//!
//! Shows the accept side: a server hands each connection to a service, here one that connects and copies bytes. On
//! Ctrl-C it takes no more connections, gives open ones 10 s to end, and leaves; a second Ctrl-C ends them.
//!
//! Run it with the address to listen at (port 0: a free one) and the backends:
//!
//! ```text
//! cargo run -p examples --example tcp_proxy -- 127.0.0.1:7474 127.0.0.1:9001,127.0.0.1:9002
//! ```
//!
//! Connect to the printed address, several times at once: the connections are spread over the backends. Stop a backend:
//! new connections go to the other one.

use std::env;

use meshlib::BalanceLayer;
use meshlib::Drain;
use meshlib::Server;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::TcpProxy;
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7474".into());
    let backends = env::args().nth(2).unwrap_or_else(|| "127.0.0.1:9001,127.0.0.1:9002".into());

    let backends = Static::new(backends.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?);
    let connect =
        ServiceBuilder::new().layer(BalanceLayer::new(backends, "backends")).service(TcpConnector::default());

    let server = Server::bind(listen).await?;
    let drain = Drain::on_signals();
    println!("listening at {}", server.local_addr());
    server.serve(TcpProxy::new(connect), drain).await?;
    Ok(())
}
