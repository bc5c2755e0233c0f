//! What lies in the store, whoever has put it there.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use meshlib::store::KvStore;
use meshlib::store::When;
use meshlib::test_util::CertOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::TestCert;
use tokio::time;

use crate::rig::FIRST;
use crate::rig::Rig;
use crate::rig::until;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn json(name: &str, cert: &TestCert, key: &TestCert) -> String {
    let (key_pem, cert_pem) = (key.key_pem(), cert.chain_pem());
    let value = serde_json::json!({
        "hostname": name, "date": "2026-01-01", "valid_days": 90, "key_pem": key_pem, "cert_pem": cert_pem,
        "theirs": {"kept": true},
    });
    value.to_string()
}

/// The folder of certificates of the authority, which has its mark.
async fn folder(rig: &Rig) -> String {
    let node = rig.node().await;
    node.manager.want(["first.example.test"]).unwrap();
    node.proven("first.example.test", &rig.pebble.issuing_roots().await).await;
    node.stop().await;
    let key = rig.key("certs", "first.example.test").await.unwrap();
    key.strip_suffix("first.example.test").unwrap().to_owned()
}

#[tokio::test]
async fn what_is_of_no_use_is_ordered_anew() {
    let Some(rig) = Rig::start().await else { return };
    let (roots, folder, ca) = (rig.pebble.issuing_roots().await, folder(&rig).await, TestCa::new());
    let good = ca.issue(["key.example.test"]);
    let expired = ca.issue_with(["expired.example.test"], &CertOptions::default().expired());
    let later = SystemTime::now() + DAY;
    let later = CertOptions::default().with_validity(later, later + DAY);
    let later = ca.issue_with(["later.example.test"], &later);
    let foreign = ca.issue(["somebody.example.test"]);
    let cases = [
        ("json.example.test", "{\"hostname\":".to_owned()),
        ("pem.example.test", r#"{"hostname":"x","key_pem":"x","cert_pem":"y"}"#.to_owned()),
        ("key.example.test", json("key.example.test", &good, &foreign)),
        ("expired.example.test", json("expired.example.test", &expired, &expired)),
        ("later.example.test", json("later.example.test", &later, &later)),
        ("foreign.example.test", json("foreign.example.test", &foreign, &foreign)),
    ];
    for (name, value) in &cases {
        rig.put(&format!("{folder}{name}"), value.clone()).await;
    }

    let node = rig.node().await;
    node.manager.want(cases.iter().map(|(name, _)| *name)).unwrap();

    for (name, _) in &cases {
        node.proven(name, &roots).await;
        assert_eq!(node.orders.of(name), [Ok(())]);
    }
    node.stop().await;
    assert_eq!(rig.json("certs", "expired.example.test").await.unwrap()["theirs"]["kept"], true);
}

#[tokio::test]
async fn what_another_program_wrote_is_found_without_an_announcement() {
    let Some(rig) = Rig::start().await else { return };
    let (folder, ca) = (folder(&rig).await, TestCa::new());
    let put = async |name: &'static str| {
        let cert = ca.issue([name]);
        rig.put(&format!("{folder}{name}"), json(name, &cert, &cert)).await;
        cert.certificate().to_vec()
    };

    let listed = put("listed.example.test").await;
    let wanted = put("wanted.example.test").await;
    let node = rig.node().await;
    node.manager.want(["wanted.example.test"]).unwrap();
    let certs = node.manager.certificates();
    until(|| certs.get("listed.example.test")).await;
    assert_eq!(node.shows("listed.example.test").await, listed);
    until(|| certs.get("wanted.example.test")).await;
    assert_eq!(node.shows("wanted.example.test").await, wanted);

    let later = put("later.example.test").await;
    assert_eq!(node.shows("later.example.test").await, later, "a handshake looks into the store");
    assert_eq!(node.orders.len(), 0);
}

