//! A reverse proxy of the library alone, for `compare`: what a program that embeds meshlib costs.
//!
//! `embedded LISTEN BACKEND..` answers HTTP/1.1 and HTTP/2 without TLS, balanced over the backends.

use std::error::Error;
use std::net::SocketAddr;

use meshlib::http::{ClientLayer, HeadersLayer, HttpServer};
use meshlib::{BalanceLayer, Drain, Server, Static, TcpConnector};
use tower::ServiceBuilder;

/// As in our tools.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let addrs = std::env::args().skip(1).map(|addr| addr.parse()).collect::<Result<Vec<SocketAddr>, _>>()?;
    let (listen, backends) = addrs.split_first().ok_or("an address to listen at, and those of backends")?;
    let proxy = ServiceBuilder::new()
        .layer(HeadersLayer::new())
        .layer(BalanceLayer::new(Static::new(backends.to_vec()), "backends"))
        .layer(ClientLayer::new())
        .service(TcpConnector::default());
    // One thread, as all that it is compared with.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let server = Server::bind(*listen).await?;
        server.serve(HttpServer::new(proxy), Drain::on_signals()).await?;
        Ok(())
    })
}
