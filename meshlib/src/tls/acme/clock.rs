//! What time it is, and how it is written.

use std::fmt::Debug;
use std::time::Duration;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use time::format_description::well_known::Rfc3339;

/// Says what time it is.
///
/// Every decision about certificates asks it: whether one is valid, when it is renewed, how long a failure counts.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time.
    fn now(&self) -> SystemTime;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to add")]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The last second of the year 9999, beyond which neither certificates nor RFC 3339 go.
const END: i64 = 253_402_300_799;

/// The time of so many seconds since 1970; before that or after the year 9999 the nearest that can be written.
pub(super) fn from_unix(seconds: i64) -> SystemTime {
    let seconds = seconds.clamp(0, END).unsigned_abs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn written(at: SystemTime) -> OffsetDateTime {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds).unwrap_or(END).min(END);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// As RFC 3339 writes it, in whole seconds.
pub(super) fn rfc3339(at: SystemTime) -> String {
    written(at).format(&Rfc3339).unwrap_or_default()
}

/// The day, as `2026-11-29`.
pub(super) fn date(at: SystemTime) -> String {
    rfc3339(at).chars().take(10).collect()
}

/// What RFC 3339 wrote.
pub(super) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(|at| from_unix(at.unix_timestamp()))
}

/// How long to wait by a `Retry-After` field: seconds, or a date (RFC 9110 section 10.2.3). At most a week.
pub(super) fn retry_after(field: &str, now: SystemTime) -> Option<Duration> {
    const MOST: Duration = Duration::from_secs(7 * 24 * 3600);

    let field = field.trim();
    let wait = if !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(field.parse().unwrap_or(u64::MAX))
    } else {
        // An HTTP date is one that a mail may carry, too.
        let at = from_unix(OffsetDateTime::parse(field, &Rfc2822).ok()?.unix_timestamp());
        at.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        let at = from_unix(1_796_000_000);

        assert_eq!(rfc3339(at), "2026-11-30T00:53:20Z");
        assert_eq!(date(at), "2026-11-30");
        assert_eq!(parse_rfc3339("2026-11-30T01:53:20.5+01:00"), Some(at));
        assert_eq!(parse_rfc3339("yesterday"), None);
        assert_eq!(rfc3339(from_unix(i64::MAX)), "9999-12-31T23:59:59Z");
        assert_eq!(from_unix(-1), SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = from_unix(784_111_777);

        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999999999999999", now), Some(Duration::from_secs(7 * 24 * 3600)));
        assert_eq!(retry_after("", now), None);
        assert_eq!(retry_after("-1", now), None);
        assert_eq!(retry_after("soon", now), None);
    }
}
