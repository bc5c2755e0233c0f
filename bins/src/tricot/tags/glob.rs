//! Patterns of hosts.

use std::fmt;

use super::problem::TagError;
use super::problem::shown;

/// A pattern of hosts as shells have them: `*` is any text, `?` any character, `[a-c]` one of these, `[!a-c]` none of
/// these. All of them take dots, too.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    text: Box<str>,
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Byte(u8),
    /// One byte of these, or one of all others.
    One {
        of: Box<[(u8, u8)]>,
        negated: bool,
    },
    /// Any bytes, or none.
    Any,
}

impl Glob {
    /// Reads a pattern, in lower case already.
    pub(super) fn new(text: &str) -> Result<Self, TagError> {
        let mut parts = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, after @ ..] = rest {
            rest = after;
            match first {
                // Two are as good as one, and cost more.
                b'*' if parts.last() == Some(&Part::Any) => {}
                b'*' => parts.push(Part::Any),
                b'?' => parts.push(Part::One { of: Box::new([]), negated: true }),
                b'[' => {
                    let (part, after) =
                        class(rest).ok_or_else(|| TagError::Brackets { host: shown(text) })?;
                    parts.push(part);
                    rest = after;
                }
                byte if is_plain(*byte) => parts.push(Part::Byte(*byte)),
                _ => return Err(illegal(text)),
            }
        }
        Ok(Self { text: text.into(), parts: parts.into() })
    }

    /// Whether a host, in lower case, is one of those that are meant.
    ///
    /// At most as many steps as the lengths of both multiplied, no allocation.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.as_bytes();
        let (mut part, mut at) = (0, 0);
        // Where to go on if what follows the last `*` does not match: it takes one byte more. What an earlier one takes
        // need not be tried again, since the last one can take whatever that leaves.
        let mut again = None;
        loop {
            match self.parts.get(part) {
                Some(Part::Any) => {
                    part += 1;
                    again = Some((part, at));
                    continue;
                }
                Some(wanted) if host.get(at).is_some_and(|byte| wanted.takes(*byte)) => {
                    part += 1;
                    at += 1;
                    continue;
                }
                None if at == host.len() => return true,
                _ => {}
            }
            match again {
                Some((after, from)) if from < host.len() => {
                    part = after;
                    at = from + 1;
                    again = Some((after, at));
                }
                _ => return false,
            }
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Glob").field(&self.text).finish()
    }
}

impl Part {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => *own == byte,
            Self::One { of, negated } => {
                of.iter().any(|(from, to)| (*from..=*to).contains(&byte)) != *negated
            }
            Self::Any => true,
        }
    }
}

/// What comes after a `[`: the part, and what comes after its `]`.
fn class(rest: &[u8]) -> Option<(Part, &[u8])> {
    let (negated, rest) = match rest {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, rest),
    };
    let (mut inside, after) = {
        let end = rest.iter().position(|byte| *byte == b']')?;
        (&rest[..end], &rest[end + 1..])
    };
    let mut of = Vec::new();
    while let [from, others @ ..] = inside {
        let (to, others) = match others {
            [b'-', to, others @ ..] => (to, others),
            _ => (from, others),
        };
        if !is_plain(*from) || !is_plain(*to) || from > to {
            return None;
        }
        of.push((*from, *to));
        inside = others;
    }
    (!of.is_empty()).then(|| (Part::One { of: of.into(), negated }, after))
}

fn is_plain(byte: u8) -> bool {
    super::host::is_of_host(char::from(byte)) || byte == b'.'
}

fn illegal(text: &str) -> TagError {
    let is_of_glob = |c: char| super::host::is_of_host(c) || ".*?[]!^".contains(c);
    // A bracket that closes none is none of the others.
    let character = text.chars().find(|c| !is_of_glob(*c)).unwrap_or(']');
    TagError::Character { host: shown(text), character }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by trying everything.
    fn naive(parts: &[Part], host: &[u8]) -> bool {
        match (parts, host) {
            ([], []) => true,
            ([Part::Any, others @ ..], _) => (0..=host.len()).any(|taken| naive(others, &host[taken..])),
            ([part, others @ ..], [byte, rest @ ..]) => part.takes(*byte) && naive(others, rest),
            _ => false,
        }
    }

    #[test]
    fn patterns_match_whole_hosts() {
        for (pattern, yes, no) in [
            (
                "app-*.x.org",
                &["app-1.x.org", "app-.x.org", "app-a.b.x.org"][..],
                &["app.x.org", "app-1.x.org.a"][..],
            ),
            ("a?.org", &["ab.org", "a..org"], &["a.org", "abc.org"]),
            ("[ab]x", &["ax", "bx"], &["x", "cx", "abx"]),
            ("[a-c0]", &["a", "b", "c", "0"], &["d", "-", "1"]),
            ("[!a-c]", &["d", "."], &["a", "b", ""]),
            ("[^a]", &["b"], &["a"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("*a*b*", &["ab", "xaxbx", "ba.ab"], &["ba", "a", ""]),
            ("**", &["", "a.b"], &[]),
            ("*.*", &["a.b", "."], &["a"]),
        ] {
            let glob = Glob::new(pattern).unwrap();
            for host in yes {
                assert!(glob.matches(host), "{pattern} {host}");
            }
            for host in no {
                assert!(!glob.matches(host), "{pattern} {host}");
            }
        }
    }

    #[test]
    fn broken_patterns_are_named() {
        for text in ["[", "[a", "a[]", "[!]", "[b-a]", "[*]", "[a", "[a-", "[[a]]"] {
            assert!(matches!(Glob::new(text), Err(TagError::Brackets { .. })), "{text}");
        }
        for (text, character) in [("*a]", ']'), ("*,", ','), ("*:1", ':'), ("*é", 'é'), ("*{a}", '{')] {
            assert_eq!(Glob::new(text), Err(TagError::Character { host: text.into(), character }));
        }
    }

    #[test]
    fn nothing_takes_for_ever() {
        let glob = Glob::new(&"*a".repeat(1000)).unwrap();
        let host = "a".repeat(999);

        // A million steps, where trying everything would take more than there are atoms.
        assert!(!glob.matches(&host));
        assert!(glob.matches(&format!("{host}a")));
    }

    proptest! {
        #[test]
        fn matching_agrees_with_trying_everything(
            pattern in "([ab.*?]|\\[[!^]?[ab]\\]|\\[a-b\\]){0,8}",
            host in "[ab.c]{0,8}",
        ) {
            let glob = Glob::new(&pattern).unwrap();

            prop_assert_eq!(glob.matches(&host), naive(&glob.parts, host.as_bytes()), "{} {}", pattern, host);
        }
    }
}
