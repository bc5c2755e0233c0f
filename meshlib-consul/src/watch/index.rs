//! The index that a watch has seen.

/// Where a watch stands. Begins at nothing: the first request does not wait.
#[derive(Debug, Default)]
pub(super) struct Index {
    seen: u64,
    /// That of the last good answer, whatever has failed since.
    last: u64,
}

impl Index {
    /// What to send, if the next request may wait for a change.
    pub(super) fn get(&self) -> Option<u64> {
        (self.seen > 0).then_some(self.seen)
    }

    /// Starts over, after a failure.
    pub(super) fn reset(&mut self) {
        self.seen = 0;
    }

    /// Whether an index is behind the one that was seen.
    pub(super) fn is_behind(&self, index: u64) -> bool {
        index.max(1) < self.seen
    }

    /// Whether the index of a good answer is lower than that of the one before: Consul is not where it was.
    pub(super) fn regresses(&mut self, index: u64) -> bool {
        let index = index.max(1);
        index < std::mem::replace(&mut self.last, index)
    }

    /// Takes the index of a good answer. True if it is another one.
    ///
    /// One that goes back is that of a server that was set up anew: waiting for it to exceed the old one would be
    /// waiting in vain, so the next request does not wait at all. Zero would mean the same as none, and is taken as one.
    pub(super) fn advance(&mut self, index: u64) -> bool {
        let is_behind = self.is_behind(index);
        let index = index.max(1);
        if is_behind {
            tracing::debug!(seen = self.seen, index, "the index of consul went back");
            self.seen = 0;
            return true;
        }
        std::mem::replace(&mut self.seen, index) != index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_does_not_wait() {
        let mut index = Index::default();
        assert_eq!(index.get(), None);

        assert!(index.advance(7));

        assert_eq!(index.get(), Some(7));
        assert!(!index.advance(7));
    }

    #[test]
    fn an_index_that_goes_back_starts_over() {
        let mut index = Index::default();
        index.advance(10_129);

        assert!(index.advance(10));

        assert_eq!(index.get(), None);
        index.advance(10);
        assert_eq!(index.get(), Some(10));
    }

    #[test]
    fn an_index_that_goes_back_is_noticed_beyond_a_failure() {
        let mut index = Index::default();
        assert!(!index.regresses(10_129));

        index.reset();

        assert!(index.regresses(10));
        assert!(!index.regresses(11));
    }

    #[test]
    fn zero_counts_as_one_and_large_ones_are_kept() {
        let mut index = Index::default();

        index.advance(0);
        assert_eq!(index.get(), Some(1));
        index.advance(14_325_204_748_472_163_238);
        assert_eq!(index.get(), Some(14_325_204_748_472_163_238));
    }
}
