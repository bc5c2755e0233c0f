//! The key-value store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use meshlib::store::KvStore;
use meshlib::store::LockOptions;
use meshlib::store::Read;
use meshlib::store::StoreError;
use meshlib::store::When;
use meshlib_consul::Consistency;
use meshlib_consul::ConsulError;
use meshlib_consul::ConsulKv;
use meshlib_consul::PutOptions;
use meshlib_consul::TxnOp;

use crate::rig::LONG;
use crate::rig::agent;
use crate::rig::client;
use crate::rig::find;
use crate::rig::is_silent;

#[tokio::test]
async fn a_store_keeps_its_conditions() {
    let Some((_agent, consul)) = agent().await else { return };
    let store = ConsulKv::new(consul, "tricot/");

    assert!(store.put("a", "1".into(), When::Absent).await.unwrap());
    assert!(!store.put("a", "2".into(), When::Absent).await.unwrap());
    let version = store.get("a", Read::Latest).await.unwrap().unwrap().version;
    assert!(store.put("a", "3".into(), When::Version(version)).await.unwrap());
    assert!(!store.put("a", "4".into(), When::Version(version)).await.unwrap());
    assert!(!store.put("a", "4".into(), When::Version(0)).await.unwrap());
    assert!(!store.delete("a", When::Version(version)).await.unwrap());
    let entry = store.get("a", Read::Stale).await.unwrap().unwrap();
    assert_eq!((&*entry.key, &entry.value[..]), ("a", &b"3"[..]));
    assert!(store.delete("a", When::Version(entry.version)).await.unwrap());
    assert!(store.delete("a", When::Always).await.unwrap());
    assert!(store.get("a", Read::Latest).await.unwrap().is_none());
    assert!(store.keys("").await.unwrap().is_empty());
}

#[tokio::test]
async fn odd_keys_and_values_come_back_as_they_went() {
    let Some((_agent, consul)) = agent().await else { return };
    let store = ConsulKv::new(consul.clone(), "tricot/");
    let keys = ["certs/*.example.com", "certs/a b?c#d%41", "certs/ü"];

    for key in keys {
        let value = Bytes::from_static(&[0, 255, 10]);
        assert!(store.put(key, value.clone(), When::Always).await.unwrap());
        assert_eq!(store.get(key, Read::Latest).await.unwrap().unwrap().value, value);
        let raw = consul.kv_get_raw(&format!("tricot/{key}"), Consistency::Leader).await.unwrap();
        assert_eq!(raw, Some(value));
    }

    assert_eq!(store.keys("certs/").await.unwrap(), keys.map(Arc::from));
    store.put("certs/empty", Bytes::new(), When::Always).await.unwrap();
    assert!(store.get("certs/empty", Read::Latest).await.unwrap().unwrap().value.is_empty());
    // Consul would take two slashes for one.
    assert!(matches!(store.put("/a", "1".into(), When::Always).await, Err(StoreError::Unfit { .. })));
}

#[tokio::test]
async fn a_value_may_be_half_a_mebibyte_and_no_more() {
    let Some((_agent, consul)) = agent().await else { return };
    let store = ConsulKv::new(consul, "");
    let most = vec![7; 524_288];

    assert!(store.put("big", most.clone().into(), When::Always).await.unwrap());
    assert_eq!(store.get("big", Read::Latest).await.unwrap().unwrap().value.len(), 524_288);
    let more = store.put("big", [most, vec![7]].concat().into(), When::Always).await;

    assert!(matches!(&more, Err(StoreError::Unfit { key, .. }) if key == "big"), "{more:?}");
}

#[tokio::test]
async fn of_eight_writers_one_wins_each_round() {
    let Some((agent, _)) = agent().await else { return };
    let stores: Vec<_> = (0..8).map(|_| ConsulKv::new(client(&agent), "race/")).collect();
    let mut version = None;

    for round in 0..10 {
        let writers = stores.iter().enumerate().map(|(n, store)| async move {
            let when = version.map_or(When::Absent, When::Version);
            store.put("key", format!("{round}:{n}").into(), when).await.unwrap()
        });
        let won = futures::future::join_all(writers).await;

        assert_eq!(won.iter().filter(|won| **won).count(), 1, "round {round}");
        version = stores[0].get("key", Read::Latest).await.unwrap().map(|entry| entry.version);
    }
}

