//! The store is out of reach for a while.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use meshlib::Drain;
use meshlib::store::Entry;
use meshlib::store::KvStore;
use meshlib::store::Lock;
use meshlib::store::LockOptions;
use meshlib::store::MemoryStore;
use meshlib::store::Read;
use meshlib::store::StoreError;
use meshlib::store::When;
use meshlib::test_util::TestCa;
use meshlib::tls::acme::AcmeOptions;
use meshlib::tls::acme::Manager;
use meshlib::tls::acme::NameState;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time;
use tokio::time::Instant;

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

/// A store without certificates whose locks are asked for until it goes, and never had once it is back.
#[derive(Default)]
struct Away {
    state: watch::Sender<AwayState>,
    looks: AtomicUsize,
    locks: AtomicUsize,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum AwayState {
    #[default]
    Well,
    Gone,
    Back,
}

impl Away {
    fn set(&self, state: AwayState) {
        self.state.send_replace(state);
    }

    /// How often it was asked for a value and for a lock since the last time.
    fn asked(&self) -> (usize, usize) {
        (self.looks.swap(0, Ordering::SeqCst), self.locks.swap(0, Ordering::SeqCst))
    }

    fn unless_gone<T: Send + 'static>(&self, answer: T) -> BoxFuture<'_, Result<T, StoreError>> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let gone = *self.state.borrow() == AwayState::Gone;
        let answer = if gone { Err(StoreError::Unreachable("gone".into())) } else { Ok(answer) };
        std::future::ready(answer).boxed()
    }
}

impl KvStore for Away {
    fn get<'a>(&'a self, _: &'a str, _: Read) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        self.unless_gone(None)
    }

    fn keys<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>> {
        self.unless_gone(Vec::new())
    }

    fn put<'a>(&'a self, _: &'a str, _: Bytes, _: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.unless_gone(true)
    }

    fn put_ephemeral<'a>(
        &'a self,
        _: &'a str,
        _: Bytes,
        _: &'a Lock,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.unless_gone(false)
    }

    fn delete<'a>(&'a self, _: &'a str, _: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.unless_gone(true)
    }

    fn watch(&self, _: &str) -> BoxStream<'static, Result<Arc<[Entry]>, StoreError>> {
        futures::stream::pending().boxed()
    }

    fn lock<'a>(&'a self, _: &'a str, _: &'a LockOptions) -> BoxFuture<'a, Result<Option<Lock>, StoreError>> {
        self.locks.fetch_add(1, Ordering::SeqCst);
        let (mut state, asked) = (self.state.subscribe(), *self.state.borrow());
        async move {
            let goes = state.wait_for(|now| *now == AwayState::Gone && asked != AwayState::Back).await;
            assert!(goes.is_ok());
            Err(StoreError::Unreachable("gone".into()))
        }
        .boxed()
    }
}

/// A manager that runs, over a store and with no authority.
fn run(store: Arc<Away>) -> (Manager, Drain, JoinHandle<()>) {
    let options = AcmeOptions::new(TestCa::new().client_config()).with_directory("https://127.0.0.1:1/dir");
    let manager = Manager::new(store, options).unwrap();
    let drain = Drain::new();
    let (running, draining) = (manager.clone(), drain.draining());
    let task = tokio::spawn(async move { running.run(draining).await });
    (manager, drain, task)
}

#[tokio::test(start_paused = true)]
async fn while_the_store_fails_one_look_tells_for_all_names() {
    const NAMES: usize = 6000;
    let store = Arc::<Away>::default();
    let (manager, ..) = run(Arc::clone(&store));
    manager.want((0..NAMES).map(|n| format!("www.site-{n}.example"))).unwrap();
    time::sleep(Duration::from_secs(5)).await;
    let (looks, locks) = store.asked();
    assert!(looks >= NAMES && locks == 10, "each is looked at, ten are ordered: {looks}, {locks}");

    store.set(AwayState::Gone);
    time::sleep(Duration::from_secs(60)).await;
    let (looks, locks) = store.asked();
    assert!((10..50).contains(&looks) && locks == 0, "{looks} looks and {locks} orders in a minute");
    let view = manager.view();
    assert!(view.iter().all(|name| name.state == NameState::BackingOff && name.error.is_some()));

    store.set(AwayState::Back);
    let back = Instant::now();
    while store.locks.load(Ordering::SeqCst) == 0 {
        time::sleep(Duration::from_millis(10)).await;
    }
    assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
    time::sleep(Duration::from_secs(5)).await;
    let (looks, locks) = store.asked();
    assert!(locks == 10 && looks < 100, "they go on as before: {locks} orders, {looks} looks");
    assert!(manager.view().iter().all(|name| name.state == NameState::Renewing));
}

#[tokio::test(start_paused = true)]
async fn names_that_are_wanted_while_the_store_fails_wait_with_the_others() {
    let store = Arc::<Away>::default();
    store.set(AwayState::Gone);
    let (manager, ..) = run(Arc::clone(&store));
    manager.want(["a.example"]).unwrap();
    time::sleep(Duration::from_secs(10)).await;
    store.asked();

    manager.want((0..6000).map(|n| format!("www.site-{n}.example"))).unwrap();
    time::sleep(Duration::from_secs(10)).await;

    let (looks, _) = store.asked();
    assert!((2..10).contains(&looks), "{looks} looks");
    store.set(AwayState::Back);
    time::sleep(Duration::from_secs(10)).await;
    let (looks, locks) = store.asked();
    assert!(looks >= 6000 && locks == 10, "{looks} looks, {locks} orders");
}
