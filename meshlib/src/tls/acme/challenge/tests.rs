use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::BoxStream;
use tokio::sync::Semaphore;
use tokio::time;
use tower::ServiceExt;

use super::*;
use crate::error::Error;
use crate::store::Entry;
use crate::store::KvStore;
use crate::store::Lock;
use crate::store::LockOptions;
use crate::store::MemoryStore;
use crate::store::Read;
use crate::store::StoreError;
use crate::store::When;
use crate::tls::acme::options::PRODUCTION;

/// A store that counts reads, has stale copies of nothing, and answers when it may.
struct Watched {
    inner: MemoryStore,
    reads: AtomicUsize,
    at_a_time: AtomicUsize,
    most: AtomicUsize,
    may: Semaphore,
}

impl Watched {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            reads: AtomicUsize::new(0),
            at_a_time: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            may: Semaphore::new(permits),
        })
    }
}

struct Ended<'a>(&'a AtomicUsize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl KvStore for Watched {
    fn get<'a>(&'a self, key: &'a str, read: Read) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        async move {
            self.reads.fetch_add(1, Ordering::SeqCst);
            let now = self.at_a_time.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            // Many are given up before they have an answer.
            let _ended = Ended(&self.at_a_time);
            self.may.acquire().await.unwrap().forget();
            match read {
                Read::Stale => Ok(None),
                Read::Latest => self.inner.get(key, read).await,
            }
        }
        .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>> {
        self.inner.keys(prefix)
    }

    fn put<'a>(&'a self, k: &'a str, v: Bytes, when: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.inner.put(k, v, when)
    }

    fn put_ephemeral<'a>(
        &'a self,
        k: &'a str,
        v: Bytes,
        lock: &'a Lock,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.inner.put_ephemeral(k, v, lock)
    }

    fn delete<'a>(&'a self, key: &'a str, when: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.inner.delete(key, when)
    }

    fn watch(&self, prefix: &str) -> BoxStream<'static, Result<Arc<[Entry]>, StoreError>> {
        self.inner.watch(prefix)
    }

    fn lock<'a>(
        &'a self,
        key: &'a str,
        options: &'a LockOptions,
    ) -> BoxFuture<'a, Result<Option<Lock>, StoreError>> {
        self.inner.lock(key, options)
    }
}

fn challenges(store: Arc<Watched>) -> Challenges {
    let lookup = Lookup::new(store, Duration::from_secs(1));
    Challenges::new(lookup.into(), Layout::new("", PRODUCTION).into())
}

fn request(method: Method, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_known_token_is_answered_with_its_proof_and_nothing_else() {
    let store = Watched::new(100);
    store.inner.put("challenge/tok_en-1", "tok_en-1.thumb".into(), When::Always).await.unwrap();
    let elsewhere = tower::service_fn(async |_| Ok::<_, Error>(Response::new(Body::from("elsewhere"))));
    let service = challenges(Arc::clone(&store)).layer(elsewhere);
    let ask = async |method, path: &str| {
        let response = service.clone().oneshot(request(method, path)).await.unwrap();
        let (head, body) = response.into_parts();
        (head.status.as_u16(), head.headers, body.collect(1000).await.unwrap())
    };

    let (status, headers, body) = ask(Method::GET, "/.well-known/acme-challenge/tok_en-1").await;
    assert_eq!((status, &*body), (200, &b"tok_en-1.thumb"[..]));
    assert_eq!(headers[CONTENT_TYPE], "application/octet-stream");
    assert_eq!(ask(Method::HEAD, "/.well-known/acme-challenge/tok_en-1").await.0, 200);
    assert_eq!(ask(Method::POST, "/.well-known/acme-challenge/tok_en-1").await.0, 405);
    assert_eq!(ask(Method::GET, "/.well-known/acme-challenge/other").await.0, 404);
    assert_eq!(&*ask(Method::GET, "/.well-known/other").await.2, b"elsewhere");
    let reads = store.reads.load(Ordering::SeqCst);
    for odd in ["", "a/b", "..%2f..", "a.b", &"a".repeat(129)] {
        assert_eq!(ask(Method::GET, &format!("/.well-known/acme-challenge/{odd}")).await.0, 404, "{odd}");
    }
    assert_eq!(store.reads.load(Ordering::SeqCst), reads, "what is no token is not looked for");
}

#[tokio::test(start_paused = true)]
async fn a_missing_token_is_looked_for_once_a_second() {
    let store = Watched::new(100);
    let challenges = challenges(Arc::clone(&store));

    for _ in 0..100 {
        assert!(challenges.http01("tok").await.is_none());
    }
    assert_eq!(store.reads.load(Ordering::SeqCst), 2, "a stale read and a good one");

    store.inner.put("challenge/tok", "x".into(), When::Always).await.unwrap();
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(challenges.http01("tok").await.unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_asked_by_few_and_not_waited_for() {
    let store = Watched::new(0);
    let challenges = challenges(Arc::clone(&store));
    let began = time::Instant::now();

    let asking = (0..500).map(|n| {
        let challenges = challenges.clone();
        async move { challenges.http01(&format!("tok{n}")).await }
    });
    let answers = futures::future::join_all(asking).await;

    assert!(answers.iter().all(Option::is_none));
    assert_eq!(began.elapsed().as_secs(), 2);
    assert_eq!(store.most.load(Ordering::SeqCst), 50);
}

#[tokio::test(start_paused = true)]
async fn so_many_keys_are_read_in_a_second() {
    let store = Watched::new(10_000);
    let lookup = Lookup::new(store.clone(), Duration::from_secs(10)).with_most_per_second(7);

    for second in 1..3 {
        for n in 0..100 {
            assert!(lookup.value(&format!("certs/{second}.{n}")).await.is_none());
        }
        assert_eq!(store.reads.load(Ordering::SeqCst), 2 * 7 * second, "each is looked for twice");
        time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn what_this_node_has_placed_needs_no_store() {
    let store = Watched::new(0);
    let challenges = challenges(Arc::clone(&store));

    let own = challenges.lookup.answer_with("challenge/tok", "mine".into());
    assert_eq!(challenges.http01("tok").await.unwrap(), "mine");
    drop(own);

    assert_eq!(store.reads.load(Ordering::SeqCst), 0);
    store.may.add_permits(10);
    assert!(challenges.http01("tok").await.is_none());
}
