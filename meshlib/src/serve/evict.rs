//! Room for the newest connection at the expense of the oldest.

use std::collections::VecDeque;
use std::future;

use tokio::sync::oneshot;

/// The connections of a server in the order in which they were accepted.
#[derive(Debug)]
pub(super) struct Newest {
    most: usize,
    /// Also holds some that have ended; never more than `most` altogether.
    live: VecDeque<oneshot::Sender<()>>,
}

impl Newest {
    /// Keeps up to `most` connections, which is at least one.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), live: VecDeque::new() }
    }

    /// Counts one more, and evicts the oldest if that is one too many. O(1) below the limit, else O(n).
    pub(super) fn admit(&mut self) -> Eviction {
        if self.live.len() >= self.most {
            self.live.retain(|connection| !connection.is_closed());
        }
        if self.live.len() >= self.most
            && let Some(oldest) = self.live.pop_front()
        {
            // It may have ended just now.
            let _ = oldest.send(());
        }
        let (evict, evicted) = oneshot::channel();
        self.live.push_back(evict);
        Eviction(evicted)
    }
}

/// Held by a connection for as long as it lives.
#[derive(Debug)]
pub(super) struct Eviction(oneshot::Receiver<()>);

impl Eviction {
    /// Waits until the connection must end.
    pub(super) async fn happens(self) {
        if self.0.await.is_err() {
            // The server accepts no more, and nobody needs the room.
            future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_too_many_evicts_the_oldest() {
        let mut newest = Newest::new(2);
        let [first, second, third] = [newest.admit(), newest.admit(), newest.admit()];

        assert!(first.happens().now_or_never().is_some());
        assert!(second.happens().now_or_never().is_none());
        assert!(third.happens().now_or_never().is_none());
    }

    #[test]
    fn who_has_ended_takes_no_room() {
        let mut newest = Newest::new(2);
        let (first, second) = (newest.admit(), newest.admit());
        drop(second);
        let third = newest.admit();
        assert!(first.happens().now_or_never().is_none());
        drop(third);

        for _ in 0..1000 {
            newest.admit();
        }

        assert!(newest.live.len() <= 2);
    }

    #[test]
    fn nobody_is_evicted_when_the_server_is_gone() {
        let mut newest = Newest::new(1);
        let connection = newest.admit();

        drop(newest);

        assert!(connection.happens().now_or_never().is_none());
    }
}
