//! When a certificate is renewed.
//!
//! At half of its life, a little earlier or later by its name, so that certificates of one day are not renewed in one
//! second. An authority may [suggest](Suggestion) another time (RFC 9773). Every node comes to the same result.

use std::time::Duration;
use std::time::SystemTime;

use super::certificate::Certificate;
use super::digest;

/// Certificates that live shorter than this are renewed at half of their life whatever the authority suggests: Pebble
/// 2.6 suggests from yesterday to tomorrow for ten minutes, which would be now, for ever.
const SUGGESTIBLE: Duration = Duration::from_secs(3 * 24 * 3600);

/// The time in which an authority would like a certificate to be renewed, and when to ask it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suggestion {
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
    /// The certificate it is about.
    pub(super) fingerprint: String,
    pub(super) next_look: SystemTime,
}

impl Suggestion {
    /// One moment in the window. It stays the same until the window changes.
    fn moment(&self, name: &str) -> SystemTime {
        let window = self.end.duration_since(self.start).unwrap_or_default();
        let start = self.start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let seed = format!("{name} {} {start} {}", self.fingerprint, window.as_secs());
        self.start + window.mul_f64(digest::fraction(&seed))
    }
}

/// Whether the authority is asked about a certificate.
pub(super) fn is_suggestible(certificate: &Certificate) -> bool {
    certificate.id.is_some() && certificate.lifetime() >= SUGGESTIBLE
}

/// When a certificate is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: SystemTime,
    /// Whether it is the authority that says so.
    pub(super) suggested: bool,
}

/// When a certificate is renewed.
pub(super) fn due(certificate: &Certificate, suggestion: Option<&Suggestion>) -> Due {
    let lifetime = certificate.lifetime();
    let jitter = 0.95 + 0.1 * digest::fraction(&certificate.name);
    let mut half = certificate.not_before + lifetime.mul_f64(0.5 * jitter);
    if let Some(ordered) = certificate.ordered {
        // A clock that is ahead finds a certificate due that it has just got. It must not order without an end.
        half = half.max(ordered + lifetime / 4).min(certificate.not_after);
    }
    let half = Due { at: half, suggested: false };
    let Some(suggestion) = suggestion else { return half };
    if !is_suggestible(certificate) || suggestion.fingerprint != certificate.fingerprint {
        return half;
    }
    // RFC 9773 section 4.2: a window that ends before it begins says nothing.
    if suggestion.end < suggestion.start {
        return half;
    }
    let mut at = suggestion.moment(&certificate.name);
    if certificate.suggested {
        // One suggested renewal per quarter of a life: a window that lies in the past for every certificate is no loop.
        at = at.max(certificate.not_before + lifetime / 4);
    }
    // However late the window is, an eighth of the life is left for failures.
    let latest = certificate.not_before + lifetime.mul_f64(0.875);
    Due { at: at.min(latest), suggested: at <= latest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::acme::certificate::tests::certificate;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// A certificate of so long a life.
    fn living(lifetime: Duration) -> Certificate {
        let mut certificate = certificate("a.test").1;
        certificate.not_after = certificate.not_before + lifetime;
        certificate
    }

    fn suggesting(certificate: &Certificate, from: Duration, until: Duration) -> Suggestion {
        Suggestion {
            start: certificate.not_before + from,
            end: certificate.not_before + until,
            fingerprint: certificate.fingerprint.clone(),
            next_look: certificate.not_before,
        }
    }

    fn after(certificate: &Certificate, suggestion: Option<&Suggestion>) -> Duration {
        due(certificate, suggestion).at.duration_since(certificate.not_before).unwrap()
    }

    #[test]
    fn half_of_the_life_counts_give_or_take_a_little() {
        for lifetime in [Duration::from_secs(600), 90 * DAY] {
            let mut certificate = living(lifetime);
            let mut ends = [Duration::MAX, Duration::ZERO];
            for n in 0..200 {
                certificate.name = format!("{n}.test").into();
                let due = after(&certificate, None);
                assert_eq!(due, after(&certificate, None), "every node says the same");
                ends = [ends[0].min(due), ends[1].max(due)];
            }
            assert!(ends[0] >= lifetime.mul_f64(0.475) && ends[0] < lifetime.mul_f64(0.48), "{ends:?}");
            assert!(ends[1] <= lifetime.mul_f64(0.525) && ends[1] > lifetime.mul_f64(0.52), "{ends:?}");
        }
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_order_again_and_again() {
        let mut certificate = living(90 * DAY);

        certificate.ordered = Some(certificate.not_before);
        assert!(after(&certificate, None) > 42 * DAY, "a clock that is right makes no difference");
        certificate.ordered = Some(certificate.not_before + 60 * DAY);
        assert_eq!(after(&certificate, None), 60 * DAY + 90 * DAY / 4);
        certificate.ordered = Some(certificate.not_before + 80 * DAY);
        assert_eq!(after(&certificate, None), 90 * DAY, "what has expired is due");
    }

    #[test]
    fn a_suggested_moment_lies_in_the_window_and_stays() {
        let certificate = living(90 * DAY);
        let mut suggestion = suggesting(&certificate, 60 * DAY, 62 * DAY);

        let first = due(&certificate, Some(&suggestion));
        assert!(first.suggested);
        assert!((suggestion.start..=suggestion.end).contains(&first.at));
        suggestion.next_look += DAY;
        assert_eq!(due(&certificate, Some(&suggestion)), first, "another look changes nothing");
        suggestion.end += DAY;
        assert_ne!(due(&certificate, Some(&suggestion)), first, "another window does");
    }

    #[test]
    fn a_window_in_the_past_means_now_but_not_for_ever() {
        let mut certificate = living(90 * DAY);
        let past = Suggestion {
            start: certificate.not_before - 2 * DAY,
            end: certificate.not_before - DAY,
            fingerprint: certificate.fingerprint.clone(),
            next_look: certificate.not_before,
        };

        assert!(due(&certificate, Some(&past)).at < certificate.not_before);
        certificate.suggested = true;
        assert_eq!(after(&certificate, Some(&past)), 90 * DAY / 4);
    }

    #[test]
    fn windows_that_make_no_sense_do_no_harm() {
        let certificate = living(90 * DAY);
        let half = after(&certificate, None);

        let backwards = suggesting(&certificate, 2 * DAY, DAY);
        assert_eq!(after(&certificate, Some(&backwards)), half);
        let too_late = suggesting(&certificate, 89 * DAY, 900 * DAY);
        assert_eq!(after(&certificate, Some(&too_late)), (90 * DAY).mul_f64(0.875));
        let mut foreign = suggesting(&certificate, DAY, DAY);
        foreign.fingerprint = "another".into();
        assert_eq!(after(&certificate, Some(&foreign)), half);
        let short = living(Duration::from_secs(600));
        let window = suggesting(&short, Duration::ZERO, DAY);
        assert_eq!(after(&short, Some(&window)), after(&short, None));
    }
}
