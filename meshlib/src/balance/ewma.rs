//! A moving average of times that believes bad news at once.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a replica that was tried and never measured is expected to take, in ms.
const SEED_MS: f64 = 30.0;
/// Times below this do not count as different, in ms.
const FLOOR_MS: f64 = 1.0;
/// Silence after which a time counts for 1/e of itself.
const DECAY_MS: f64 = 10_000.0;
/// Share of the difference by which a lower time lowers the average.
const GAIN: f64 = 0.1;

/// The average in ms (an `f32`, upper half) and when it was last touched (ms, lower half), in one word.
///
/// Zero: never tried. Negative: tried and never measured, [`SEED_MS`] stands for what it takes.
#[derive(Debug, Default)]
pub(super) struct Ewma(AtomicU64);

impl Ewma {
    /// Work begins. Until its answer is there the replica is as one that was measured, so that those which never answer are
    /// not tried first again and again.
    pub(super) fn begin(&self, now: impl FnOnce() -> u64) {
        // Relaxed: as below.
        if self.0.load(Ordering::Relaxed) == 0 {
            let _ = self.0.compare_exchange(0, pack(-SEED_MS, now()), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Takes a time in. A longer time than the average becomes the average, a shorter one moves it by a tenth.
    pub(super) fn record(&self, took: Duration, now: u64) {
        let took = took.as_secs_f64() * 1000.0;
        // Relaxed: the word is complete in itself. If another sample comes in between, both are averaged in turn.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let average = match unpack(word) {
                Some((average, at)) if average > 0.0 => {
                    let decayed = decay(average, at, now);
                    if took > decayed { took } else { decayed + (took - decayed) * GAIN }
                }
                _ => took,
            };
            Some(pack(average, now))
        });
    }

    /// How long it will take until work is done that is added to what is in flight, in ms. One that was never tried comes
    /// before all others: nothing would be known of it otherwise.
    pub(super) fn expected(&self, in_flight: u32, now: u64) -> f64 {
        let Some((average, at)) = unpack(self.0.load(Ordering::Relaxed)) else { return 0.0 };
        decay(average.abs(), at, now).max(FLOOR_MS) * (f64::from(in_flight) + 1.0)
    }

    /// The average without regard to its age.
    pub(super) fn measured(&self) -> Option<Duration> {
        unpack(self.0.load(Ordering::Relaxed))
            .filter(|(average, _)| *average > 0.0)
            .map(|(average, _)| Duration::from_secs_f64(average / 1000.0))
    }
}

fn decay(average: f64, at: u32, now: u64) -> f64 {
    // The clock's lower half wraps every 49 days; a difference does not mind.
    let idle = f64::from((now as u32).wrapping_sub(at)) / DECAY_MS;
    // The curve begins as a straight line; up to here the two differ by less than 0.01 %.
    average * if idle < 0.01 { 1.0 - idle } else { (-idle).exp() }
}

fn pack(average: f64, now: u64) -> u64 {
    // Never the word that stands for "never tried".
    let average = if average < 0.0 { average as f32 } else { (average as f32).max(f32::MIN_POSITIVE) };
    let bits = average.to_bits();
    u64::from(bits) << 32 | u64::from(now as u32)
}

fn unpack(word: u64) -> Option<(f64, u32)> {
    (word != 0).then(|| (f64::from(f32::from_bits((word >> 32) as u32)), word as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_believed_at_once_and_forgotten_slowly() {
        let ewma = Ewma::default();
        ewma.record(Duration::from_millis(2), 1);
        ewma.record(Duration::from_millis(100), 1);
        assert!((ewma.expected(0, 1) - 100.0).abs() < 0.1);

        ewma.record(Duration::from_millis(2), 1);
        assert!((ewma.expected(0, 1) - 90.2).abs() < 0.1);
        assert!(ewma.expected(0, 20_001) < 13.0, "silence forgives");
    }

    #[test]
    fn an_unknown_replica_comes_first_and_is_as_others_once_it_is_tried() {
        let ewma = Ewma::default();
        assert_eq!(ewma.expected(0, 5), 0.0);

        ewma.begin(|| 5);
        assert_eq!(ewma.expected(1, 5), 2.0 * SEED_MS);
        assert_eq!(ewma.expected(0, 5), SEED_MS, "it has not answered");
        assert!(ewma.expected(0, 30_005) < 2.0, "silence forgives");
        assert_eq!(ewma.measured(), None);

        ewma.record(Duration::from_millis(2), 5);
        assert!((ewma.expected(0, 5) - 2.0).abs() < 0.1, "the first answer is all that is known");
    }
}
