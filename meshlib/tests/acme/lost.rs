//! A store that has lost what it had, as one in memory that was restarted.

use std::sync::Arc;
use std::time::Duration;

use meshlib::Drain;
use meshlib::store::KvStore;
use meshlib::store::MemoryStore;
use meshlib::store::When;
use meshlib::tls::acme::Manager;
use tokio::time;

use crate::clock::Set;
use crate::ending::Silence;
use crate::ending::Silent;
use crate::rig::Rig;
use crate::rig::SECOND;
use crate::rig::SOON;
use crate::rig::lifetime_secs;

async fn lose_all(store: &MemoryStore) {
    for key in store.keys("").await.unwrap() {
        store.delete(&key, When::Always).await.unwrap();
    }
}

async fn is_back(rig: &Rig, kind: &str, name: &str) {
    let back = async {
        while rig.key(kind, name).await.is_none() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(SOON, back).await.unwrap_or_else(|_| panic!("{kind} of {name} is written back"));
}

#[tokio::test]
async fn what_a_node_has_in_memory_is_written_back_and_not_ordered_again() {
    const NAMES: [&str; 2] = ["app.example.test", "www.example.test"];
    let Some(rig) = Rig::start().await else { return };
    let roots = rig.pebble.issuing_roots().await;
    let nodes = [rig.node().await, rig.node_with(SECOND, rig.options()).await];
    for node in &nodes {
        node.manager.want(NAMES).unwrap();
    }
    let mut leaves = Vec::new();
    for name in NAMES {
        leaves.push(nodes[0].proven(name, &roots).await);
        nodes[1].proven(name, &roots).await;
    }
    let account = rig.json("acme", "account.json").await.unwrap();
    let before = rig.json("certs", NAMES[0]).await.unwrap();

    lose_all(&rig.store).await;
    for name in NAMES {
        is_back(&rig, "certs", name).await;
        is_back(&rig, "acme/certs", name).await;
    }
    is_back(&rig, "acme", "account.json").await;

    assert_eq!(rig.json("certs", NAMES[0]).await.unwrap(), before);
    assert_eq!(rig.json("acme", "account.json").await.unwrap(), account);
    for node in nodes {
        node.stop().await;
    }
    let fresh = rig.node().await;
    fresh.manager.want(NAMES).unwrap();
    for (name, leaf) in NAMES.iter().zip(&leaves) {
        assert_eq!(&fresh.proven(name, &roots).await, leaf);
    }
    assert_eq!(rig.pebble.orders(), NAMES.len());
}

#[tokio::test]
async fn what_is_due_is_written_back_before_it_is_ordered() {
    const NAME: &str = "app.example.test";
    let Some(mut rig) = Rig::start().await else { return };
    let node = rig.node().await;
    node.manager.want([NAME]).unwrap();
    let leaf = node.proven(NAME, &rig.pebble.issuing_roots().await).await;
    node.stop().await;
    let before = rig.json("certs", NAME).await.unwrap();
    let account = rig.json("acme", "account.json").await.unwrap();
    let (clock, store) = (Set::now(), Silent::new(&rig.store, Silence::Nothing));
    let manager = Manager::new(Arc::new(store), rig.options().with_clock(clock.clone())).unwrap();
    manager.want([NAME]).unwrap();
    let (running, draining) = (manager.clone(), Drain::new().draining());
    tokio::spawn(async move { running.run(draining).await });
    manager.certificates().issued(NAME).await;
    // It orders nothing, and has read the account at its start all the same.
    time::sleep(Duration::from_millis(200)).await;

    rig.pebble.kill();
    lose_all(&rig.store).await;
    clock.advance(Duration::from_secs(lifetime_secs(&leaf).unsigned_abs() * 3 / 4));
    manager.wake();

    is_back(&rig, "certs", NAME).await;
    assert_eq!(rig.json("certs", NAME).await.unwrap(), before);
    assert_eq!(rig.json("acme", "account.json").await.unwrap(), account);
}
