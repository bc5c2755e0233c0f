//! A proxy that fills one backend before it uses the next.
//!
//! Shows both ways to choose among replicas. [`FillFirst`] is a [`Balancer`]: once per set of endpoints it prepares a
//! [`Picker`], here by sorting, so that a pick has little left to do. A rule that needs no preparation is a closure given
//! to [`balance::from_fn`]. Whichever it is, failing replicas are left alone by the layer around it; a picker only has to
//! ask whether a replica is usable.
//!
//! Run it with the address to listen at (port 0: a free one), the backends, and how to choose: `fill` (each backend up
//! to two connections, in the order of their addresses; for what is to be shut down when idle) or `idlest` (the one with
//! the fewest connections of all):
//!
//! ```text
//! cargo run -p examples --example custom_balancer -- 127.0.0.1:7474 127.0.0.1:9001,127.0.0.1:9002 fill
//! ```
//!
//! It prints the backend of every connection. Ctrl-C ends it.

use std::env;
use std::sync::Arc;

use meshlib::BalanceLayer;
use meshlib::Drain;
use meshlib::Server;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::TcpProxy;
use meshlib::balance;
use meshlib::balance::Balancer;
use meshlib::balance::Hints;
use meshlib::balance::Picker;
use meshlib::balance::Replica;
use meshlib::balance::ReplicaSet;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use tower::Layer;

/// Uses a replica up to a number of connections before it uses the next, in the order of addresses.
#[derive(Debug)]
struct FillFirst {
    most: u32,
}

impl Balancer for FillFirst {
    fn prepare(&self, replicas: &ReplicaSet) -> Box<dyn Picker> {
        let mut order: Vec<usize> = (0..replicas.replicas().len()).collect();
        order.sort_by_key(|&index| replicas.replicas()[index].endpoint().addr);
        // The set is shared, not copied: what is known about the replicas stays current inside it.
        Box::new(InOrder { replicas: replicas.clone(), order, most: self.most })
    }
}

/// The replicas of one set in the order in which they are filled.
struct InOrder {
    replicas: ReplicaSet,
    order: Vec<usize>,
    most: u32,
}

impl Picker for InOrder {
    fn pick(&self, hints: &Hints<'_>) -> Option<&Replica> {
        let in_order = self.order.iter().map(|&index| &self.replicas.replicas()[index]);
        in_order
            .filter(|replica| replica.usable(hints))
            .find(|replica| replica.in_flight() < self.most)
            // When all are full any of them is as good as another, and refusing is not a balancer's business.
            .or_else(|| self.replicas.any_usable(hints))
    }
}

/// The index of the usable replica with the fewest connections.
fn idlest(set: &ReplicaSet, hints: &Hints<'_>) -> Option<usize> {
    let usable = set.replicas().iter().enumerate().filter(|(_, replica)| replica.usable(hints));
    usable.min_by_key(|(_, replica)| replica.in_flight()).map(|(index, _)| index)
}

/// Prints where connections go.
#[derive(Debug)]
struct Report;

impl Observer for Report {
    fn on(&self, event: &Event<'_>) {
        if let Event::Attempt { endpoint, .. } = event {
            println!("to {}", endpoint.addr);
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arg = |n, default: &str| env::args().nth(n).unwrap_or_else(|| default.into());
    let listen = arg(1, "127.0.0.1:7474");
    let backends = arg(2, "127.0.0.1:9001,127.0.0.1:9002");

    let backends = Static::new(backends.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?);
    let layer = BalanceLayer::new(backends, "backends").observe(Arc::new(Report));
    let layer = match arg(3, "fill").as_str() {
        "fill" => layer.balancer(FillFirst { most: 2 }),
        "idlest" => layer.balancer(balance::from_fn(idlest)),
        other => return Err(format!("{other}: neither fill nor idlest").into()),
    };

    let server = Server::bind(listen).await?;
    let drain = Drain::on_signals();
    println!("listening at {}", server.local_addr());
    server.serve(TcpProxy::new(layer.layer(TcpConnector::default())), drain).await?;
    Ok(())
}
