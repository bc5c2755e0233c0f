//! Shares follow weights, idle or busy.

use std::net::SocketAddr;

use meshlib::BalanceLayer;
use meshlib::Endpoint;
use meshlib::Session;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::Weight;
use meshlib::test_util::Echo;
use meshlib::test_util::echo;
use tower::Layer;
use tower::ServiceExt;

use crate::memory::Memory;
use crate::memory::addr;

const WEIGHTS: [f64; 3] = [1.0, 1.0, 0.1];

fn weighted(addrs: [SocketAddr; 3]) -> Static {
    Static::endpoints(
        addrs
            .iter()
            .zip(WEIGHTS)
            .map(|(&addr, weight)| Endpoint::new(addr).with_weight(Weight::new(weight).unwrap())),
    )
}

fn ideal(index: usize) -> f64 {
    WEIGHTS[index] / WEIGHTS.iter().sum::<f64>()
}

/// Draws are from the thread's generator, which starts from a known place.
fn fixed_seed() {
    println!("seed 7");
    fastrand::seed(7);
}

#[tokio::test]
async fn connections_one_after_the_other_follow_the_weights() {
    fixed_seed();
    let (network, addrs) = (Memory::default(), [1, 2, 3].map(addr));
    let connect = BalanceLayer::new(weighted(addrs), "web").layer(network.connector());

    for _ in 0..20_000 {
        drop(connect.clone().oneshot(Session::default()).await.unwrap());
    }

    for (index, addr) in addrs.into_iter().enumerate() {
        let share = network.count(addr) as f64 / 20_000.0;
        assert!((share - ideal(index)).abs() < 0.015, "{share} for {}", WEIGHTS[index]);
    }
}

#[tokio::test]
async fn held_connections_follow_the_weights() {
    fixed_seed();
    let (network, addrs) = (Memory::default(), [1, 2, 3].map(addr));
    let connect = BalanceLayer::new(weighted(addrs), "web").layer(network.connector());

    let mut held = Vec::new();
    for _ in 0..900 {
        held.push(connect.clone().oneshot(Session::default()).await.unwrap());
    }

    for (index, addr) in addrs.into_iter().enumerate() {
        let (count, ideal) = (network.count(addr) as f64, ideal(index) * 900.0);
        assert!((count - ideal).abs() < ideal * 0.1, "{count} instead of {ideal}");
    }
    drop(held);
    assert_eq!(network.open(), 0);
    let view = connect.view().state().unwrap();
    assert!(view.replicas.replicas().iter().all(|replica| replica.in_flight() == 0));
}

#[tokio::test]
async fn connections_over_sockets_follow_the_weights() {
    fixed_seed();
    let backends = [Echo::start().await, Echo::start().await, Echo::start().await];
    let addrs = [0, 1, 2].map(|index: usize| backends[index].addr());
    let connect = BalanceLayer::new(weighted(addrs), "web").layer(TcpConnector::default());

    const CONNECTIONS: usize = 1500;
    for _ in 0..CONNECTIONS {
        let mut io = connect.clone().oneshot(Session::default()).await.unwrap();
        assert_eq!(echo(&mut io, b"x").await.unwrap(), b"x");
    }

    for (index, backend) in backends.iter().enumerate() {
        let share = backend.accepted() as f64 / CONNECTIONS as f64;
        // Three standard deviations of so many draws.
        assert!((share - ideal(index)).abs() < 0.04, "{share} for {}", WEIGHTS[index]);
    }
}

#[tokio::test]
async fn a_weight_of_zero_is_for_when_nothing_else_works() {
    let network = Memory::default();
    let flaky = meshlib::test_util::Flaky::new(network.connector());
    let endpoint = |port, weight| Endpoint::new(addr(port)).with_weight(Weight::new(weight).unwrap());
    let connect = BalanceLayer::new(Static::endpoints([endpoint(1, 1.0), endpoint(2, 0.0)]), "web")
        .layer(flaky.clone());

    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(connect.clone().oneshot(Session::default()).await.unwrap());
    }
    assert_eq!(network.count(addr(2)), 0, "not even beside a busy one");

    flaky.fail(addr(1));
    held.push(connect.clone().oneshot(Session::default()).await.unwrap());
    assert_eq!(network.count(addr(2)), 1);
}

#[tokio::test]
async fn zero_weights_alone_are_used_evenly() {
    fixed_seed();
    let network = Memory::default();
    let endpoints = [1, 2].map(|port| Endpoint::new(addr(port)).with_weight(Weight::ZERO));
    let connect = BalanceLayer::new(Static::endpoints(endpoints), "web").layer(network.connector());

    let mut held = Vec::new();
    for _ in 0..400 {
        held.push(connect.clone().oneshot(Session::default()).await.unwrap());
    }

    assert!((150..=250).contains(&network.count(addr(1))), "{}", network.count(addr(1)));
}
