//! A lock that is held.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

/// A lock that is held until it is [released](Self::release), dropped or lost.
///
/// Being held is a belief: a store that is out of reach may give the lock to somebody else. Writes that need it carry
/// [`When::Held`](super::When), which the store checks.
#[must_use = "a lock is released when it is dropped"]
pub struct Lock {
    key: Arc<str>,
    token: Arc<str>,
    lost: CancellationToken,
    release: Option<Release>,
}

type Release = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send + Sync>;

impl Lock {
    /// For stores: the lock of `key`, known to the store by `token`.
    ///
    /// `release` gives it back. It is called once: when the lock is released, and its future awaited; or when the lock is
    /// dropped, and its future spawned. It must be as good as done within seconds, and do no harm to a lock that was lost.
    pub fn new<F>(
        key: impl Into<Arc<str>>,
        token: impl Into<Arc<str>>,
        release: impl FnOnce() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            key: key.into(),
            token: token.into(),
            lost: CancellationToken::new(),
            release: Some(Box::new(move || Box::pin(release()))),
        }
    }

    /// The lock's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// By what the store knows this holding of the lock.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether it is known to be lost.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Waits until the lock is lost. What it protects must stop then.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Says that the lock is lost, from wherever that is noticed.
    pub fn loss(&self) -> Loss {
        Loss(self.lost.clone())
    }

    /// Gives the lock back.
    pub async fn release(mut self) {
        if let Some(release) = self.release.take() {
            release().await;
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Some(release) = self.release.take() else { return };
        // Outside a runtime nobody can do it; the lock then ends with its time to live.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(release());
        }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("key", &self.key).field("lost", &self.is_lost()).finish_non_exhaustive()
    }
}

/// The store's side of a [`Lock`].
#[derive(Clone, Debug)]
pub struct Loss(CancellationToken);

impl Loss {
    /// The lock is lost.
    pub fn declare(&self) {
        self.0.cancel();
    }
}
