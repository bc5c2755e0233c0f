//! The store is out of reach for a while.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use meshlib::store::Entry;
use meshlib::store::KvStore;
use meshlib::store::Lock;
use meshlib::store::LockOptions;
use meshlib::store::MemoryStore;
use meshlib::store::Read;
use meshlib::store::StoreError;
use meshlib::store::When;

use crate::rig::Rig;
use crate::rig::SECOND;
use crate::rig::until;

/// A way to a store that breaks when the test says so. Watches go on: they are another connection.
#[derive(Clone)]
struct Breaking {
    store: MemoryStore,
    broken: Arc<AtomicBool>,
}

impl Breaking {
    fn new(store: &MemoryStore) -> Self {
        Self { store: store.clone(), broken: Arc::new(true.into()) }
    }

    fn mend(&self) {
        self.broken.store(false, Ordering::SeqCst);
    }

    fn unless_broken<'a, T: Send + 'a>(
        &self,
        work: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        if self.broken.load(Ordering::SeqCst) {
            std::future::ready(Err(StoreError::Unreachable("broken".into()))).boxed()
        } else {
            work
        }
    }
}

impl KvStore for Breaking {
    fn get<'a>(&'a self, key: &'a str, read: Read) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        self.unless_broken(self.store.get(key, read))
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>> {
        self.unless_broken(self.store.keys(prefix))
    }

    fn put<'a>(&'a self, k: &'a str, v: Bytes, when: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.unless_broken(async move { self.store.put(k, v, when).await }.boxed())
    }

    fn put_ephemeral<'a>(
        &'a self,
        k: &'a str,
        v: Bytes,
        lock: &'a Lock,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.unless_broken(async move { self.store.put_ephemeral(k, v, lock).await }.boxed())
    }

    fn delete<'a>(&'a self, key: &'a str, when: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.unless_broken(async move { self.store.delete(key, when).await }.boxed())
    }

    fn watch(&self, prefix: &str) -> BoxStream<'static, Result<Arc<[Entry]>, StoreError>> {
        self.store.watch(prefix)
    }

    fn lock<'a>(
        &'a self,
        key: &'a str,
        options: &'a LockOptions,
    ) -> BoxFuture<'a, Result<Option<Lock>, StoreError>> {
        self.unless_broken(async move { self.store.lock(key, options).await }.boxed())
    }
}

#[tokio::test]
async fn a_node_starts_without_the_store() {
    let Some(rig) = Rig::start().await else { return };
    let store = Breaking::new(&rig.store);
    let node = rig.node_on(store.clone()).await;

    node.manager.want(["app.example.test"]).unwrap();
    let view = until(|| Some(node.view("app.example.test")).filter(|view| view.error.is_some())).await;
    assert!(view.error.unwrap().contains("out of reach"));
    node.shows("app.example.test").await;
    assert_eq!(rig.pebble.orders(), 0);
    store.mend();

    node.proven("app.example.test", &rig.pebble.issuing_roots().await).await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_when_it_is_announced_is_read_later() {
    let Some(rig) = Rig::start().await else { return };
    let roots = rig.pebble.issuing_roots().await;
    let store = Breaking::new(&rig.store);
    let reader = rig.node_on(store.clone()).await;
    let writer = rig.node_with(SECOND, rig.options()).await;
    rig.pebble.set_a("app.example.test", &[SECOND]).await;

    writer.manager.want(["app.example.test"]).unwrap();
    let leaf = writer.proven("app.example.test", &roots).await;
    writer.stop().await;
    assert!(reader.manager.certificates().get("app.example.test").is_none());
    store.mend();

    let certs = reader.manager.certificates();
    until(|| certs.get("app.example.test").filter(|key| *key.cert[0] == *leaf)).await;
}
