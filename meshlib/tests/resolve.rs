//! `Keep`: one stream for all, retried, with the last good set kept.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as loudly as the test")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use meshlib::Endpoint;
use meshlib::Resolution;
use meshlib::Resolver;
use meshlib::Update;
use meshlib::backoff::Backoff;
use meshlib::resolve::Keep;
use meshlib::resolve::ResolveError;
use meshlib::test_util::Scripted;
use tokio::time;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn addr(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

fn found(ports: &[u16]) -> Update {
    Update::endpoints(ports.iter().map(|&port| Endpoint::new(addr(port))))
}

fn failure() -> ResolveError {
    ResolveError::Status { name: "web".into(), status: 503 }
}

async fn next(resolution: &mut Resolution) -> Option<Result<Update, ResolveError>> {
    time::timeout(3600 * SECOND, resolution.next()).await.expect("something is said")
}

#[tokio::test(start_paused = true)]
async fn subscribers_share_one_stream_per_name() {
    let (resolver, updates) = Scripted::new();
    let keep = Keep::new(resolver);
    let mut subscribers: Vec<_> = (0..10).map(|_| keep.resolve("web")).collect();
    updates.endpoints([addr(1)]);

    for subscriber in &mut subscribers {
        assert_eq!(next(subscriber).await.unwrap().unwrap(), found(&[1]));
    }
    assert_eq!(updates.subscribers(), 1);
    let mut other = keep.resolve("other");
    assert_eq!(next(&mut other).await.unwrap().unwrap(), found(&[1]));
    assert_eq!(updates.subscribers(), 2, "another name is another stream");

    drop((subscribers, other));
    time::sleep(SECOND).await;
    assert_eq!(updates.subscribers(), 0, "the stream ends with its last subscriber");
}

#[tokio::test(start_paused = true)]
async fn a_late_subscriber_gets_what_is_known_first() {
    let (resolver, updates) = Scripted::new();
    let keep = Keep::new(resolver);
    let mut early = keep.resolve("web");
    updates.endpoints([addr(1)]);
    next(&mut early).await.unwrap().unwrap();
    updates.error("down");
    next(&mut early).await.unwrap().unwrap_err();

    let mut late = keep.resolve("web");

    assert_eq!(next(&mut late).await.unwrap().unwrap(), found(&[1]), "the last good set");
    assert!(next(&mut late).await.unwrap().is_err(), "and that it may be old");
    updates.endpoints([addr(2)]);
    assert_eq!(next(&mut late).await.unwrap().unwrap(), found(&[2]));
    assert_eq!(next(&mut early).await.unwrap().unwrap(), found(&[2]));
}

/// A resolver whose streams are written down beforehand; each resolution takes the next one.
#[derive(Clone, Default)]
struct Streams {
    streams: Arc<Mutex<VecDeque<Items>>>,
    resolved: Arc<AtomicUsize>,
}

/// What one stream says before it ends.
type Items = Vec<Result<Update, ResolveError>>;

impl Streams {
    fn new(streams: impl IntoIterator<Item = Items>) -> Self {
        let streams = Arc::new(Mutex::new(streams.into_iter().collect()));
        Self { streams, resolved: Arc::default() }
    }
}

impl Resolver<&'static str> for Streams {
    fn resolve(&self, _: &'static str) -> Resolution {
        self.resolved.fetch_add(1, Ordering::SeqCst);
        match self.streams.lock().unwrap().pop_front() {
            Some(items) => Resolution::new(stream::iter(items)),
            None => Resolution::new(stream::pending()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_in_failure_is_started_again_after_a_pause() {
    let inner = Streams::new([vec![Err(failure())], vec![Err(failure())], vec![Ok(found(&[1]))]]);
    let keep =
        Keep::with_backoff(inner.clone(), Backoff::new(Duration::from_millis(100), Duration::from_secs(10)));
    let mut resolution = keep.resolve("web");
    let began = Instant::now();

    assert!(next(&mut resolution).await.unwrap().is_err());
    loop {
        match next(&mut resolution).await.unwrap() {
            Ok(update) => break assert_eq!(update, found(&[1])),
            Err(_) => assert_eq!(inner.resolved.load(Ordering::SeqCst), 2),
        }
    }

    let took = began.elapsed();
    assert!((Duration::from_millis(150)..=Duration::from_millis(302)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_pauses_grow_and_start_over_after_a_success() {
    let mut streams = vec![vec![Err(failure())]; 10];
    streams.push(vec![Ok(found(&[1])), Err(failure())]);
    streams.push(vec![Ok(found(&[2])), Err(failure())]);
    let inner = Streams::new(streams);
    let keep = Keep::with_backoff(inner.clone(), Backoff::new(SECOND, 16 * SECOND));
    let mut resolution = keep.resolve("web");

    let mut found_at = Vec::new();
    let began = Instant::now();
    while found_at.len() < 2 {
        if next(&mut resolution).await.unwrap().is_ok() {
            found_at.push(began.elapsed());
        }
    }

    // 1 + 2 + 4 + 8 + 6 x 16 s, each between half and whole.
    assert!((55 * SECOND..=112 * SECOND).contains(&found_at[0]), "{found_at:?}");
    let pause = found_at[1] - found_at[0];
    assert!((SECOND / 2..=2 * SECOND).contains(&pause), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_well_is_final() {
    let inner = Streams::new([vec![Ok(found(&[1]))]]);
    let keep = Keep::new(inner.clone());
    let mut resolution = keep.resolve("web");

    assert_eq!(next(&mut resolution).await.unwrap().unwrap(), found(&[1]));
    assert!(next(&mut resolution).await.is_none());
    time::sleep(600 * SECOND).await;
    assert_eq!(inner.resolved.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn equal_updates_are_told_once_and_again_after_a_failure() {
    let same = || Ok(found(&[1]));
    let inner = Streams::new([vec![same(), same(), Err(failure())], vec![same(), same()]]);
    let keep = Keep::new(inner);
    let mut resolution = keep.resolve("web");

    let mut said = String::new();
    while let Some(item) = next(&mut resolution).await {
        said.push_str(if item.is_ok() { "found " } else { "failed " });
    }

    assert_eq!(said, "found failed found ");
}
