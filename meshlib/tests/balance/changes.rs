//! The set changes while connections live.

use meshlib::BalanceLayer;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Session;
use meshlib::TcpConnector;
use meshlib::Unavailable;
use meshlib::test_util::Echo;
use meshlib::test_util::Scripted;
use meshlib::test_util::Updates;
use meshlib::test_util::echo;
use tower::Layer;
use tower::ServiceExt;

use crate::memory::Memory;
use crate::memory::addr;

/// Lets the balancer see what discovery said.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

async fn say(updates: &Updates, ports: &[u16]) {
    updates.endpoints(ports.iter().map(|&port| addr(port)));
    settle().await;
}

#[tokio::test]
async fn removed_endpoint_keeps_its_connections_and_gets_no_more() {
    let (resolver, updates) = Scripted::new();
    let (first, second) = (Echo::start().await, Echo::start().await);
    let connect = BalanceLayer::new(resolver, "web").layer(TcpConnector::default());
    updates.endpoints([first.addr()]);
    let mut io = connect.clone().oneshot(Session::default()).await.unwrap();
    assert_eq!(echo(&mut io, b"there").await.unwrap(), b"there");

    updates.endpoints([second.addr()]);
    settle().await;

    for _ in 0..20 {
        let mut other = connect.clone().oneshot(Session::default()).await.unwrap();
        echo(&mut other, b"elsewhere").await.unwrap();
    }
    assert_eq!((first.accepted(), second.accepted()), (1, 20));
    assert_eq!(echo(&mut io, b"still here").await.unwrap(), b"still here");
    let view = connect.view().state().unwrap();
    assert_eq!((view.replicas.replicas().len(), view.retired), (1, 1));

    drop(io);
    assert_eq!(connect.view().state().unwrap().retired, 0);
}

#[tokio::test]
async fn an_endpoint_that_returns_keeps_its_load() {
    let (resolver, updates) = Scripted::new();
    let network = Memory::default();
    let connect = BalanceLayer::new(resolver, "web").layer(network.connector());
    say(&updates, &[1]).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(connect.clone().oneshot(Session::default()).await.unwrap());
    }

    say(&updates, &[2]).await;
    say(&updates, &[1, 2]).await;
    for _ in 0..10 {
        held.push(connect.clone().oneshot(Session::default()).await.unwrap());
    }

    // Ten are open to the first; all new ones go to the second until it has as many.
    assert_eq!((network.count(addr(1)), network.count(addr(2))), (10, 10));
}

#[tokio::test]
async fn a_new_weight_counts_from_the_next_choice() {
    let (resolver, updates) = Scripted::new();
    let network = Memory::default();
    let connect = BalanceLayer::new(resolver, "web").layer(network.connector());
    updates.weighted([(addr(1), 1.0), (addr(2), 0.0)]);
    for _ in 0..100 {
        connect.clone().oneshot(Session::default()).await.unwrap();
    }
    assert_eq!(network.count(addr(2)), 0);

    updates.weighted([(addr(1), 0.0), (addr(2), 1.0)]);
    settle().await;
    for _ in 0..100 {
        connect.clone().oneshot(Session::default()).await.unwrap();
    }

    assert_eq!((network.count(addr(1)), network.count(addr(2))), (100, 100));
}

#[tokio::test]
async fn registrations_of_one_address_add_up_unless_they_have_names() {
    let (resolver, updates) = Scripted::new();
    let connect = BalanceLayer::new(resolver, "web").layer(Memory::default().connector());

    updates.set([1, 1, 2].map(|port| Endpoint::new(addr(port))));
    connect.ready().await;
    let view = connect.view().state().unwrap();
    let mut weights: Vec<_> =
        view.replicas.replicas().iter().map(|replica| replica.endpoint().weight.get()).collect();
    weights.sort_by(f64::total_cmp);
    assert_eq!(weights, [1.0, 2.0]);

    updates.set(["a", "b"].map(|instance| Endpoint::new(addr(1)).with_instance(instance)));
    settle().await;
    assert_eq!(connect.view().state().unwrap().replicas.replicas().len(), 2);
}

#[tokio::test]
async fn a_name_that_ceases_to_exist_gets_no_more_connections() {
    let (resolver, updates) = Scripted::new();
    let connect = BalanceLayer::new(resolver, "web").layer(Memory::default().connector());
    say(&updates, &[1]).await;
    let _io = connect.clone().oneshot(Session::default()).await.unwrap();

    updates.not_found();
    settle().await;

    let error = connect.clone().oneshot(Session::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { reason: Unavailable::NotFound, .. }), "{error:?}");
    assert_eq!(connect.view().state().unwrap().resolved, Some(false));
}

#[tokio::test]
async fn the_resolution_ends_with_the_last_balancer() {
    let (resolver, updates) = Scripted::new();
    let connect = BalanceLayer::new(resolver, "web").layer(Memory::default().connector());
    updates.endpoints([addr(1)]);
    connect.ready().await;
    let view = connect.view();
    let clone = connect.clone();
    drop(connect);
    assert_eq!(updates.subscribers(), 1);

    drop(clone);
    settle().await;

    assert_eq!(updates.subscribers(), 0);
    assert!(view.state().is_none());
}
