//! Names that get no certificate.

use std::time::Duration;

use meshlib::test_util::PebbleOptions;
use meshlib::tls::acme::AcmeError;
use meshlib::tls::acme::AcmeOptions;
use meshlib::tls::acme::ExternalAccount;
use meshlib::tls::acme::NameState;
use tokio::time;

use crate::rig::FIRST;
use crate::rig::Rig;
use crate::rig::SECOND;
use crate::rig::until;

#[tokio::test]
async fn a_blocked_name_is_left_alone_by_all_nodes_and_after_a_restart() {
    let blocked = |options: PebbleOptions| options.with_blocked("blocked.example.test");
    let Some(rig) = Rig::with(blocked).await else { return };
    let roots = rig.pebble.issuing_roots().await;
    let node = rig.node().await;

    node.manager.want(["blocked.example.test", "app.example.test"]).unwrap();

    node.proven("app.example.test", &roots).await;
    assert_eq!(node.orders.failure("blocked.example.test").await, "rejectedIdentifier");
    let view = until(|| Some(node.view("blocked.example.test")).filter(|v| v.retry_after.is_some())).await;
    assert_eq!(view.state, NameState::BackingOff);
    assert!(view.error.unwrap().contains("rejectedIdentifier"));
    let stored = rig.json("acme/backoff", "blocked.example.test").await.unwrap();
    assert_eq!(stored["failures"], 1);
    node.stop().await;

    let again = [rig.node().await, rig.node_with(SECOND, rig.options()).await];
    for node in &again {
        node.manager.want(["blocked.example.test"]).unwrap();
        let view =
            until(|| Some(node.view("blocked.example.test")).filter(|v| v.retry_after.is_some())).await;
        assert_eq!(view.state, NameState::BackingOff);
        assert_eq!(node.orders.len(), 0);
    }
    // Unless somebody says that things have changed.
    again[0].manager.retry("blocked.example.test").await.unwrap();
    assert_eq!(again[0].orders.failure("blocked.example.test").await, "rejectedIdentifier");
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_tried_again_with_growing_pauses() {
    let Some(rig) = Rig::start().await else { return };
    let roots = rig.pebble.issuing_roots().await;
    rig.pebble.servfail("app.example.test").await;
    let node = rig.node().await;

    node.manager.want(["app.example.test"]).unwrap();
    until(|| (node.orders.of("app.example.test").len() == 2).then_some(())).await;
    assert!(node.orders.of("app.example.test").iter().all(Result::is_err));
    until(|| node.view("app.example.test").error).await;
    assert_eq!(rig.json("acme/backoff", "app.example.test").await.unwrap()["failures"], 2);
    rig.pebble.clear_servfail("app.example.test").await;

    node.proven("app.example.test", &roots).await;
    node.stop().await;
    assert!(rig.json("acme/backoff", "app.example.test").await.is_none());
    rig.assert_no_challenges().await;
}

#[tokio::test]
async fn what_is_no_host_name_is_never_ordered() {
    let Some(rig) = Rig::start().await else { return };
    let node = rig.node().await;

    let refused = node.manager.want(["a_b.example.test", "127.0.0.1", "*.example.test", "app.example.test"]);

    assert_eq!(refused, Err(AcmeError::Name { name: "a_b.example.test".into() }));
    assert!(node.manager.request("b\u{fc}cher.example.test").is_err());
    node.proven("app.example.test", &rig.pebble.issuing_roots().await).await;
    assert_eq!(node.manager.view().len(), 1);
    assert_eq!(rig.pebble.orders(), 1);
}

#[tokio::test]
async fn an_external_account_is_bound_where_one_is_asked_for() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let Some(rig) = Rig::with(|options| options.with_external_account("kid-1", key)).await else { return };

    let without = rig.node().await;
    without.manager.want(["app.example.test"]).unwrap();
    assert_eq!(without.orders.failure("app.example.test").await, "external_account");
    without.stop().await;
    assert_eq!(rig.pebble.orders(), 0);

    let account = ExternalAccount::new("kid-1", key).unwrap();
    assert!(!format!("{account:?}").contains(key));
    let with = rig.node_with(FIRST, rig.options().with_external_account(account)).await;
    with.manager.want(["app.example.test"]).unwrap();
    with.proven("app.example.test", &rig.pebble.issuing_roots().await).await;
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    use std::sync::Arc;

    use meshlib::store::MemoryStore;
    use meshlib::test_util::TestCa;
    use meshlib::tls::acme::Manager;

    let options = || AcmeOptions::new(TestCa::new().client_config());
    let manager = |options| Manager::new(Arc::new(MemoryStore::new()), options).map(|_| ());

    assert_eq!(manager(options()), Ok(()));
    for url in ["http://ca.test/dir", "ca.test", "", "https://"] {
        let refused = manager(options().with_directory(url));
        assert_eq!(refused, Err(AcmeError::Directory { url: url.into() }));
    }
    assert_eq!(manager(options().with_challenges([])), Err(AcmeError::NoChallenge));
    assert_eq!(ExternalAccount::new("kid", "not base64!").map(|_| ()), Err(AcmeError::ExternalKey));
}

#[tokio::test]
async fn a_name_that_is_wanted_no_more_is_not_ordered() {
    let Some(rig) = Rig::start().await else { return };
    rig.pebble.servfail("app.example.test").await;
    let node = rig.node().await;
    node.manager.want(["app.example.test"]).unwrap();
    node.orders.failure("app.example.test").await;

    node.manager.want(["other.example.test"]).unwrap();

    node.proven("other.example.test", &rig.pebble.issuing_roots().await).await;
    let before = node.orders.of("app.example.test").len();
    // Its pause would be over.
    time::sleep(Duration::from_secs(3)).await;
    assert_eq!(node.orders.of("app.example.test").len(), before);
    assert_eq!(node.manager.view().len(), 1);
}
