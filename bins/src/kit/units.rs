//! Values as people write and read them.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

/// A length of time: a number and `ms`, `s`, `m` or `h`.
///
/// # Errors
///
/// What such a text looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match number.parse::<u32>() {
        Ok(number) if millis > 0 => Ok(Duration::from_millis(u64::from(number) * millis)),
        _ => Err("a number and a unit is wanted, such as 500ms, 5s, 2m or 1h".into()),
    }
}

/// How long something may take to end: a length of time, or a number of seconds.
///
/// # Errors
///
/// What such a text looks like.
pub fn grace(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    duration(text)
        .map_err(|_| "a number of seconds or a length of time is wanted, such as 10, 10s or 2m".into())
}

/// The length of time, unless it is none.
///
/// # Errors
///
/// That more is wanted.
pub fn more_than_none(time: Duration) -> Result<Duration, String> {
    if time.is_zero() { Err("more than no time is wanted".into()) } else { Ok(time) }
}

/// A length of time in which something can happen: at least 100 ms.
///
/// # Errors
///
/// What such a text looks like, or that it is too short.
pub fn some_time(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(100);

    match grace(text)? {
        time if time < SHORTEST => Err(format!("{SHORTEST:?} is the least")),
        time => Ok(time),
    }
}

/// Some things with commas between.
pub fn listed(things: impl IntoIterator<Item: Display>) -> String {
    things.into_iter().map(|thing| thing.to_string()).collect::<Vec<_>>().join(", ")
}

/// Whether a character does something else than show itself: commands of terminals, and what makes a line look like
/// another one.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Separators of lines and paragraphs, and what changes the direction of text or has no width: Unicode 16,
            // general categories Zl, Zp and Cf.
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// An address to listen on.
///
/// # Errors
///
/// What is wanted instead.
pub fn listen(text: &str) -> Result<SocketAddr, String> {
    text.trim()
        .parse()
        .map_err(|_| "an address and a port are wanted, such as 127.0.0.1:8080 or [::]:443".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_may_be_a_number_of_seconds() {
        assert_eq!(grace("10"), Ok(Duration::from_secs(10)));
        assert_eq!(grace("0"), Ok(Duration::ZERO));
        assert_eq!(grace("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "-1", "1.5", "10 s", "ten", "4294967296"] {
            assert!(grace(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for text in ["", "5", "s", "-5s", "5 s", "5d", "1.5s", "99999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_long_enough_for_something_to_happen() {
        assert_eq!(some_time("2"), Ok(Duration::from_secs(2)));
        assert_eq!(some_time("500ms"), Ok(Duration::from_millis(500)));
        for text in ["0", "99ms", "-1", "soon"] {
            assert!(some_time(text).is_err(), "{text}");
        }
    }
}
