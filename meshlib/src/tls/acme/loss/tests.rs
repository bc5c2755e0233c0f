use std::time::Duration;
use std::time::SystemTime;

use futures::future::join;

use super::super::AcmeOptions;
use super::super::Manager;
use super::super::account;
use super::super::certificate;
use super::super::clock::Clock;
use super::super::record::Stored;
use super::*;
use crate::store::KvStore;
use crate::store::MemoryStore;
use crate::test_util::TestCa;

const NAMES: [&str; 3] = ["a.test", "b.test", "c.test"];

fn node(store: &MemoryStore) -> Manager {
    Manager::new(Arc::new(store.clone()), AcmeOptions::new(TestCa::new().client_config())).unwrap()
}

/// A value of the store with a new certificate.
fn record(name: &str) -> Bytes {
    let (cert, certificate) = certificate::tests::certificate(name);
    let pems = (cert.chain_pem(), cert.key_pem());
    let mut stored = Stored::new(&certificate, pems, ("https://ca.test", "elsewhere"), None);
    stored.others.insert("theirs".into(), "kept".into());
    stored.to_json().into()
}

/// A store with a certificate for each name, announced, and a node that has looked at all of them.
async fn filled() -> (MemoryStore, Manager) {
    let store = MemoryStore::new();
    let manager = node(&store);
    let shared = &manager.shared;
    for name in NAMES {
        put(shared, &shared.layout.certificate(name), record(name)).await;
        let certificate = shared.load(name).await.unwrap().certificate.unwrap();
        let announcement = Announcement::new(&certificate).to_json();
        put(shared, &shared.layout.announcement(name), announcement.into()).await;
    }
    shared.try_sweep().await.unwrap();
    (store, manager)
}

async fn put(shared: &Shared, key: &str, value: Bytes) {
    assert!(shared.store.put(key, value, When::Always).await.unwrap());
}

async fn delete(shared: &Shared, key: &str) {
    assert!(shared.store.delete(key, When::Always).await.unwrap());
}

/// What the store has but for its mark.
async fn values(store: &MemoryStore) -> Vec<(Arc<str>, Bytes)> {
    let mut values = Vec::new();
    for key in store.keys("").await.unwrap() {
        if !key.ends_with("/mark") {
            let entry = store.get(&key, Read::Latest).await.unwrap().unwrap();
            values.push((key, entry.value));
        }
    }
    values
}

async fn lose_all(store: &MemoryStore) {
    for key in store.keys("").await.unwrap() {
        store.delete(&key, When::Always).await.unwrap();
    }
}

#[tokio::test]
async fn two_nodes_write_back_together_what_was_there() {
    let (store, one) = filled().await;
    let two = node(&store);
    two.shared.try_sweep().await.unwrap();
    let before = values(&store).await;
    assert_eq!(before.len(), 2 * NAMES.len());

    lose_all(&store).await;
    let (first, second) = join(one.shared.restore(), two.shared.restore()).await;

    first.unwrap();
    second.unwrap();
    assert_eq!(values(&store).await, before);
}

#[tokio::test]
async fn a_newer_certificate_stays() {
    let (store, manager) = filled().await;
    let shared = &manager.shared;

    lose_all(&store).await;
    let newer = record(NAMES[0]);
    put(shared, &shared.layout.certificate(NAMES[0]), newer.clone()).await;
    shared.restore().await.unwrap();

    let now = values(&store).await;
    assert!(now.contains(&(shared.layout.certificate(NAMES[0]).into(), newer)));
    // Its own node announces it.
    assert!(!now.iter().any(|(key, _)| **key == *shared.layout.announcement(NAMES[0])));
    assert_eq!(now.len(), 2 * NAMES.len() - 1);
}

#[tokio::test]
async fn what_was_deleted_on_purpose_stays_deleted() {
    let (store, manager) = filled().await;
    let shared = &manager.shared;
    delete(shared, &shared.layout.certificate(NAMES[0])).await;
    delete(shared, &shared.layout.announcement(NAMES[0])).await;
    delete(shared, &shared.layout.certificate(NAMES[1])).await;
    let left = values(&store).await;
    assert_eq!(left.len(), 3);

    shared.restore().await.unwrap();
    assert_eq!(values(&store).await, left, "the mark is there");
    shared.try_sweep().await.unwrap();
    lose_all(&store).await;
    shared.restore().await.unwrap();

    let back: Vec<_> = values(&store).await.into_iter().map(|(key, _)| key).collect();
    let expected = [shared.layout.announcement(NAMES[2]), shared.layout.certificate(NAMES[2])];
    assert_eq!(back, expected.map(Arc::from));
    assert!(manager.certificates().get(NAMES[0]).is_some(), "it is served on");
}

#[tokio::test]
async fn what_was_deleted_and_put_there_again_is_written_back() {
    let (store, manager) = filled().await;
    let shared = &manager.shared;
    let (key, before) = (shared.layout.certificate(NAMES[0]), values(&store).await);
    let value = store.get(&key, Read::Latest).await.unwrap().unwrap().value;
    delete(shared, &key).await;
    shared.try_sweep().await.unwrap();
    put(shared, &key, value).await;
    shared.try_sweep().await.unwrap();

    lose_all(&store).await;
    shared.restore().await.unwrap();

    assert_eq!(values(&store).await, before);
}

/// A clock two days ahead, when all has expired.
#[derive(Debug)]
struct Ahead;

impl Clock for Ahead {
    fn now(&self) -> SystemTime {
        SystemTime::now() + Duration::from_secs(2 * 24 * 3600)
    }
}

#[tokio::test]
async fn what_has_expired_is_not_written_back() {
    let (store, manager) = filled().await;
    let options = AcmeOptions::new(TestCa::new().client_config()).with_clock(Arc::new(Ahead));
    let late = Manager::new(Arc::new(store.clone()), options).unwrap();
    late.shared.restore().await.unwrap();
    for certificate in manager.shared.certs.all() {
        let value = Bytes::from(certificate.stored().unwrap().to_json());
        late.shared.certs.insert(manager.shared.certs.parse(&certificate.name, &value).unwrap());
    }

    lose_all(&store).await;
    late.shared.restore().await.unwrap();

    assert_eq!(values(&store).await, []);
}

#[tokio::test]
async fn the_account_comes_back_with_its_key_unless_it_was_deleted() {
    let (store, manager) = filled().await;
    let shared = &manager.shared;
    let json = account::tests::account();
    put(shared, &shared.layout.account(), json.clone()).await;
    assert!(shared.stored_account().await.unwrap().is_some());

    lose_all(&store).await;
    shared.restore().await.unwrap();
    let back = values(&store).await;
    assert!(back.contains(&(shared.layout.account().into(), json)));
    let key = shared.layout.account_key().unwrap();
    assert!(back.iter().any(|(other, pem)| **other == *key && pem.starts_with(b"-----BEGIN PRIVATE KEY")));

    delete(shared, &shared.layout.account()).await;
    assert!(shared.stored_account().await.unwrap().is_none());
    lose_all(&store).await;
    shared.restore().await.unwrap();
    assert!(!values(&store).await.iter().any(|(key, _)| key.contains("account")));
}
