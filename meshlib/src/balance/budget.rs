//! A limit on extra work, so that retries do not finish off what is failing.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

/// Allows retries in proportion to first attempts. A clone is the same budget.
///
/// Each request deposits a share of a retry, each retry withdraws one; what is not used within the time to live expires.
/// On top a few retries per second are always allowed, so that rare requests can be tried again.
///
/// Taking the lock is a few nanoseconds and happens only on deposits of callers that retry at all, and on retries.
#[derive(Clone, Debug)]
pub struct Budget {
    inner: Arc<Mutex<Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    ratio: f64,
    reserve: f64,
    ttl: Duration,
    /// What was deposited and not withdrawn, decaying with the time to live.
    tokens: f64,
    at: Instant,
}

impl Budget {
    /// `ratio` retries per request, unused ones expiring after `ttl`, and `per_second` retries beyond that.
    pub fn new(ttl: Duration, per_second: f64, ratio: f64) -> Self {
        let ttl = ttl.max(Duration::from_millis(1));
        let reserve = per_second.max(0.0) * ttl.as_secs_f64();
        let bucket = Bucket { ratio: ratio.max(0.0), reserve, ttl, tokens: reserve, at: Instant::now() };
        Self { inner: Arc::new(Mutex::new(bucket)) }
    }

    /// Notes a first attempt.
    pub fn deposit(&self) {
        let mut bucket = self.bucket();
        bucket.tokens += bucket.ratio;
    }

    /// Asks for a retry.
    pub fn withdraw(&self) -> bool {
        let mut bucket = self.bucket();
        // What fades towards a whole token never quite gets there.
        if bucket.tokens < 0.999 {
            return false;
        }
        bucket.tokens = (bucket.tokens - 1.0).max(0.0);
        true
    }

    /// The bucket as it is now: deposits fade towards the reserve.
    fn bucket(&self) -> std::sync::MutexGuard<'_, Bucket> {
        let mut bucket = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = bucket.at.elapsed().as_secs_f64() / bucket.ttl.as_secs_f64();
        if passed > 0.001 {
            bucket.tokens = bucket.reserve + (bucket.tokens - bucket.reserve) * (-passed).exp();
            bucket.at = Instant::now();
        }
        bucket
    }
}

impl Default for Budget {
    /// One retry for five requests, kept for 10 s, and ten retries per second.
    fn default() -> Self {
        Self::new(Duration::from_secs(10), 10.0, 0.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn retries_follow_requests_and_time() {
        let budget = Budget::new(Duration::from_secs(10), 0.1, 0.5);
        assert!(budget.withdraw(), "one in the reserve");
        assert!(!budget.withdraw());

        budget.deposit();
        budget.deposit();
        assert!(budget.withdraw());
        assert!(!budget.withdraw());

        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(budget.withdraw(), "the reserve is back");
    }
}
