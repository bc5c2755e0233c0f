//! What is given up when the end begins.

use std::time::Duration;

use tokio::time;

use super::Shared;
use crate::drain::Draining;
use crate::store::Lock;
use crate::store::LockOptions;
use crate::store::StoreError;

/// How long a lock is waited for that is on its way when the end begins. If the store has given it out, nobody else would
/// get it for its time to live.
const LOCK_WITHIN: Duration = Duration::from_secs(1);

/// Does what need not be finished. Nothing if the end begins before it is done.
pub(super) async fn before_end<T>(ending: &Draining, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = ending.started() => None,
        done = work => Some(done),
    }
}

impl Shared {
    /// Takes a lock, or nothing if somebody holds it. Nothing at all if the end begins before.
    pub(super) async fn lock_before_end(
        &self,
        key: &str,
        ending: &Draining,
    ) -> Option<Result<Option<Lock>, StoreError>> {
        if ending.is_started() {
            return None;
        }
        let options = LockOptions::new(self.options.node.clone()).with_ttl(self.options.lock_ttl);
        let mut taking = self.store.lock(key, &options);
        if let Some(outcome) = before_end(ending, &mut taking).await {
            return Some(outcome);
        }
        if let Ok(Ok(Some(lock))) = time::timeout(LOCK_WITHIN, taking).await {
            lock.release().await;
        }
        None
    }
}
