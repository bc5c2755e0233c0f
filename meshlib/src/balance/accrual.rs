//! Leaving replicas alone that keep failing.
//!
//! A replica is well, cooling down after a failure (a moment, if the policy has that), or ejected after many. When its
//! time is over one caller tries it; a success makes it well, a failure lengthens its time.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::backoff::Backoff;

/// When replicas are left alone, and for how long.
///
/// What counts as a failure: an error whose [`Fault`](crate::Fault) is the server's.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Accrual {
    /// What ejects a replica. Default: five failures in a row.
    pub policy: Policy,
    /// How long an ejected replica is left alone. Default: 5 s; doubled, up to 300 s, each time that it is tried after that
    /// and fails again.
    ///
    /// Where all are ejected and one is well again, others are tried before their time is over, two for each that is well
    /// and the next for each that fails, so that the first one back does not serve everybody for long. Such a failure is
    /// not held against an endpoint: it has the time that was left.
    pub penalty: Backoff,
    /// How long a replica is left alone after any failure. Default: not at all.
    pub cool_down: Option<Backoff>,
    /// The largest share of a set that an endpoint which is ejected may bring it to. Default 1: all of it.
    ///
    /// It does not keep the rest in: an endpoint whose time is over does not count until somebody tries it, and stays out if
    /// it fails again, even if others were ejected meanwhile. Where all fail all may be out in the end. When all are, they
    /// are used all the same, and what fails then is not held against them.
    pub max_ejected: f64,
}

/// What ejects a replica.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Policy {
    /// Nothing.
    Never,
    /// So many failures in a row.
    Consecutive(u32),
    /// A success rate below `rate`, as a moving average over about so many requests.
    SuccessRate {
        /// The lowest rate that is good enough, between 0 and 1.
        rate: f64,
        /// How many requests the average looks back; a replica that has had fewer is not judged.
        requests: u32,
    },
    /// A success rate below `rate`, as a moving average over about so much time.
    Windowed {
        /// The lowest rate that is good enough, between 0 and 1.
        rate: f64,
        /// How far the average looks back; a replica that has been used for less is not judged.
        window: Duration,
    },
}

impl Policy {
    fn wants_rate(self) -> bool {
        matches!(self, Self::SuccessRate { .. } | Self::Windowed { .. })
    }
}

impl Default for Accrual {
    fn default() -> Self {
        Self {
            policy: Policy::Consecutive(5),
            penalty: Backoff::new(Duration::from_secs(5), Duration::from_secs(300)),
            cool_down: None,
            max_ejected: 1.0,
        }
    }
}

impl Accrual {
    /// Never ejects.
    pub fn never() -> Self {
        Self::new(Policy::Never)
    }

    /// A policy with the usual penalty.
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Sets how long an ejected replica is left alone.
    #[must_use]
    pub fn with_penalty(mut self, penalty: Backoff) -> Self {
        self.penalty = penalty;
        self
    }

    /// Sets how long a replica is left alone after any failure.
    #[must_use]
    pub fn with_cool_down(mut self, cool_down: Option<Backoff>) -> Self {
        self.cool_down = cool_down;
        self
    }

    /// Sets the largest share of a set that may be ejected.
    #[must_use]
    pub fn with_max_ejected(mut self, share: f64) -> Self {
        self.max_ejected = share.clamp(0.0, 1.0);
        self
    }
}

/// Whether a replica is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplicaState {
    /// It is.
    Ready,
    /// The last attempt failed; it is tried again in a moment.
    CoolingDown,
    /// It failed so often that it is left alone for a while.
    Ejected,
    /// Its time is over, and nobody has tried it since: the next caller who would have it in its turn does.
    Probation,
}

/// The health of one replica: a few words, no lock.
///
/// Updates of different words may interleave; the worst of it is a pause that is one step too short or too long.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Not tried again before this instant; zero for a replica that is well.
    closed_until: AtomicU64,
    /// Whether it is closed for having failed too often, as the number of times this happened in a row.
    ejections: AtomicU32,
    /// When the time it is ejected for is over. Failures before that, of work that had begun or that went to it because all
    /// others are ejected too, say nothing new.
    served_at: AtomicU64,
    /// Since when it may be tried although it is ejected and its time is not over; zero if it may not.
    early_since: AtomicU64,
    /// Failures since the last success.
    failures: AtomicU32,
    /// An ejected replica is not tried before this instant even if all others are ejected too.
    retry_at: AtomicU64,
    /// Moving success rate (an `f32`, upper half) and how much it has seen: requests, or the ms of its first sample.
    rate: AtomicU64,
}

