//! What every store does.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time;

use super::*;

/// What must happen at all must happen within this.
const SOON: Duration = Duration::from_secs(20);

/// Checks a store that is empty.
pub(super) async fn check<S: KvStore>(store: S) {
    conditions_are_checked(&store).await;
    keys_may_go_on_where_others_end(&store).await;
    a_lock_has_one_holder_and_fences_writes(&store).await;
    a_lock_that_is_dropped_is_free(&store).await;
    a_watch_sees_its_prefix_and_nothing_else(store).await;
}

async fn take(store: &impl KvStore) -> Option<Lock> {
    store.lock("lock", &LockOptions::new("me")).await.unwrap()
}

async fn conditions_are_checked(store: &impl KvStore) {
    assert!(store.put("a", "1".into(), When::Absent).await.unwrap());
    assert!(!store.put("a", "2".into(), When::Absent).await.unwrap());
    let version = store.get("a", Read::Latest).await.unwrap().unwrap().version;
    assert!(store.put("a", "3".into(), When::Version(version)).await.unwrap());
    assert!(!store.put("a", "4".into(), When::Version(version)).await.unwrap());
    assert!(!store.delete("a", When::Version(version)).await.unwrap());
    assert_eq!(store.get("a", Read::Stale).await.unwrap().unwrap().value, "3");
    assert!(store.delete("a", When::Always).await.unwrap());
    assert!(store.delete("a", When::Always).await.unwrap());
    assert!(store.get("a", Read::Latest).await.unwrap().is_none());

    let before = store.get("a", Read::Latest).await.unwrap();
    assert!(before.is_none());
    assert!(store.put("a", "1".into(), When::Absent).await.unwrap());
    let again = store.get("a", Read::Latest).await.unwrap().unwrap().version;
    assert_ne!(again, version, "a version does not come again");
    assert!(store.delete("a", When::Version(again)).await.unwrap());
}

async fn keys_may_go_on_where_others_end(store: &impl KvStore) {
    let keys = ["x", "x/y", "x/y.z", "x/\u{fc} %/..", "x0"];
    for key in keys {
        assert!(store.put(key, key.to_owned().into(), When::Absent).await.unwrap());
    }

    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    assert_eq!(store.keys("").await.unwrap(), sorted.iter().map(|key| Arc::from(*key)).collect::<Vec<_>>());
    assert_eq!(store.keys("x/y").await.unwrap(), ["x/y".into(), "x/y.z".into()] as [Arc<str>; 2]);
    assert_eq!(store.keys("none/").await.unwrap(), []);
    for key in keys {
        assert_eq!(store.get(key, Read::Latest).await.unwrap().unwrap().value, key);
        assert!(store.delete(key, When::Always).await.unwrap());
    }
    assert_eq!(store.keys("").await.unwrap(), []);
}

async fn a_lock_has_one_holder_and_fences_writes(store: &impl KvStore) {
    let first = take(store).await.unwrap();
    assert!(take(store).await.is_none());
    assert!(store.put("a", "1".into(), When::Held(&first)).await.unwrap());
    assert!(store.put_ephemeral("b", "1".into(), &first).await.unwrap());
    assert_eq!(store.get("b", Read::Latest).await.unwrap().unwrap().value, "1");

    let old = Lock::new("lock", first.token(), async || {});
    first.release().await;
    let second = take(store).await.unwrap();

    assert!(!store.put("a", "2".into(), When::Held(&old)).await.unwrap());
    assert!(!store.put_ephemeral("a", "2".into(), &old).await.unwrap());
    assert!(store.put("a", "3".into(), When::Held(&second)).await.unwrap());
    assert_eq!(store.keys("").await.unwrap(), [Arc::from("a")], "what lived by the lock went with it");
    second.release().await;
    assert!(store.delete("a", When::Always).await.unwrap());
}

async fn a_lock_that_is_dropped_is_free(store: &impl KvStore) {
    let lock = take(store).await.unwrap();
    assert!(store.put_ephemeral("b", "1".into(), &lock).await.unwrap());

    drop(lock);

    let freed = async {
        loop {
            match take(store).await {
                Some(lock) => return lock,
                None => time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let lock = time::timeout(SOON, freed).await.expect("it is free soon");
    assert_eq!(store.keys("").await.unwrap(), []);
    lock.release().await;
}

async fn a_watch_sees_its_prefix_and_nothing_else(store: impl KvStore) {
    let mut watch = store.watch("certs/");
    let mut sees = async |expected: &[&str]| {
        loop {
            let seen = time::timeout(SOON, watch.next()).await.expect("it sees it").unwrap().unwrap();
            assert!(seen.iter().all(|entry| entry.key.starts_with("certs/")));
            let keys: Vec<_> = seen.iter().map(|entry| &*entry.key).collect();
            if keys == expected {
                return;
            }
        }
    };
    sees(&[]).await;

    store.put("certs/b", "1".into(), When::Always).await.unwrap();
    sees(&["certs/b"]).await;
    store.put("other", "1".into(), When::Always).await.unwrap();
    store.put("certs/a", "1".into(), When::Always).await.unwrap();
    sees(&["certs/a", "certs/b"]).await;
    store.put("certs/a", "2".into(), When::Always).await.unwrap();
    sees(&["certs/a", "certs/b"]).await;
    store.delete("certs/b", When::Always).await.unwrap();
    sees(&["certs/a"]).await;

    drop(store);
    assert!(time::timeout(SOON, watch.next()).await.expect("it ends with the store").is_none());
}