#[tokio::test]
async fn a_watch_says_the_whole_prefix_after_each_change() {
    let Some((_agent, consul)) = agent().await else { return };
    let store = ConsulKv::new(consul, "tricot/");
    let mut certs = store.watch("certs/");
    let keys = |item: Option<Result<Arc<[meshlib::store::Entry]>, StoreError>>| {
        item.unwrap().unwrap().iter().map(|entry| entry.key.to_string()).collect::<Vec<_>>()
    };
    assert!(keys(certs.next().await).is_empty());

    store.put("certs/b", "1".into(), When::Always).await.unwrap();
    assert_eq!(keys(certs.next().await), ["certs/b"]);
    store.put("certs/a", "1".into(), When::Always).await.unwrap();
    assert_eq!(keys(certs.next().await), ["certs/a", "certs/b"]);
    store.put("other", "1".into(), When::Always).await.unwrap();
    store.put("certs/a", "1".into(), When::Always).await.unwrap();
    assert!(is_silent(&mut certs, Duration::from_secs(1)).await, "neither is a change of it");
    store.delete("certs/b", When::Always).await.unwrap();
    assert_eq!(keys(certs.next().await), ["certs/a"]);
}

#[tokio::test]
async fn a_key_can_be_watched_before_it_is_there() {
    let Some((_agent, consul)) = agent().await else { return };
    let mut key = consul.kv_watch("late").unwrap();
    assert!(find(&mut key, LONG, |level| level.value.is_some()).await.value.unwrap().is_none());

    consul.kv_put("late", "here".into(), PutOptions::new().with_flags(42)).await.unwrap();

    let pair =
        find(&mut key, LONG, |level| matches!(level.value, Some(Some(_)))).await.value.unwrap().unwrap();
    assert_eq!((&pair.value[..], pair.flags), (&b"here"[..], 42));
}

#[tokio::test]
async fn a_transaction_is_done_as_a_whole_or_not_at_all() {
    let Some((_agent, consul)) = agent().await else { return };
    let set = |key: &str| TxnOp::Set { key: key.into(), value: "1".into() };
    let stale = TxnOp::Cas { key: "c".into(), value: "1".into(), index: 7 };

    assert!(consul.txn(&[set("a"), set("b")]).await.unwrap().is_ok());
    let problems = consul.txn(&[set("d"), stale]).await.unwrap().unwrap_err();

    assert_eq!(problems[0].operation, 1);
    assert!(problems[0].reason.contains("c"), "{problems:?}");
    assert_eq!(consul.kv_keys("", None, Consistency::Leader).await.unwrap(), ["a".into(), "b".into()]);
    consul.kv_put("dir/x/1", "1".into(), PutOptions::new()).await.unwrap();
    consul.kv_put("dir/x/2", "1".into(), PutOptions::new()).await.unwrap();
    let cut = consul.kv_keys("dir/", Some("/"), Consistency::Leader).await.unwrap();
    assert_eq!(cut, ["dir/x/".into()]);
    consul.kv_delete_prefix("dir/").await.unwrap();
    assert!(consul.kv_list("dir/", Consistency::Leader).await.unwrap().is_empty());
    assert!(matches!(consul.kv_delete_prefix("").await, Err(ConsulError::Key { .. })));
    let too_many: Vec<_> = (0..65).map(|n| set(&n.to_string())).collect();
    assert!(consul.txn(&too_many).await.is_err());
}

#[tokio::test]
async fn what_lives_by_a_lock_goes_with_it() {
    let Some((_agent, consul)) = agent().await else { return };
    let store = ConsulKv::new(consul, "tricot/");
    let first = store.lock("lock", &LockOptions::new("n1")).await.unwrap().unwrap();
    assert_eq!(first.key(), "lock");
    assert!(store.lock("lock", &LockOptions::new("n2")).await.unwrap().is_none());
    assert!(store.put("a", "1".into(), When::Held(&first)).await.unwrap());
    assert!(store.put_ephemeral("challenge/x", "1".into(), &first).await.unwrap());

    let old = meshlib::store::Lock::new("lock", first.token(), async || {});
    first.release().await;

    let second =
        store.lock("lock", &LockOptions::new("n2")).await.unwrap().expect("released, so there is no delay");
    assert!(!store.put("a", "2".into(), When::Held(&old)).await.unwrap());
    assert!(!store.put_ephemeral("b", "2".into(), &old).await.unwrap());
    assert!(store.get("challenge/x", Read::Latest).await.unwrap().is_none());
    assert!(store.put("a", "3".into(), When::Held(&second)).await.unwrap());
    assert!(store.delete("a", When::Held(&second)).await.unwrap());
}
