//! Numbers as people read them. What is not known is a dash.

/// Stands for what is not known.
pub(super) const UNKNOWN: &str = "-";

/// How many per second.
pub(super) fn rate(rate: Option<f64>) -> String {
    known(rate, |rate| if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") })
}

/// A share from 0 to 1. What is short of all is never shown as all, and what is more than nothing never as nothing.
pub(super) fn share(share: Option<f64>) -> String {
    known(share, |share| {
        let percent = share.clamp(0.0, 1.0) * 100.0;
        match percent {
            0.0 => "0%".into(),
            100.0 => "100%".into(),
            percent => format!("{:.1}%", percent.clamp(0.1, 99.9)),
        }
    })
}

/// Milliseconds.
pub(super) fn latency(millis: Option<f64>) -> String {
    known(millis, |millis| match millis {
        ..10.0 => format!("{millis:.1}ms"),
        ..1_000.0 => format!("{millis:.0}ms"),
        ..100_000.0 => format!("{:.1}s", millis / 1e3),
        _ => format!("{:.0}s", millis / 1e3),
    })
}

/// A share relative to others.
pub(super) fn weight(weight: f64) -> String {
    known(Some(weight), |weight| {
        let text = format!("{weight:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    })
}

/// A length of time by its two largest units, without a space.
pub(super) fn time(millis: u64) -> String {
    let seconds = millis / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        (_, _, _) => format!("{days}d{}h", hours % 24),
    }
}

/// Whole days from one time to another, both in milliseconds since 1970; negative if it is past.
pub(super) fn days(from: u64, to: u64) -> i64 {
    const DAY: i64 = 86_400_000;
    let millis = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    millis(to).saturating_sub(millis(from)).div_euclid(DAY)
}

fn known(value: Option<f64>, text: impl FnOnce(f64) -> String) -> String {
    value.filter(|value| value.is_finite()).map_or_else(|| UNKNOWN.to_owned(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_digit_more_when_they_are_small() {
        assert_eq!([0.0, 3.26, 99.9, 100.4].map(|n| rate(Some(n))), ["0.0", "3.3", "99.9", "100"]);
        assert_eq!(rate(None), "-");
        assert_eq!(rate(Some(f64::NAN)), "-");
    }

    #[test]
    fn nearly_all_is_not_all() {
        let shares = [0.0, 1e-9, 0.5, 0.99999, 1.0, 2.0].map(|n| share(Some(n)));
        assert_eq!(shares, ["0%", "0.1%", "50.0%", "99.9%", "100%", "100%"]);
    }

    #[test]
    fn latencies_have_the_unit_that_is_short() {
        let latencies = [0.04, 9.94, 12.6, 1_500.0, 250_000.0].map(|n| latency(Some(n)));
        assert_eq!(latencies, ["0.0ms", "9.9ms", "13ms", "1.5s", "250s"]);
    }

    #[test]
    fn weights_have_no_needless_zeros() {
        assert_eq!([0.0, 1.0, 10.0, 0.5, 0.126, f64::NAN].map(weight), ["0", "1", "10", "0.5", "0.13", "-"]);
    }

    #[test]
    fn times_have_two_units() {
        let times = [900, 59_000, 61_000, 3_600_000, 86_400_000, 300_000_000].map(time);
        assert_eq!(times, ["0s", "59s", "1m1s", "1h0m", "1d0h", "3d11h"]);
    }

    #[test]
    fn days_that_have_passed_are_negative() {
        assert_eq!((days(0, 86_400_000), days(1, 86_400_000), days(86_400_001, 0)), (1, 0, -2));
        assert_eq!(days(0, u64::MAX), i64::MAX / 86_400_000);
    }
}
