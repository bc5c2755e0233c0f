//! tower's own balancer over a resolver of meshlib.
//!
//! Shows that the parts can be had apart. [`Changes`] turns any resolution into a stream of services to insert and
//! keys to remove, which is what [`tower::balance::p2c::Balance`] takes; this program keeps meshlib's discovery and
//! sockets and leaves the choice to tower.
//!
//! tower asks each service for its load. The one here counts its open connections: every connection
//! [holds](meshlib::Io::hold) a share of a counter until it is closed. The load is divided by the endpoint's weight.
//!
//! Run it with the backends, each with a weight after an `@` if it is not 1, and the number of connections to open:
//!
//! ```text
//! cargo run -p examples --example tower_balance -- 127.0.0.1:9001@2,127.0.0.1:9002 6
//! ```
//!
//! It prints the backend of every connection, opens them all before it closes the first, and ends: four to the heavier
//! backend and two to the other one.

use std::env;
use std::error::Error as StdError;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use futures::FutureExt;
use futures::future::BoxFuture;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Io;
use meshlib::Resolver;
use meshlib::Session;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::To;
use meshlib::Weight;
use meshlib::balance::Changes;
use meshlib::balance::Weighted;
use tower::Service;
use tower::ServiceExt;
use tower::balance::p2c::Balance;
use tower::load::Load;

/// Connects to one endpoint and knows how many of the connections are open.
struct ToEndpoint {
    endpoint: Endpoint,
    connect: TcpConnector,
    /// Shared with every connection that is open or being opened.
    open: Arc<()>,
}

impl ToEndpoint {
    fn new(endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.clone(), connect: TcpConnector::default(), open: Arc::new(()) }
    }
}

impl Service<Session> for ToEndpoint {
    type Response = Io;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Io, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, session: Session) -> Self::Future {
        let share = Arc::clone(&self.open);
        let connecting = self.connect.clone().oneshot(To::new(self.endpoint.clone(), session));
        async move {
            let mut io = connecting.await?;
            io.hold(share);
            Ok(io)
        }
        .boxed()
    }
}

impl Load for ToEndpoint {
    type Metric = f64;

    /// One more than the open connections, so that weights count among idle endpoints too.
    fn load(&self) -> f64 {
        Arc::strong_count(&self.open) as f64
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError + Send + Sync>> {
    let backends = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001@2,127.0.0.1:9002".into());
    let connections = env::args().nth(2).map_or(Ok(6), |n| n.parse())?;

    let backends = Static::endpoints(backends.split(',').map(parse).collect::<Result<Vec<_>, _>>()?);
    let changes = Changes::new(backends.resolve("backends"), |endpoint: &Endpoint| {
        Weighted::new(ToEndpoint::new(endpoint), endpoint.weight)
    });
    let mut balance = Balance::new(changes);
    let mut open: Vec<Io> = Vec::new();
    for _ in 0..connections {
        let io = balance.ready().await?.call(Session::default()).await?;
        println!("connected to {:?}", io.peer_addr());
        open.push(io);
    }
    Ok(())
}

/// `ADDRESS` or `ADDRESS@WEIGHT`.
fn parse(arg: &str) -> Result<Endpoint, Box<dyn StdError + Send + Sync>> {
    Ok(match arg.split_once('@') {
        Some((addr, weight)) => Endpoint::new(addr.parse()?).with_weight(Weight::new(weight.parse()?)?),
        None => Endpoint::new(arg.parse()?),
    })
}
