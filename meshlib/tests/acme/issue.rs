//! A node gets a certificate.

use std::time::Duration;

use meshlib::store::KvStore;
use meshlib::store::Read;
use meshlib::tls::acme::NameState;
use tokio::time;
use tokio::time::Instant;

use crate::rig::FIRST;
use crate::rig::Rig;
use crate::rig::SOON;

#[tokio::test]
async fn a_name_is_served_self_signed_and_soon_with_a_certificate() {
    let Some(rig) = Rig::start().await else { return };
    let node = rig.node().await;
    let roots = rig.pebble.issuing_roots().await;

    let before = node.shows("app.example.test").await;
    assert!(node.proves("app.example.test", &roots).await.is_none());
    let began = Instant::now();
    node.manager.want(["App.Example.Test."]).unwrap();

    let leaf = node.proven("app.example.test", &roots).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_ne!(leaf, before);
    let view = node.view("app.example.test");
    assert!(view.not_after.is_some());
    // The order's lock is released a moment after the certificate is served.
    node.stop().await;
    rig.assert_no_challenges().await;
    assert_eq!(rig.pebble.orders(), 1);
    let stored = rig.json("certs", "app.example.test").await.unwrap();
    assert_eq!(stored["hostname"], "app.example.test");
    assert_eq!(stored["valid_days"], 90);
    let announced = rig.json("acme/certs", "app.example.test").await.unwrap();
    assert_eq!(announced["fingerprint"].as_str().unwrap().len(), 64);
    assert_eq!(announced["not_after"], stored["not_after"]);
}

#[tokio::test]
async fn a_name_is_proven_in_a_tls_handshake() {
    let Some(rig) = Rig::start().await else { return };
    let node = rig.node_with(FIRST, rig.by_tls()).await;

    node.manager.want(["app.example.test"]).unwrap();

    node.proven("app.example.test", &rig.pebble.issuing_roots().await).await;
    node.stop().await;
    rig.assert_no_challenges().await;
}

#[tokio::test]
async fn a_stored_certificate_is_served_without_an_order() {
    let Some(rig) = Rig::start().await else { return };
    let roots = rig.pebble.issuing_roots().await;
    let first = rig.node().await;
    first.manager.want(["app.example.test"]).unwrap();
    let leaf = first.proven("app.example.test", &roots).await;
    first.stop().await;

    let second = rig.node().await;
    second.manager.want(["app.example.test"]).unwrap();

    assert_eq!(second.proven("app.example.test", &roots).await, leaf);
    assert_eq!(second.view("app.example.test").state, NameState::Valid);
    assert_eq!(rig.pebble.orders(), 1);
}

#[tokio::test]
async fn authorizations_that_are_valid_already_need_no_proof() {
    let Some(rig) = Rig::with(|options| options.with_reused_authorizations(100)).await else { return };
    let roots = rig.pebble.issuing_roots().await;
    let node = rig.node().await;
    node.manager.want(["app.example.test"]).unwrap();
    let leaf = node.proven("app.example.test", &roots).await;

    // Nothing leads here any more, and the certificate is gone.
    rig.pebble.servfail("app.example.test").await;
    node.stop().await;
    let key = rig.key("certs", "app.example.test").await.unwrap();
    rig.store.delete(&key, meshlib::store::When::Always).await.unwrap();
    let node = rig.node().await;
    node.manager.want(["app.example.test"]).unwrap();

    assert_ne!(node.proven("app.example.test", &roots).await, leaf);
}

#[tokio::test]
async fn refused_nonces_are_replaced() {
    let Some(rig) = Rig::with(|options| options.with_bad_nonces(30)).await else { return };
    let node = rig.node().await;
    let names: Vec<_> = (0..6).map(|n| format!("app.example{n}.test")).collect();

    node.manager.want(&names).unwrap();

    let roots = rig.pebble.issuing_roots().await;
    for name in &names {
        node.proven(name, &roots).await;
        assert_eq!(node.orders.of(name), [Ok(())]);
    }
}

#[tokio::test]
async fn many_names_are_ordered_a_few_at_a_time() {
    const WINDOW: Duration = Duration::from_secs(2);

    let Some(rig) = Rig::start().await else { return };
    let options = rig.options().with_orders(10, WINDOW).with_max_per_domain(50);
    let node = rig.node_with(FIRST, options).await;
    let names: Vec<_> = (0..50).map(|n| format!("app{n}.example.test")).collect();

    node.manager.want(&names).unwrap();
    let mut seen = vec![(Instant::now(), 0)];
    let all = async {
        while rig.pebble.orders() < names.len() {
            seen.push((Instant::now(), rig.pebble.orders()));
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(SOON, all).await.expect("all are ordered");

    // What the authority counts lags behind by the time of a request.
    let slack = Duration::from_millis(500);
    for (from, before) in &seen {
        let within = seen.iter().filter(|(at, _)| *at >= *from && *at - *from < WINDOW - slack);
        let most = within.map(|(_, orders)| orders - before).max().unwrap_or(0);
        assert!(most <= 10, "{most} orders within {WINDOW:?}");
    }
    let roots = rig.pebble.issuing_roots().await;
    for name in &names {
        node.proven(name, &roots).await;
    }
    node.stop().await;
    assert_eq!(rig.pebble.orders(), names.len(), "one for each");
    rig.assert_no_challenges().await;
}

#[tokio::test]
async fn the_account_is_registered_once_and_kept() {
    let Some(rig) = Rig::start().await else { return };
    let node = rig.node_with(FIRST, rig.options().with_contact("ops@example.test")).await;
    let names: Vec<_> = (0..4).map(|n| format!("app.example{n}.test")).collect();

    node.manager.want(&names).unwrap();
    let roots = rig.pebble.issuing_roots().await;
    for name in &names {
        node.proven(name, &roots).await;
    }

    let keys = rig.store.keys("edge/acme/").await.unwrap();
    let accounts: Vec<_> = keys.iter().filter(|key| key.ends_with("/account.json")).collect();
    assert_eq!(accounts.len(), 1);
    let account = rig.store.get(accounts[0], Read::Latest).await.unwrap().unwrap();
    let account: serde_json::Value = serde_json::from_slice(&account.value).unwrap();
    assert_eq!(account["contact"][0], "mailto:ops@example.test");
    let registered = rig.pebble.said().matches("There are now").count();
    assert!(rig.pebble.said().contains("There are now 1 accounts"), "{registered}");
    assert!(!rig.pebble.said().contains("There are now 2 accounts"));
}
