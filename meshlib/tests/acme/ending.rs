//! The end, while something is under way.

use std::sync::Arc;
use std::sync::Mutex;
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
use tokio::sync::watch;
use tokio::time;
use tokio::time::Instant;

use crate::rig::Rig;
use crate::rig::until;

/// What a store does not answer.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Silence {
    Nothing,
    /// Questions for values.
    Reads,
    /// The same, but only once somebody has a lock.
    ReadsUnderLock,
    /// Requests for locks.
    Locks,
    /// Certificates are refused.
    Certificates,
}

/// A way to a store that does not answer everything, and never tells of a change.
#[derive(Clone)]
pub(crate) struct Silent {
    store: MemoryStore,
    silence: watch::Sender<Silence>,
    /// The locks that were taken.
    locks: Arc<Mutex<Vec<String>>>,
    /// How many certificates were refused.
    refused: Arc<Mutex<usize>>,
}

impl Silent {
    pub(crate) fn new(store: &MemoryStore, silence: Silence) -> Self {
        let silence = watch::Sender::new(silence);
        Self { store: store.clone(), silence, locks: Arc::default(), refused: Arc::default() }
    }

    fn set(&self, silence: Silence) {
        self.silence.send_replace(silence);
    }

    async fn answers(&self, unless: Silence) {
        assert!(self.silence.subscribe().wait_for(|now| *now != unless).await.is_ok());
    }
}

impl KvStore for Silent {
    fn get<'a>(&'a self, key: &'a str, read: Read) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        async move {
            self.answers(Silence::Reads).await;
            if !self.locks.lock().unwrap().is_empty() {
                self.answers(Silence::ReadsUnderLock).await;
            }
            self.store.get(key, read).await
        }
        .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>> {
        async move {
            self.answers(Silence::Reads).await;
            self.store.keys(prefix).await
        }
        .boxed()
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        when: When<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        if *self.silence.borrow() == Silence::Certificates && key.starts_with("edge/certs") {
            *self.refused.lock().unwrap() += 1;
            return std::future::ready(Err(StoreError::Unreachable("refused".into()))).boxed();
        }
        self.store.put(key, value, when)
    }

    fn put_ephemeral<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        lock: &'a Lock,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.store.put_ephemeral(key, value, lock)
    }

    fn delete<'a>(&'a self, key: &'a str, when: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.store.delete(key, when)
    }

    fn watch(&self, _: &str) -> BoxStream<'static, Result<Arc<[Entry]>, StoreError>> {
        futures::stream::pending().boxed()
    }

    fn lock<'a>(
        &'a self,
        key: &'a str,
        options: &'a LockOptions,
    ) -> BoxFuture<'a, Result<Option<Lock>, StoreError>> {
        async move {
            self.answers(Silence::Locks).await;
            self.locks.lock().unwrap().push(key.to_owned());
            self.store.lock(key, options).await
        }
        .boxed()
    }
}

/// How long a manager takes to end that wants a name, 5 s after it was started. Nothing if it had to be forced.
async fn ends_within(store: &Silent) -> Option<Duration> {
    let options = AcmeOptions::new(TestCa::new().client_config()).with_directory("https://127.0.0.1:1/dir");
    let manager = Manager::new(Arc::new(store.clone()), options).unwrap();
    manager.want(["app.example.test"]).unwrap();
    let drain = Drain::new();
    let draining = drain.draining();
    let task = tokio::spawn(async move { manager.run(draining).await });
    time::sleep(Duration::from_secs(5)).await;

    let began = Instant::now();
    let in_time = drain.finish(Duration::from_secs(5)).await;
    task.await.unwrap();
    in_time.then(|| began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_look_at_the_store_is_given_up_at_once() {
    let store = Silent::new(&MemoryStore::new(), Silence::Reads);

    assert_eq!(ends_within(&store).await, Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_given_back_although_nothing_else_is_answered() {
    let store = Silent::new(&MemoryStore::new(), Silence::ReadsUnderLock);

    let took = ends_within(&store).await;

    assert_eq!(took, Some(Duration::ZERO));
    let locks = std::mem::take(&mut *store.locks.lock().unwrap());
    assert_eq!(locks.len(), 1);
    let lock = store.store.lock(&locks[0], &LockOptions::new("test")).await.unwrap();
    lock.expect("it is free").release().await;
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_on_its_way_is_waited_for_a_moment() {
    let store = Silent::new(&MemoryStore::new(), Silence::Locks);

    let took = ends_within(&store).await;

    assert_eq!(took, Some(Duration::from_secs(1)));
}

#[tokio::test]
async fn a_certificate_that_was_issued_is_stored_before_the_end() {
    let Some(rig) = Rig::start().await else { return };
    let store = Silent::new(&rig.store, Silence::Certificates);
    let node = rig.node_on(store.clone()).await;
    node.manager.want(["app.example.test"]).unwrap();
    until(|| (*store.refused.lock().unwrap() > 0).then_some(())).await;

    let stopping = tokio::spawn(node.stop());
    // The end has begun when one more has been refused.
    let refused = *store.refused.lock().unwrap();
    until(|| (*store.refused.lock().unwrap() > refused).then_some(())).await;
    store.set(Silence::Nothing);
    stopping.await.unwrap();

    assert!(rig.key("certs", "app.example.test").await.is_some());
}
