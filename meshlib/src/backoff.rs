//! Pauses that grow while something keeps failing.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use meshlib::backoff::Backoff;
//!
//! # async fn ask() -> Result<&'static str, std::io::Error> { Ok("answer") }
//! # async fn example() -> &'static str {
//! let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
//! loop {
//!     match ask().await {
//!         Ok(answer) => break answer,
//!         Err(error) => eprintln!("{error}"),
//!     }
//!     tokio::time::sleep(backoff.next_delay()).await;
//! }
//! # }
//! ```

use std::time::Duration;

/// Doubling pauses with jitter: each is between half and the whole of its step, so that many clients do not come back at
/// the same instant.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    jitter: bool,
    failures: u32,
}

impl Backoff {
    /// Pauses of `first`, doubling up to `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, jitter: true, failures: 0 }
    }

    /// The same pauses without jitter, where somebody counts on their length.
    #[must_use]
    pub const fn exact(mut self) -> Self {
        self.jitter = false;
        self
    }

    /// The next pause. Each call makes the one after it longer.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.delay_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// The pause after so many failures, without a memory of them.
    pub fn delay_after(&self, failures: u32) -> Duration {
        let step = self.first.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(self.most);
        if self.jitter { step.mul_f64(0.5 + fastrand::f64() / 2.0) } else { step }
    }

    /// The longest pause there is.
    pub const fn most(&self) -> Duration {
        self.most
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

        let delays: Vec<_> = (0..40).map(|_| backoff.next_delay().as_millis()).collect();

        for (delay, step) in delays.iter().zip([100, 200, 400, 800, 1000, 1000]) {
            assert!((step / 2..=step).contains(delay), "{delay} is not within {step}");
        }
        assert!(delays[39] <= 1000);
    }
}
