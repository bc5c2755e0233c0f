//! Numbers and times as people read them.

use super::html::Html;
use crate::kit::moment::rfc3339;

/// What stands where nothing is known.
pub(super) const UNKNOWN: &str = "\u{2014}";

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// A day in milliseconds.
pub(super) const DAY: u64 = 24 * HOUR;

/// A count, in groups of three digits.
pub(super) fn count(count: impl Into<u64>) -> String {
    let digits = count.into().to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// How many there are of something.
pub(super) fn counted(of: usize, one: &str, many: &str) -> String {
    format!("{} {}", count(of as u64), if of == 1 { one } else { many })
}

/// A number that may be known, as this function says it.
pub(super) fn known(number: Option<f64>, say: fn(f64) -> String) -> String {
    number.filter(|number| number.is_finite()).map_or_else(|| UNKNOWN.to_owned(), say)
}

/// How many per second.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 0.1 => "< 0.1".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate => count(rate.round() as u64),
    }
}

/// A share in percent. Only all of it is 100 %, and only nothing is 0 %.
pub(super) fn share(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        percent if percent >= 100.0 => "100 %".to_owned(),
        percent if percent > 99.99 => "> 99.99 %".to_owned(),
        // Cut, not rounded. What is added is less than any digit shown, and more than the error of the product.
        percent if percent >= 99.0 => format!("{:.2} %", (percent * 100.0 + 1e-6).floor() / 100.0),
        percent if percent >= 0.1 => format!("{:.1} %", (percent * 10.0 + 1e-6).floor() / 10.0),
        percent if percent > 0.0 => "< 0.1 %".to_owned(),
        _ => "0 %".to_owned(),
    }
}

/// A latency, given in milliseconds.
pub(super) fn latency(ms: f64) -> String {
    match ms {
        ms if ms < 0.01 => "< 0.01 ms".to_owned(),
        ms if ms < 0.995 => format!("{ms:.2} ms"),
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 9_950.0 => format!("{:.1} s", ms / 1e3),
        ms => format!("{} s", count((ms / 1e3).round() as u64)),
    }
}

/// A weight, with no more digits than it has.
pub(super) fn weight(weight: f64) -> String {
    let rounded = format!("{weight:.3}");
    rounded.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A span of time in its two largest units.
pub(super) fn span(ms: u64) -> String {
    match ms {
        ms if ms < SECOND => "less than 1 s".to_owned(),
        ms if ms < MINUTE => format!("{} s", ms / SECOND),
        ms if ms < HOUR => two(ms, (MINUTE, "min"), (SECOND, "s")),
        ms if ms < DAY => two(ms, (HOUR, "h"), (MINUTE, "min")),
        ms => two(ms, (DAY, if ms < 2 * DAY { "day" } else { "days" }), (HOUR, "h")),
    }
}

fn two(ms: u64, (large, of_large): (u64, &str), (small, of_small): (u64, &str)) -> String {
    match (ms / large, ms % large / small) {
        (n, 0) => format!("{n} {of_large}"),
        (n, m) => format!("{n} {of_large} {m} {of_small}"),
    }
}

/// How much time there is until something ends, which is not over before it is.
pub(super) fn remaining(ms: u64) -> String {
    span(ms.div_ceil(SECOND).saturating_mul(SECOND))
}

/// Writes a moment, given in milliseconds since 1970.
pub(super) fn moment(html: &mut Html, at_ms: u64) {
    let at = rfc3339(at_ms);
    html.markup("<time").attribute("datetime", &at).markup(">").text(&at).markup("</time>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_tell_something() {
        assert_eq!([0_u64, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 0.04, 3.44, 9.97, 12_345.6].map(rate), ["0", "< 0.1", "3.4", "10", "12,346"]);
        assert_eq!(
            [0.004, 0.42, 4.25, 42.4, 1_234.0].map(latency),
            ["< 0.01 ms", "0.42 ms", "4.2 ms", "42 ms", "1.2 s"]
        );
        assert_eq!([1.0, 0.1, 0.3334, 100.0].map(weight), ["1", "0.1", "0.333", "100"]);
        assert_eq!(known(None, rate), UNKNOWN);
        assert_eq!(known(Some(f64::NAN), rate), UNKNOWN);
    }

    #[test]
    fn a_share_is_whole_only_if_nothing_is_missing() {
        let shares = [1.0, 0.999_999, 0.9998, 0.987_6, 0.57, 0.000_1, 0.0];
        let expected = ["100 %", "> 99.99 %", "99.98 %", "98.7 %", "57.0 %", "< 0.1 %", "0 %"];
        assert_eq!(shares.map(share), expected);
    }

    #[test]
    fn spans_are_told_in_two_units() {
        let spans = [0, 59_999, 60_000, 192_000, HOUR, 11_520_000, DAY + HOUR, 53 * DAY];
        let expected =
            ["less than 1 s", "59 s", "1 min", "3 min 12 s", "1 h", "3 h 12 min", "1 day 1 h", "53 days"];
        assert_eq!(spans.map(span), expected);
        assert_eq!([0, 1, 2_300].map(remaining), ["less than 1 s", "1 s", "3 s"]);
    }
}
