//! Sets of ports.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of ports: `80,8000-8010`. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// Sorted, apart from each other.
    ranges: Vec<(u16, u16)>,
}

impl Ports {
    /// A set of ranges. `None`: there is none, or a range is empty.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Option<Self> {
        let mut all: Vec<_> = ranges.into_iter().map(RangeInclusive::into_inner).collect();
        if all.is_empty() || all.iter().any(|(first, last)| first > last) {
            return None;
        }
        all.sort_unstable();
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for (first, last) in all {
            match ranges.last_mut() {
                // They overlap or touch.
                Some(before) if u32::from(first) <= u32::from(before.1) + 1 => before.1 = before.1.max(last),
                _ => ranges.push((first, last)),
            }
        }
        Some(Self { ranges })
    }

    /// Whether a port is in it.
    pub fn contain(&self, port: u16) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// In the notation of iptables' multiport match, in pieces that it can take: it has room for 15 ports, and a range
    /// counts for two.
    pub(super) fn multiport(&self) -> Vec<String> {
        const ROOM: usize = 15;
        let mut pieces: Vec<(usize, Vec<String>)> = Vec::new();
        for range in &self.ranges {
            let (size, text) = if range.0 == range.1 { (1, "") } else { (2, ":") };
            let text = shown(*range, text);
            match pieces.last_mut() {
                Some((used, texts)) if *used + size <= ROOM => {
                    *used += size;
                    texts.push(text);
                }
                _ => pieces.push((size, vec![text])),
            }
        }
        pieces.into_iter().map(|(_, texts)| texts.join(",")).collect()
    }

    /// In the notation of nft.
    pub(super) fn nft(&self) -> String {
        let texts: Vec<_> = self.ranges.iter().map(|range| shown(*range, "-")).collect();
        match texts.as_slice() {
            [one] => one.clone(),
            _ => format!("{{ {} }}", texts.join(", ")),
        }
    }
}

fn shown((first, last): (u16, u16), dash: &str) -> String {
    if first == last { first.to_string() } else { format!("{first}{dash}{last}") }
}

impl FromStr for Ports {
    type Err = InvalidPorts;

    fn from_str(text: &str) -> Result<Self, InvalidPorts> {
        let range = |item: &str| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        ranges.and_then(Self::new).ok_or_else(|| InvalidPorts(text.to_owned()))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.ranges.iter().map(|range| shown(*range, "-")).collect();
        f.write_str(&texts.join(","))
    }
}

/// A text is no set of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a list of ports, such as 80,8000-8010")]
pub struct InvalidPorts(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Ports {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(ports("443, 80,81-90,85-95,65535,65534").to_string(), "80-95,443,65534-65535");
        assert!(ports("80-90").contain(90) && !ports("80-90").contain(91));
    }

    #[test]
    fn a_multiport_match_is_never_too_long() {
        let singles = ports("1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31");
        let ranges = ports("1-2,4-5,7-8,10-11,13-14,16-17,19-20,22-23");

        assert_eq!(singles.multiport(), ["1,3,5,7,9,11,13,15,17,19,21,23,25,27,29", "31"]);
        assert_eq!(ranges.multiport(), ["1:2,4:5,7:8,10:11,13:14,16:17,19:20", "22:23"]);
    }

    #[test]
    fn nft_has_braces_for_more_than_one() {
        assert_eq!(ports("80").nft(), "80");
        assert_eq!(ports("80-90").nft(), "80-90");
        assert_eq!(ports("80,8000-8010").nft(), "{ 80, 8000-8010 }");
    }

    #[test]
    fn what_is_no_list_of_ports_is_refused() {
        for text in ["", ",", "80,", "90-80", "65536", "-1", "a", "1-2-3"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }
}
