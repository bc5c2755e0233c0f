//! Values of the recent past, recorded without a lock.
//!
//! Time is cut into epochs of one window each. Recorders write to the slot of the current epoch; readers
//! see that one and the one before, so a value counts for at least one window and less than two. A third
//! slot is what makes this safe: it is the one being cleared, and nobody reads or writes it then.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What is kept for one epoch.
pub(super) trait Slot: Default {
    /// Forgets everything.
    fn clear(&self);
}

#[derive(Debug)]
pub(super) struct Window<S> {
    length: Duration,
    start: Instant,
    epoch: AtomicU64,
    turning: AtomicBool,
    slots: [S; SLOTS],
}

impl<S: Slot> Window<S> {
    /// `length` must not be zero.
    pub(super) fn new(length: Duration) -> Self {
        Self {
            length,
            start: Instant::now(),
            epoch: AtomicU64::new(0),
            turning: AtomicBool::new(false),
            slots: std::array::from_fn(|_| S::default()),
        }
    }

    /// Where to record now.
    pub(super) fn current(&self) -> &S {
        self.slot(self.turn())
    }

    /// What was recorded in the current epoch and in the one before.
    pub(super) fn recent(&self) -> [&S; 2] {
        let epoch = self.turn();
        // Before the first turn this is the third slot, which is empty.
        [self.slot(epoch.wrapping_add(SLOTS as u64 - 1)), self.slot(epoch)]
    }

    /// Moves to the epoch of the clock and returns it.
    ///
    /// One thread clears the slots that come into use while the others go on in the old epoch. A recorder
    /// held up for a whole window between choosing a slot and writing may write into a younger epoch or
    /// lose its value: that changes a statistic of the recent past by one value, and no total.
    fn turn(&self) -> u64 {
        let elapsed = self.start.elapsed().as_nanos();
        let now = u64::try_from(elapsed / self.length.as_nanos().max(1)).unwrap_or(u64::MAX);
        // Acquire pairs with the release below: who sees the new epoch sees its slot cleared.
        let epoch = self.epoch.load(Ordering::Acquire);
        if now <= epoch || self.turning.swap(true, Ordering::Acquire) {
            return epoch;
        }
        // Read again: another thread may have turned between the load above and the swap.
        let epoch = self.epoch.load(Ordering::Acquire);
        let turned = now.max(epoch);
        // After a silent epoch the one before the current must be emptied as well.
        for fresh in (epoch + 1).max(turned.saturating_sub(1))..=turned {
            self.slot(fresh).clear();
        }
        self.epoch.store(turned, Ordering::Release);
        self.turning.store(false, Ordering::Release);
        turned
    }

    fn slot(&self, epoch: u64) -> &S {
        &self.slots[(epoch % SLOTS as u64) as usize]
    }
}

const SLOTS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Sum(AtomicU64);

    impl Slot for Sum {
        fn clear(&self) {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    fn add(window: &Window<Sum>, n: u64) {
        window.current().0.fetch_add(n, Ordering::Relaxed);
    }

    fn recent(window: &Window<Sum>) -> u64 {
        window.recent().iter().map(|slot| slot.0.load(Ordering::Relaxed)).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn values_last_one_to_two_windows() {
        let window = Window::<Sum>::new(Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(3)).await;

        add(&window, 1);
        tokio::time::advance(Duration::from_secs(10)).await;
        add(&window, 10);
        assert_eq!(recent(&window), 11);

        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(recent(&window), 10);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(recent(&window), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_of_any_length_forgets_everything() {
        for windows in 2..12 {
            let window = Window::<Sum>::new(Duration::from_secs(10));
            for _ in 0..5 {
                add(&window, 1);
                tokio::time::advance(Duration::from_secs(10)).await;
            }

            tokio::time::advance(Duration::from_secs(10 * windows)).await;

            assert_eq!(recent(&window), 0, "after {windows} windows");
            add(&window, 7);
            assert_eq!(recent(&window), 7);
        }
    }
}
