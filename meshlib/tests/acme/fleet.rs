//! Several nodes share a store.

use std::time::Duration;

use meshlib::store::KvStore;
use meshlib::test_util::Pebble;
use meshlib::test_util::PebbleOptions;
use meshlib::test_util::or_skip;
use tokio::net::TcpListener;
use tokio::time;

use crate::rig::FIRST;
use crate::rig::Rig;
use crate::rig::SECOND;
use crate::rig::SOON;
use crate::rig::until;

#[tokio::test]
async fn two_nodes_order_a_name_once_and_both_serve_it() {
    let Some(rig) = Rig::start().await else { return };
    let roots = rig.pebble.issuing_roots().await;
    let nodes = [rig.node().await, rig.node_with(SECOND, rig.options()).await];

    for node in &nodes {
        node.manager.want(["app.example.test"]).unwrap();
    }

    let leaves = [
        nodes[0].proven("app.example.test", &roots).await,
        nodes[1].proven("app.example.test", &roots).await,
    ];
    assert_eq!(leaves[0], leaves[1]);
    assert_eq!(rig.pebble.orders(), 1);
}

#[tokio::test]
async fn a_node_answers_for_the_one_that_ordered() {
    let Some(rig) = Rig::start().await else { return };
    let roots = rig.pebble.issuing_roots().await;
    let by_http = [rig.node().await, rig.node_with(SECOND, rig.options()).await];
    rig.pebble.set_a("app.example.test", &[SECOND]).await;

    by_http[0].manager.want(["app.example.test"]).unwrap();

    by_http[0].proven("app.example.test", &roots).await;
    assert!(by_http[1].orders.of("app.example.test").is_empty());
    for node in by_http {
        node.stop().await;
    }

    let by_tls = [rig.node_with(FIRST, rig.by_tls()).await, rig.node_with(SECOND, rig.by_tls()).await];
    rig.pebble.set_a("tls.example.test", &[SECOND]).await;
    by_tls[0].manager.want(["tls.example.test"]).unwrap();

    let leaf = by_tls[0].proven("tls.example.test", &roots).await;
    assert_eq!(by_tls[1].proven("tls.example.test", &roots).await, leaf, "the announcement is followed");
    assert!(by_tls[1].orders.of("tls.example.test").is_empty());
}

#[tokio::test]
async fn another_node_finishes_what_a_killed_one_began() {
    let Some(rig) = Rig::start().await else { return };
    let roots = rig.pebble.issuing_roots().await;
    // The authority asks somebody who listens and says nothing: the order hangs after the proof was placed.
    let first = rig.node().await;
    let hole = TcpListener::bind((SECOND, rig.http_port())).await.unwrap();
    rig.pebble.set_a("app.example.test", &[SECOND]).await;
    first.manager.want(["app.example.test"]).unwrap();
    let (_asked, _) = time::timeout(SOON, hole.accept()).await.expect("the authority asks").unwrap();
    assert_eq!(rig.store.keys("edge/challenge/").await.unwrap().len(), 1);

    first.kill().await;
    drop(hole);
    rig.pebble.set_a("app.example.test", &[FIRST]).await;
    let second = rig.node().await;
    second.manager.want(["app.example.test"]).unwrap();

    second.proven("app.example.test", &roots).await;
    second.stop().await;
    rig.assert_no_challenges().await;
}

#[tokio::test]
async fn directories_side_by_side_do_not_mix() {
    let Some(rig) = Rig::start().await else { return };
    let other = PebbleOptions::default().always_valid();
    let Some(other) = or_skip(Pebble::start(other).await) else { return };
    let (roots, other_roots) = (rig.pebble.issuing_roots().await, other.issuing_roots().await);
    let node = rig.node().await;
    let options = meshlib::tls::acme::AcmeOptions::new(other.client_config())
        .with_directory(other.directory())
        .with_prefix("edge/");
    let other_node = rig.node_with(SECOND, options).await;

    node.manager.want(["app.example.test"]).unwrap();
    other_node.manager.want(["app.example.test"]).unwrap();

    node.proven("app.example.test", &roots).await;
    other_node.proven("app.example.test", &other_roots).await;
    // Long enough for each to be told of the other's certificate, if it were to be.
    until(|| (rig.pebble.orders() == 1 && other.orders() == 1).then_some(())).await;
    time::sleep(Duration::from_millis(200)).await;
    assert!(node.proves("app.example.test", &roots).await.is_some());
    assert!(other_node.proves("app.example.test", &other_roots).await.is_some());
}
