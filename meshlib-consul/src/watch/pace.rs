//! How often a watch asks.

use std::time::Duration;

use tokio::time::Instant;

/// Time in which one more request is allowed.
const REFILL: Duration = Duration::from_millis(100);
/// Requests that may follow each other at once.
const BURST: u32 = 5;
/// Wake-ups in a row that told nothing new, after which a watch slows down.
const PATIENCE: u32 = 10;
/// The pauses of a watch that is woken for nothing.
const STRETCHED: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];

/// The pauses between the requests of a watch: a bucket of [`BURST`] requests, and longer ones while it is woken for
/// nothing, as by checks that only change their output.
#[derive(Debug)]
pub(super) struct Pace {
    last: Option<Instant>,
    least: Duration,
    tokens: u32,
    refilled: Instant,
    idle_wakes: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { last: None, least: Duration::ZERO, tokens: BURST, refilled: Instant::now(), idle_wakes: 0 }
    }
}

impl Pace {
    pub(super) fn set_least(&mut self, pause: Duration) {
        self.least = pause;
    }

    /// When the next request may start.
    pub(super) fn next_start(&self) -> Instant {
        let Some(last) = self.last else { return Instant::now() };
        let bucket = if self.tokens_now() > 0 { last } else { self.refilled + REFILL };
        bucket.max(last + self.least.max(self.stretch()))
    }

    /// A request starts.
    pub(super) fn started(&mut self) {
        let now = Instant::now();
        let tokens = self.tokens_now();
        if tokens > self.tokens {
            self.refilled = now;
        }
        self.tokens = tokens.saturating_sub(1);
        if tokens == BURST {
            self.refilled = now;
        }
        self.last = Some(now);
    }

    /// An answer came because something has changed; whether that is of interest.
    pub(super) fn woken(&mut self, is_news: bool) {
        self.idle_wakes = if is_news { 0 } else { self.idle_wakes.saturating_add(1) };
    }

    fn stretch(&self) -> Duration {
        match usize::try_from(self.idle_wakes.saturating_sub(PATIENCE)) {
            _ if self.idle_wakes < PATIENCE => Duration::ZERO,
            Ok(more) => STRETCHED[more.min(STRETCHED.len() - 1)],
            Err(_) => STRETCHED[STRETCHED.len() - 1],
        }
    }

    fn tokens_now(&self) -> u32 {
        let refills = self.refilled.elapsed().as_millis() / REFILL.as_millis();
        let refills = u32::try_from(refills).unwrap_or(u32::MAX);
        self.tokens.saturating_add(refills).min(BURST)
    }
}

/// The pause after a failure that followed so many others.
///
/// The first is short: a connection was closed while it was idle, or a leader changes. Then 1 s, growing by 1.7 up to
/// 30 s, of which any part may be taken, so that many clients do not come back together.
pub(super) fn backoff(failures: u32) -> Duration {
    let most = match failures {
        0 => Duration::from_millis(250),
        n => Duration::from_secs_f64(1.7_f64.powi(i32::try_from(n - 1).unwrap_or(10).min(10)).min(30.0)),
    };
    most.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    /// Requests that are made as soon as they may be, for a time.
    async fn requests(pace: &mut Pace, within: Duration, news: bool) -> usize {
        let until = Instant::now() + within;
        let mut n = 0;
        loop {
            let at = pace.next_start();
            if at >= until {
                return n;
            }
            time::sleep_until(at).await;
            pace.started();
            pace.woken(news);
            n += 1;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_followed_by_ten_requests_a_second() {
        let mut pace = Pace::default();

        let n = requests(&mut pace, Duration::from_secs(10), true).await;

        assert!((100..=106).contains(&n), "{n}");
    }

    #[tokio::test(start_paused = true)]
    async fn being_woken_for_nothing_slows_down_until_there_is_news() {
        let mut pace = Pace::default();
        requests(&mut pace, Duration::from_secs(10), false).await;

        let idle = requests(&mut pace, Duration::from_secs(100), false).await;
        assert!((18..=21).contains(&idle), "{idle}");

        pace.woken(true);
        assert!(requests(&mut pace, Duration::from_secs(1), true).await >= 10);
    }

    #[test]
    fn pauses_after_failures_grow_and_have_an_end() {
        for (failures, most) in [(0, 0.25), (1, 1.0), (2, 1.7), (20, 30.0), (u32::MAX, 30.0)] {
            let longest = (0..1000).map(|_| backoff(failures)).max().unwrap().as_secs_f64();
            assert!(longest <= most && longest > most / 2.0, "{failures}: {longest}");
        }
    }
}
