//! The authority is away, or has forgotten us.

use std::time::Duration;

use meshlib::store::KvStore;
use meshlib::store::When;
use meshlib::tls::acme::NameState;
use tokio::time;

use crate::rig::Rig;
use crate::rig::until;

#[tokio::test]
async fn a_node_starts_without_the_authority() {
    let Some(mut rig) = Rig::start().await else { return };
    rig.pebble.kill();
    let node = rig.node().await;

    node.manager.want(["app.example.test"]).unwrap();
    assert_eq!(node.orders.failure("app.example.test").await, "unreachable");
    node.shows("app.example.test").await;
    until(|| (node.view("app.example.test").state == NameState::BackingOff).then_some(())).await;
    assert!(rig.json("acme/backoff", "app.example.test").await.is_none(), "others may be better off");
    rig.pebble.restart().await;

    node.proven("app.example.test", &rig.pebble.issuing_roots().await).await;
}

#[tokio::test]
async fn an_authority_that_has_forgotten_the_account_is_told_again() {
    let Some(mut rig) = Rig::start().await else { return };
    let node = rig.node().await;
    node.manager.want(["app.example.test"]).unwrap();
    node.proven("app.example.test", &rig.pebble.issuing_roots().await).await;
    let account = rig.json("acme/", "account.json").await.unwrap();

    rig.pebble.restart().await;
    node.manager.want(["app.example.test", "other.example.test"]).unwrap();

    node.proven("other.example.test", &rig.pebble.issuing_roots().await).await;
    assert_eq!(node.orders.of("other.example.test"), [Ok(())]);
    let again = rig.json("acme/", "account.json").await.unwrap();
    assert_eq!(again["key_pkcs8"], account["key_pkcs8"], "the same key");
}

#[tokio::test]
async fn an_authority_that_hangs_holds_up_nobody() {
    let Some(rig) = Rig::start().await else { return };
    let roots = rig.pebble.issuing_roots().await;
    let node = rig.node().await;
    node.manager.want(["app.example.test"]).unwrap();
    let leaf = node.proven("app.example.test", &roots).await;

    rig.pebble.pause();
    node.manager.want(["app.example.test", "other.example.test"]).unwrap();
    until(|| (node.view("other.example.test").state == NameState::Renewing).then_some(())).await;
    let served =
        time::timeout(Duration::from_secs(5), node.proves("app.example.test", &roots)).await.unwrap();
    assert_eq!(served.unwrap(), leaf);
    node.shows("other.example.test").await;
    rig.pebble.resume();

    node.proven("other.example.test", &roots).await;
}

#[tokio::test]
async fn an_account_that_makes_no_sense_is_not_overwritten() {
    let Some(rig) = Rig::start().await else { return };
    let node = rig.node().await;
    node.manager.want(["app.example.test"]).unwrap();
    node.proven("app.example.test", &rig.pebble.issuing_roots().await).await;
    let key = rig.key("acme/", "account.json").await.unwrap();
    rig.put(&key, "not JSON").await;

    node.manager.want(["other.example.test"]).unwrap();

    assert_eq!(node.orders.failure("other.example.test").await, "account");
    assert!(rig.store.put(&key, "x".into(), When::Absent).await.is_ok_and(|written| !written));
}