#[tokio::test]
async fn without_preloading_only_what_is_asked_for_is_in_memory() {
    let Some(rig) = Rig::start().await else { return };
    let folder = folder(&rig).await;
    let cert = TestCa::new().issue(["there.example.test"]);
    rig.put(&format!("{folder}there.example.test"), json("there.example.test", &cert, &cert)).await;
    let node = rig.node_with(FIRST, rig.options().with_preload(false)).await;
    node.manager.want(["other.example.test"]).unwrap();
    node.proven("other.example.test", &rig.pebble.issuing_roots().await).await;
    let certs = node.manager.certificates();

    assert!(certs.get("there.example.test").is_none());
    assert!(certs.is_worth_finding("There.example.test"));
    assert_eq!(node.shows("there.example.test").await, cert.certificate().to_vec());
    assert!(certs.get("there.example.test").is_some());
    assert!(certs.find("nowhere.example.test").await.is_none());
    assert!(!certs.is_worth_finding("nowhere.example.test"), "for a while");
}

#[tokio::test]
async fn certificates_that_nobody_wants_go_long_after_they_expired() {
    for preload in [true, false] {
        old_ones_go(preload).await;
    }
}

async fn old_ones_go(preload: bool) {
    let Some(rig) = Rig::start().await else { return };
    let (folder, ca, now) = (folder(&rig).await, TestCa::new(), SystemTime::now());
    for (name, ago) in [("old.example.test", 31), ("recent.example.test", 29), ("needed.example.test", 31)] {
        let end = now - ago * DAY;
        let cert = ca.issue_with([name], &CertOptions::default().with_validity(end - DAY, end));
        rig.put(&format!("{folder}{name}"), json(name, &cert, &cert)).await;
    }
    rig.pebble.servfail("needed.example.test").await;

    let node = rig.node_with(FIRST, rig.options().with_preload(preload)).await;
    node.manager.want(["needed.example.test"]).unwrap();

    let gone = async {
        while rig.key("certs", "old.example.test").await.is_some() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(Duration::from_secs(10), gone).await.expect("the old one goes");
    assert!(rig.key("certs", "recent.example.test").await.is_some());
    assert!(rig.key("certs", "needed.example.test").await.is_some());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_node_with_a_directory_remembers_certificates_and_failures() {
    use meshlib::store::DirStore;
    use meshlib::tls::acme::NameState;

    let Some(rig) = Rig::with(|options| options.with_blocked("blocked.example.test")).await else { return };
    let (dir, roots) = (tempfile::tempdir().unwrap(), rig.pebble.issuing_roots().await);
    let names = ["app.example.test", "blocked.example.test"];
    let node = rig.node_on(DirStore::open(dir.path()).await.unwrap()).await;
    node.manager.want(names).unwrap();
    let leaf = node.proven(names[0], &roots).await;
    assert_eq!(node.orders.failure(names[1]).await, "rejectedIdentifier");
    node.stop().await;

    let node = rig.node_on(DirStore::open(dir.path()).await.unwrap()).await;
    node.manager.want(names).unwrap();
    assert_eq!(node.proven(names[0], &roots).await, leaf);
    until(|| (node.view(names[1]).state == NameState::BackingOff).then_some(())).await;
    assert_eq!(node.orders.len(), 0);
    node.stop().await;
    let store = DirStore::open(dir.path()).await.unwrap();
    assert!(!store.keys("").await.unwrap().iter().any(|key| key.contains("challenge")));
}

#[tokio::test]
async fn an_operators_own_certificate_replaces_ours() {
    let Some(rig) = Rig::start().await else { return };
    let roots = rig.pebble.issuing_roots().await;
    let node = rig.node().await;
    node.manager.want(["app.example.test"]).unwrap();
    node.proven("app.example.test", &roots).await;
    let key = rig.key("certs", "app.example.test").await.unwrap();
    let announcement: Arc<str> = rig.key("acme/certs", "app.example.test").await.unwrap();

    let cert = TestCa::new().issue(["app.example.test"]);
    rig.put(&key, json("app.example.test", &cert, &cert)).await;
    let news = r#"{"fingerprint":"another","not_after":"2030-01-01T00:00:00Z"}"#;
    assert!(rig.store.put(&announcement, news.into(), When::Always).await.unwrap());

    let certs = node.manager.certificates();
    until(|| certs.get("app.example.test").filter(|key| key.cert[0] == cert.certificate())).await;
}
