//! Limits of how many connections live at a time, which servers may share.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;

/// The limits of a server.
#[derive(Debug, Default)]
pub(super) struct Limits(Arc<[Arc<Semaphore>]>);

/// A place for a connection under every limit, until it is dropped.
#[must_use = "the place is given back when this is dropped"]
pub(super) struct Permit(Arc<[Arc<Semaphore>]>);

/// A limit under which there is no place, by its number.
pub(super) struct Reached<'a>(usize, &'a Semaphore);

/// A place under one of the limits, by its number.
pub(super) struct Held<'a>(usize, SemaphorePermit<'a>);

impl Limits {
    /// Keeps another one, too. Twice the same is the same.
    pub(super) fn add(&mut self, limit: Arc<Semaphore>) {
        if self.0.iter().any(|known| Arc::ptr_eq(known, &limit)) {
            return;
        }
        self.0 = self.0.iter().cloned().chain([limit]).collect();
    }

    /// A place under all of them, if there is one now. One that was waited for counts.
    pub(super) fn permit(&self, mut held: Option<Held<'_>>) -> Result<Permit, Reached<'_>> {
        for (n, limit) in self.0.iter().enumerate() {
            let place = match held.take_if(|held| held.0 == n) {
                Some(Held(_, place)) => Ok(place),
                None => limit.try_acquire(),
            };
            match place {
                Ok(place) => place.forget(),
                Err(_) => {
                    give_back(&self.0[..n]);
                    return Err(Reached(n, limit));
                }
            }
        }
        Ok(Permit(Arc::clone(&self.0)))
    }
}

impl<'a> Reached<'a> {
    /// Waits for a place under this limit, in turn. It is to be used: two that gave theirs back would pass it between them.
    pub(super) async fn place(self) -> Held<'a> {
        match self.1.acquire().await {
            Ok(place) => Held(self.0, place),
            // Closed: there is no place any more.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        give_back(&self.0);
    }
}

fn give_back(limits: &[Arc<Semaphore>]) {
    limits.iter().for_each(|limit| limit.add_permits(1));
}