impl Health {
    /// One load. Relaxed: whoever acts on an old value tries a replica a moment too early or too late.
    pub(super) fn is_well(&self) -> bool {
        self.closed_until.load(Ordering::Relaxed) == 0
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(super) fn closed_until(&self) -> u64 {
        self.closed_until.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self, now: u64) -> ReplicaState {
        match (self.closed_until() <= now, self.is_out()) {
            (true, false) => ReplicaState::Ready,
            (true, true) => ReplicaState::Probation,
            (false, true) => ReplicaState::Ejected,
            (false, false) => ReplicaState::CoolingDown,
        }
    }

    /// Whether an ejected replica may be tried because nothing else is there.
    pub(super) fn is_last_resort(&self, now: u64) -> bool {
        self.state(now) != ReplicaState::CoolingDown && self.retry_at.load(Ordering::Relaxed) <= now
    }

    /// When it may be tried next, as a last resort at least.
    pub(super) fn opens_at(&self) -> u64 {
        let until = self.closed_until();
        if self.ejections.load(Ordering::Relaxed) > 0 {
            until.min(self.retry_at.load(Ordering::Relaxed))
        } else {
            until
        }
    }

    /// Of the callers that see the time of a closed replica over, lets one try it: the time is moved on by one step.
    pub(super) fn claim(&self, now: u64, accrual: &Accrual) -> bool {
        let until = self.closed_until();
        if until == 0 {
            // It has become well since the caller looked.
            return true;
        }
        let (word, seen) = if until <= now {
            (&self.closed_until, until)
        } else if accrual.cool_down.is_some() {
            (&self.retry_at, self.retry_at.load(Ordering::Relaxed))
        } else {
            // Ejected, tried because all are, and no policy says that this must be done one at a time.
            return true;
        };
        let step = accrual.cool_down.as_ref().unwrap_or(&accrual.penalty).most();
        let lease = now + step.min(MAX_LEASE).as_millis() as u64;
        seen <= now && word.compare_exchange(seen, lease, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// True if the replica was not well before. Reads the clock only for a policy of rates.
    pub(super) fn succeeded(&self, now: impl FnOnce() -> u64, accrual: &Accrual) -> bool {
        if accrual.policy.wants_rate() {
            self.sample(true, now(), accrual);
        }
        if self.is_well() && self.failures.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.failures.store(0, Ordering::Relaxed);
        self.ejections.store(0, Ordering::Relaxed);
        self.early_since.store(0, Ordering::Relaxed);
        self.closed_until.swap(0, Ordering::Relaxed) != 0
    }

    /// Returns for how long the replica is ejected, if this failure did it.
    pub(super) fn failed(&self, now: u64, accrual: &Accrual, may_eject: bool) -> Option<Duration> {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let below = self.sample(false, now, accrual);
        let bad = match accrual.policy {
            Policy::Never => false,
            Policy::Consecutive(most) => failures >= most,
            Policy::SuccessRate { .. } | Policy::Windowed { .. } => below,
        };
        // One that was on probation stays out even if by now so many are out that no other may join them.
        if bad && (may_eject || self.ejections.load(Ordering::Relaxed) > 0) {
            let retry = accrual
                .cool_down
                .as_ref()
                .map_or(Duration::ZERO, |cool_down| cool_down.delay_after(failures - 1));
            self.retry_at.store(now + retry.as_millis() as u64, Ordering::Relaxed);
            let ejections = self.ejections.load(Ordering::Relaxed);
            if ejections > 0 && now < self.served_at.load(Ordering::Relaxed) {
                if self.is_tried_early(now) {
                    self.closed_until.store(self.served_at.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                return None;
            }
            self.early_since.store(0, Ordering::Relaxed);
            self.ejections.store(ejections.saturating_add(1), Ordering::Relaxed);
            let penalty = accrual.penalty.delay_after(ejections);
            self.close(now, penalty);
            self.served_at.store(self.closed_until(), Ordering::Relaxed);
            return Some(penalty);
        }
        if let Some(cool_down) = &accrual.cool_down {
            self.close(now, cool_down.delay_after(failures - 1));
        }
        None
    }

    /// Whether it failed so often that it is or was left alone, and has not been well since.
    pub(super) fn is_out(&self) -> bool {
        self.ejections.load(Ordering::Relaxed) > 0
    }

    /// Whether it may be tried, or was, though its time is not over.
    pub(super) fn is_early(&self) -> bool {
        self.early_since.load(Ordering::Relaxed) > 0
    }

    /// Whether somebody has begun to try it before its time was over, so that a failure is about that.
    pub(super) fn is_tried_early(&self, now: u64) -> bool {
        let (until, served) = (self.closed_until(), self.served_at.load(Ordering::Relaxed));
        self.is_early()
            && now < served
            && until != self.early_since.load(Ordering::Relaxed)
            && until != served
    }

    /// Lets an ejected replica be tried from now on, by one caller as when its time is over. Once for each time that it is
    /// ejected: false if it was allowed before, or needs no leave.
    pub(super) fn allow_early(&self, now: u64) -> bool {
        let until = self.closed_until();
        if !self.is_out() || until <= now {
            return false;
        }
        let first = self.early_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        first && self.closed_until.compare_exchange(until, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn close(&self, now: u64, pause: Duration) {
        let pause = (pause.as_millis() as u64).max(1);
        self.closed_until.store(now.saturating_add(pause), Ordering::Relaxed);
    }

    /// Averages an outcome in. True if the rate is below what the policy asks for and enough was seen to say so.
    fn sample(&self, success: bool, now: u64, accrual: &Accrual) -> bool {
        let value = if success { 1.0 } else { 0.0 };
        let mut below = false;
        let update = |word: u64| {
            let seen = word as u32;
            let average = if word == 0 { 1.0 } else { f64::from(f32::from_bits((word >> 32) as u32)) };
            let (gain, seen, judge, least) = match accrual.policy {
                Policy::Never | Policy::Consecutive(_) => return None,
                Policy::SuccessRate { rate, requests } => {
                    let seen = seen.saturating_add(1);
                    (2.0 / (f64::from(requests) + 1.0), seen, seen >= requests, rate)
                }
                Policy::Windowed { rate, window } => {
                    let first = if seen == 0 { (now as u32).max(1) } else { seen };
                    let age = u64::from((now as u32).wrapping_sub(first));
                    // Requests come at an unknown pace; ten in a window are taken as the least that says anything.
                    (0.1, first, age >= window.as_millis() as u64, rate)
                }
            };
            let average = average + (value - average) * gain.min(1.0);
            below = judge && average < least;
            Some(u64::from((average as f32).to_bits()) << 32 | u64::from(seen.max(1)))
        };
        let _ = self.rate.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        below
    }
}

/// Longest time that one caller may take to find out whether a replica is back.
const MAX_LEASE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn accrual() -> Accrual {
        Accrual::new(Policy::Consecutive(3))
    }

    #[test]
    fn consecutive_failures_eject_and_a_success_restores() {
        let (health, accrual) = (Health::default(), accrual());

        assert_eq!(health.failed(1, &accrual, true), None);
        assert!(!health.succeeded(|| 1, &accrual), "it was in use all the time");
        for _ in 0..2 {
            assert_eq!(health.failed(1, &accrual, true), None);
        }
        let penalty = health.failed(1, &accrual, true).unwrap();
        assert!((2500..=5000).contains(&penalty.as_millis()));
        assert_eq!(health.state(2000), ReplicaState::Ejected);
        assert_eq!(health.state(5002), ReplicaState::Probation);

        assert!(health.succeeded(|| 5002, &accrual));
        assert!(health.is_well());
    }

    #[test]
    fn one_caller_probes_and_a_failed_probe_doubles_the_penalty() {
        let (health, accrual) = (Health::default(), accrual());
        for _ in 0..3 {
            health.failed(1, &accrual, true);
        }

        assert!(health.claim(6000, &accrual));
        assert_eq!(health.state(6000), ReplicaState::Ejected, "the others keep away");
        let penalty = health.failed(6000, &accrual, true).unwrap();
        assert!((5000..=10_000).contains(&penalty.as_millis()));
    }

    #[test]
    fn one_that_is_tried_early_in_vain_has_the_rest_of_its_time() {
        let (health, accrual) = (Health::default(), accrual());
        for _ in 0..3 {
            health.failed(1, &accrual, true);
        }
        let until = health.closed_until();

        assert!(health.allow_early(100) && !health.allow_early(100), "once");
        assert_eq!(health.state(100), ReplicaState::Probation);
        assert_eq!(health.failed(150, &accrual, true), None);
        assert_eq!(health.state(150), ReplicaState::Probation, "that work had begun before");

        assert!(health.claim(200, &accrual) && health.is_tried_early(200));
        assert_eq!(health.state(200), ReplicaState::Ejected, "the others keep away");
        assert_eq!(health.failed(250, &accrual, true), None);
        assert_eq!((health.state(250), health.closed_until()), (ReplicaState::Ejected, until));
        assert!(!health.allow_early(250), "once for each time");

        assert!(health.claim(until, &accrual));
        let second = health.failed(until, &accrual, true).unwrap();
        assert!(second.as_millis() <= 10_000, "{second:?} is for the second time");
        assert!(health.allow_early(until + 1));
    }

    #[test]
    fn failures_of_one_that_is_used_though_it_is_ejected_are_not_held_against_it() {
        let (health, accrual) = (Health::default(), accrual());
        for _ in 0..3 {
            health.failed(1, &accrual, true);
        }
        let until = health.closed_until();

        for now in 2..1000 {
            assert!(health.claim(now, &accrual), "all others are ejected as well");
            assert_eq!(health.failed(now, &accrual, true), None);
        }

        assert_eq!(health.closed_until(), until);
        assert!(health.claim(until, &accrual));
        let second = health.failed(until, &accrual, true).unwrap();
        assert!(second.as_millis() <= 10_000, "{second:?} is for the second time");
    }

    #[test]
    fn a_low_success_rate_ejects_once_enough_was_seen() {
        let accrual = Accrual::new(Policy::SuccessRate { rate: 0.8, requests: 10 });
        let health = Health::default();

        for _ in 0..9 {
            assert_eq!(health.failed(1, &accrual, true), None);
        }
        assert!(health.failed(1, &accrual, true).is_some());
    }

    #[test]
    fn no_more_than_the_share_is_ejected() {
        let (health, accrual) = (Health::default(), accrual());

        for _ in 0..10 {
            assert_eq!(health.failed(1, &accrual, false), None);
        }
        assert!(health.is_well());
    }
}
