//! Resolutions that go on after failures and are shared.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time;

use super::Resolution;
use super::ResolveError;
use super::Resolver;
use super::Update;
use crate::backoff::Backoff;

/// Makes a resolver dependable: one stream per name however many ask, resolved again after it failed.
///
/// The last good update is kept and is what a new subscriber gets first. A stream of the inner resolver that ends after
/// an error is started again after 100 ms, doubling up to 10 s (see [`with_backoff`](Self::with_backoff)); one that ends
/// without an error is final. The inner stream ends with its last subscriber.
///
/// Resolutions must be polled inside a tokio runtime.
pub struct Keep<R, T> {
    shared: Arc<Shared<R, T>>,
}

struct Shared<R, T> {
    resolver: R,
    backoff: Backoff,
    names: Mutex<HashMap<T, Weak<Upstream>>>,
}

/// The task that follows one name; it ends when nobody holds this.
struct Upstream {
    latest: watch::Receiver<Latest>,
    task: AbortHandle,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is known about a name: the last good update and, if the last attempt failed, why.
#[derive(Clone, Default)]
struct Latest {
    update: Option<Update>,
    failure: Option<ResolveError>,
}

impl<R, T> Keep<R, T> {
    /// Wraps a resolver.
    pub fn new(resolver: R) -> Self {
        Self::with_backoff(resolver, Backoff::new(Duration::from_millis(100), Duration::from_secs(10)))
    }

    /// Wraps a resolver, with pauses between attempts of one's own.
    pub fn with_backoff(resolver: R, backoff: Backoff) -> Self {
        Self { shared: Arc::new(Shared { resolver, backoff, names: Mutex::default() }) }
    }
}

impl<R, T> Resolver<T> for Keep<R, T>
where
    R: Resolver<T>,
    T: Clone + Eq + Hash + Send + Sync + 'static,
{
    fn resolve(&self, target: T) -> Resolution {
        let shared = Arc::clone(&self.shared);
        Resolution::new(
            stream::once(async move {
                let upstream = shared.upstream(target);
                let mut latest = upstream.latest.clone();
                latest.mark_changed();
                subscription(upstream, latest)
            })
            .flatten(),
        )
    }
}

/// Everything a subscriber sees: the current state first, then each change. After failures what is known is said once
/// more even if it is the same, so that the subscriber learns that discovery works again.
fn subscription(
    upstream: Arc<Upstream>,
    latest: watch::Receiver<Latest>,
) -> impl futures::Stream<Item = Result<Update, ResolveError>> {
    let seen = Seen { update: None, failed: false };
    stream::unfold((upstream, latest, seen), |(upstream, mut latest, mut seen)| async move {
        loop {
            latest.changed().await.ok()?;
            let now = latest.borrow_and_update().clone();
            let is_news = now.update.is_some() && now.update != seen.update;
            let item = match (now.update, now.failure) {
                (Some(update), None) if is_news || seen.failed => Ok(update),
                // What is known is said before what failed.
                (Some(update), Some(_)) if is_news => {
                    latest.mark_changed();
                    Ok(update)
                }
                (_, Some(error)) => Err(error),
                (_, None) => continue,
            };
            seen.failed = item.is_err();
            if let Ok(update) = &item {
                seen.update = Some(update.clone());
            }
            return Some((item, (upstream, latest, seen)));
        }
    })
}

/// What a subscriber was told.
struct Seen {
    update: Option<Update>,
    failed: bool,
}

impl<R, T> Shared<R, T>
where
    R: Resolver<T>,
    T: Clone + Eq + Hash + Send + Sync + 'static,
{
    fn upstream(self: &Arc<Self>, target: T) -> Arc<Upstream> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = names.get(&target).and_then(Weak::upgrade) {
            return upstream;
        }
        names.retain(|_, upstream| upstream.strong_count() > 0);
        let (tx, latest) = watch::channel(Latest::default());
        let task = tokio::spawn(Arc::clone(self).follow(target.clone(), tx)).abort_handle();
        let upstream = Arc::new(Upstream { latest, task });
        names.insert(target, Arc::downgrade(&upstream));
        upstream
    }

    /// Ends with the inner resolution, or is aborted when the last subscriber is gone.
    async fn follow(self: Arc<Self>, target: T, tx: watch::Sender<Latest>) {
        let mut backoff = self.backoff.clone();
        loop {
            let mut resolution = self.resolver.resolve(target.clone());
            let mut failed = false;
            while let Some(item) = resolution.next().await {
                failed = item.is_err();
                match item {
                    Ok(update) => {
                        backoff.reset();
                        tx.send_replace(Latest { update: Some(update), failure: None });
                    }
                    Err(error) => tx.send_modify(|latest| latest.failure = Some(error)),
                }
            }
            if !failed {
                return;
            }
            time::sleep(backoff.next_delay()).await;
        }
    }
}

impl<R, T> Clone for Keep<R, T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<R, T> fmt::Debug for Keep<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keep").finish_non_exhaustive()
    }
}
