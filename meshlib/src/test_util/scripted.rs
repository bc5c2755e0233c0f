//! Discovery as a test wants it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use futures::stream;
use tokio::sync::watch;

use crate::endpoint::Endpoint;
use crate::endpoint::Weight;
use crate::resolve::Resolution;
use crate::resolve::ResolveError;
use crate::resolve::Resolver;
use crate::resolve::Update;

type Said = Option<Result<Update, ResolveError>>;

/// A resolver that says what a test says, whatever it is asked for.
///
/// Every subscriber gets the latest first and then what comes; of what is said in quick succession it may see the last
/// only. Its resolutions end when the [`Updates`] are dropped.
#[derive(Clone, Debug)]
pub struct Scripted {
    said: watch::Receiver<Said>,
    subscribers: Arc<AtomicUsize>,
}

/// Says what a [`Scripted`] resolver finds.
#[derive(Debug)]
#[must_use = "dropping it ends the resolutions"]
pub struct Updates {
    say: watch::Sender<Said>,
    subscribers: Arc<AtomicUsize>,
}

impl Scripted {
    /// A resolver that has found nothing yet, and what makes it find something.
    pub fn new() -> (Self, Updates) {
        let (say, said) = watch::channel(None);
        let subscribers = Arc::<AtomicUsize>::default();
        let updates = Updates { say, subscribers: Arc::clone(&subscribers) };
        (Self { said, subscribers }, updates)
    }
}

impl<T> Resolver<T> for Scripted {
    fn resolve(&self, _: T) -> Resolution {
        let mut said = self.said.clone();
        // What was said before counts as news for a new subscriber.
        said.mark_changed();
        let subscriber = Subscriber::new(&self.subscribers);
        Resolution::new(stream::unfold((said, subscriber), |(mut said, subscriber)| async move {
            loop {
                said.changed().await.ok()?;
                let latest = said.borrow_and_update().clone();
                if let Some(item) = latest {
                    return Some((item, (said, subscriber)));
                }
            }
        }))
    }
}

/// Counts a resolution while it lives.
struct Subscriber(Arc<AtomicUsize>);

impl Subscriber {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Updates {
    /// These addresses, with equal weights.
    pub fn endpoints(&self, addrs: impl IntoIterator<Item = SocketAddr>) {
        self.set(addrs.into_iter().map(Endpoint::new));
    }

    /// These addresses with these weights.
    ///
    /// # Panics
    ///
    /// If a number is not a [`Weight`].
    pub fn weighted(&self, addrs: impl IntoIterator<Item = (SocketAddr, f64)>) {
        self.set(addrs.into_iter().map(|(addr, weight)| {
            Endpoint::new(addr).with_weight(Weight::new(weight).expect("a finite weight from zero up"))
        }));
    }

    /// These endpoints.
    pub fn set(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        self.say.send_replace(Some(Ok(Update::endpoints(endpoints))));
    }

    /// There is no such name.
    pub fn not_found(&self) {
        self.say.send_replace(Some(Ok(Update::NotFound)));
    }

    /// The attempt failed, for this reason.
    pub fn error(&self, reason: impl Into<String>) {
        let error = ResolveError::Undecided { name: Arc::from("scripted"), reason: reason.into() };
        self.say.send_replace(Some(Err(error)));
    }

    /// How many resolutions go on.
    pub fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn everybody_gets_the_latest_and_the_end() {
        let (resolver, updates) = Scripted::new();
        let addr: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut early = resolver.resolve("a");
        updates.weighted([(addr, 0.5)]);
        let mut late = resolver.resolve("b");

        let update = early.next().await.unwrap().unwrap();
        assert_eq!(late.next().await.unwrap().unwrap(), update);
        updates.error("down");
        assert!(early.next().await.unwrap().is_err());
        updates.not_found();
        assert_eq!(early.next().await.unwrap().unwrap(), Update::NotFound);
        drop(updates);
        assert!(early.next().await.is_none());
    }
}
