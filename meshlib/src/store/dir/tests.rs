use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::process::Stdio;

use tempfile::TempDir;

use super::*;
use crate::test_util::or_skip;
use crate::test_util::require_programs;

async fn opened(dir: &TempDir) -> DirStore {
    DirStore::open(dir.path().join("store")).await.unwrap()
}

#[tokio::test]
async fn it_behaves_like_a_store() {
    let dir = tempfile::tempdir().unwrap();

    crate::store::behaviour::check(opened(&dir).await).await;
}

#[tokio::test]
async fn two_stores_of_a_directory_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (opened(&dir).await, opened(&dir).await);
    let mut watch = other.watch("a");
    assert!(watch.next().await.unwrap().unwrap().is_empty());

    let lock = one.lock("lock", &LockOptions::new("me")).await.unwrap().unwrap();
    assert!(other.lock("lock", &LockOptions::new("you")).await.unwrap().is_none());
    assert!(one.put_ephemeral("a", "1".into(), &lock).await.unwrap());

    assert_eq!(watch.next().await.unwrap().unwrap()[0].value, "1");
    assert_eq!(opened(&dir).await.keys("").await.unwrap(), [Arc::from("a")], "its lock is held");
    lock.release().await;
    assert!(watch.next().await.unwrap().unwrap().is_empty());
    assert!(other.lock("lock", &LockOptions::new("you")).await.unwrap().is_some());
}

#[tokio::test]
async fn what_a_dead_process_held_is_free_and_what_lived_by_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(&dir).await;
    let lock = store.lock("lock", &LockOptions::new("me")).await.unwrap().unwrap();
    assert!(store.put_ephemeral("a/b", "1".into(), &lock).await.unwrap());
    assert!(store.put("a/c", "1".into(), When::Held(&lock)).await.unwrap());
    let files = dir.path().join("store");
    let (lock_file, value_file) = (files.join("locks/lock"), files.join("values/a/b="));
    let left = (fs::read(&lock_file).unwrap(), fs::read(&value_file).unwrap());
    lock.release().await;
    let leave_behind = || {
        fs::write(&lock_file, &left.0).unwrap();
        fs::write(&value_file, &left.1).unwrap();
    };

    leave_behind();
    assert!(store.get("a/b", Read::Latest).await.unwrap().is_none(), "at once");
    let next = store.lock("lock", &LockOptions::new("you")).await.unwrap().unwrap();
    assert!(!value_file.exists());
    assert!(store.put_ephemeral("a/b", "2".into(), &next).await.unwrap());
    next.release().await;

    leave_behind();
    let _ = opened(&dir).await;
    assert!(!value_file.exists() && !lock_file.exists(), "it is removed when the store is opened");
    assert_eq!(store.keys("").await.unwrap(), [Arc::from("a/c")]);
}

#[tokio::test]
async fn another_process_holds_its_locks_until_it_ends() {
    let Some(()) = or_skip(require_programs(&["flock"])) else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = opened(&dir).await;
    let file = dir.path().join("store/locks/lock");
    fs::write(&file, "7\nanother\n").unwrap();
    let mut holder = Command::new("flock");
    holder.arg("-x").arg(&file).args(["sh", "-c", "echo; exec cat"]);
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0]).unwrap();

    assert!(store.lock("lock", &LockOptions::new("me")).await.unwrap().is_none());
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert!(store.lock("lock", &LockOptions::new("me")).await.unwrap().is_some());
}

#[tokio::test]
async fn only_the_owner_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(&dir).await;
    store.put("certs/a", "secret".into(), When::Always).await.unwrap();
    let _lock = store.lock("lock", &LockOptions::new("me")).await.unwrap().unwrap();

    let mut paths = vec![dir.path().join("store")];
    while let Some(path) = paths.pop() {
        let data = fs::metadata(&path).unwrap();
        assert_eq!(data.permissions().mode() & 0o077, 0, "{}", path.display());
        if data.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(!format!("{store:?}").contains("secret"));
}

#[tokio::test]
async fn files_that_make_no_sense_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(&dir).await;
    store.put("a/good", "1".into(), When::Always).await.unwrap();
    let values = dir.path().join("store/values/a");
    fs::write(values.join("bad="), "no version").unwrap();
    fs::write(values.join("%zz="), "1\nx").unwrap();
    fs::write(values.join(".hidden="), "1\nx").unwrap();
    fs::write(dir.path().join("store/state"), "nonsense").unwrap();

    assert!(matches!(store.get("a/bad", Read::Latest).await, Err(StoreError::Garbled(_))));
    let seen = store.watch("a/").next().await.unwrap().unwrap();
    assert_eq!(seen.iter().map(|entry| &*entry.key).collect::<Vec<_>>(), ["a/good"]);
    let before = seen[0].version;
    assert!(store.put("a/good", "2".into(), When::Version(before)).await.unwrap());
    assert!(store.get("a/good", Read::Latest).await.unwrap().unwrap().version > before);
    assert!(store.put("a/bad", "1".into(), When::Always).await.unwrap(), "it can be replaced");
    assert!(matches!(store.put("a//b", "1".into(), When::Always).await, Err(StoreError::Unfit { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_one_wins_each_version() {
    let dir = tempfile::tempdir().unwrap();
    let stores = [opened(&dir).await, opened(&dir).await];
    stores[0].put("n", "0".into(), When::Always).await.unwrap();

    let adding = (0..8).map(|n| {
        let store = stores[n % 2].clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                loop {
                    let now = store.get("n", Read::Latest).await.unwrap().unwrap();
                    let n: u32 = std::str::from_utf8(&now.value).unwrap().parse().unwrap();
                    let next = (n + 1).to_string();
                    if store.put("n", next.into(), When::Version(now.version)).await.unwrap() {
                        break;
                    }
                }
            }
        })
    });
    for done in futures::future::join_all(adding).await {
        done.unwrap();
    }

    assert_eq!(stores[1].get("n", Read::Latest).await.unwrap().unwrap().value, "80");
}
