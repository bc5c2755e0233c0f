//! How many requests have no answer yet.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// Counts the requests of a pool that have no answer yet.
#[derive(Debug, Default)]
pub(in crate::http) struct Traffic {
    now: AtomicUsize,
    /// The most that there were lately: it falls by one with each request.
    lately: AtomicUsize,
}

/// So many requests on their way are worth being sent together.
const MANY: usize = 8;

impl Traffic {
    /// Counts a request. True if there are many lately: between two batches there are none for a moment.
    pub(super) fn begin(&self) -> bool {
        // Relaxed, and not in one step: if two threads count at once, the peak is off by one.
        let now = self.now.fetch_add(1, Ordering::Relaxed);
        let lately = self.lately.load(Ordering::Relaxed);
        let peak = now.max(lately.saturating_sub(1));
        if peak != lately {
            self.lately.store(peak, Ordering::Relaxed);
        }
        peak >= MANY
    }

    pub(super) fn end(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_a_time_are_remembered_for_as_many_requests() {
        let traffic = Traffic::default();
        let few = (0..MANY).map(|_| traffic.begin()).filter(|many| *many).count();
        assert_eq!(few, 0);
        assert!(traffic.begin(), "the ninth at a time");
        (0..=MANY).for_each(|_| traffic.end());

        assert!(!traffic.begin(), "the peak has fallen below");
        traffic.end();
        for _ in 0..100 {
            traffic.begin();
        }
        (0..100).for_each(|_| traffic.end());
        let one_at_a_time = || {
            let many = traffic.begin();
            traffic.end();
            many
        };
        assert_eq!((0..1000).filter(|_| one_at_a_time()).count(), 99 - MANY);
    }
}
