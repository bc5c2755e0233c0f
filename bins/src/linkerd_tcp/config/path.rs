//! Logical names such as `/svc/web`, and prefixes of them.

use std::fmt;

/// Stands in a destination for the server name of the client's TLS handshake.
pub(super) const SNI: &str = "{sni}";

/// Checks a path: `/`, or `/label(/label)*` with labels of `0-9A-Za-z_:.#$%-` or `\xHH`.
///
/// # Errors
///
/// What is wrong and what is allowed, to be put behind the path.
pub(super) fn check(path: &str) -> Result<(), String> {
    if path == "/" {
        return Ok(());
    }
    let Some(labels) = path.strip_prefix('/') else {
        return Err("does not begin with `/`; expected a path such as /svc/web".into());
    };
    labels.split('/').try_for_each(check_label)
}

/// Checks a destination: a path that may contain `{sni}`.
///
/// # Errors
///
/// As [`check`].
pub(super) fn check_destination(path: &str) -> Result<(), String> {
    // Any label character will do in its place.
    check(&path.replace(SNI, "x"))
}

fn check_label(label: &str) -> Result<(), String> {
    if label.is_empty() {
        return Err("has an empty segment; expected a path such as /svc/web".into());
    }
    let mut rest = label;
    while let Some(c) = rest.chars().next() {
        if c.is_ascii_alphanumeric() || "_:.#$%-".contains(c) {
            rest = &rest[1..];
        } else if is_escape(rest.as_bytes()) {
            rest = &rest[4..];
        } else {
            return Err(format!(
                "contains {c:?}; expected a path whose segments are made of letters, digits, `_:.#$%-` or `\\xHH`"
            ));
        }
    }
    Ok(())
}

/// Whether a text starts with `\xHH`.
fn is_escape(text: &[u8]) -> bool {
    matches!(text, [b'\\', b'x', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}

/// The prefix of a client rule: whole segments, where `*` stands for any one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefix(Vec<String>);

impl Prefix {
    /// Parses a prefix. A trailing `/` means nothing; `/` alone is a prefix of everything.
    ///
    /// # Errors
    ///
    /// As [`check`].
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "/" {
            return Ok(Self(Vec::new()));
        }
        let Some(segments) = text.strip_suffix('/').unwrap_or(text).strip_prefix('/') else {
            return Err("does not begin with `/`; expected a prefix such as /svc".into());
        };
        for segment in segments.split('/').filter(|segment| *segment != "*") {
            if segment.contains('*') {
                return Err("has a `*` beside other characters; expected `*` as a whole segment".into());
            }
            check_label(segment)?;
        }
        Ok(Self(segments.split('/').map(str::to_string).collect()))
    }

    /// Whether it is `/`.
    pub(super) fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `path` begins with these segments: `/svc` matches `/svc` and `/svc/web`, not `/svcx`.
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut segments = path.split('/').skip(1);
        self.0.iter().all(|wanted| {
            segments.next().is_some_and(|segment| !segment.is_empty() && (wanted == "*" || wanted == segment))
        })
    }

    /// Whether it matches a destination with `{sni}` in it for some names that clients may ask for, and not for all.
    pub(super) fn matches_some_names(&self, template: &str) -> bool {
        let mut segments = template.split('/').skip(1);
        let may_be = |segment: &str, wanted: &str| match segment.split_once(SNI) {
            Some((before, after)) => {
                let after = after.rsplit(SNI).next().unwrap_or(after);
                wanted.len() > before.len() + after.len()
                    && wanted.starts_with(before)
                    && wanted.ends_with(after)
            }
            None => wanted == segment,
        };
        !self.matches(template)
            && self
                .0
                .iter()
                .all(|wanted| segments.next().is_some_and(|segment| wanted == "*" || may_be(segment, wanted)))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_grammar() {
        for path in ["/", "/svc", "/svc/google", "/#/io.l5d.fs/web", "/a:1/$x/%41_-", r"/a\x2fb/\xFF"] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
        assert_eq!(check_destination("/svc/{sni}"), Ok(()));
        assert_eq!(check_destination("/svc/{sni}.local/x"), Ok(()));
    }

    #[test]
    fn some_names_are_neither_all_nor_none() {
        let some = |prefix: &str, template: &str| Prefix::parse(prefix).unwrap().matches_some_names(template);

        assert!(some("/svc/a.example", "/svc/{sni}"));
        assert!(some("/*/a.example", "/svc/{sni}"));
        assert!(some("/svc/web-a.local", "/svc/web-{sni}.local/x"));
        for prefix in ["/", "/svc", "/svc/*", "/other/a.example", "/svc/a/b"] {
            assert!(!some(prefix, "/svc/{sni}"), "{prefix}");
        }
        for prefix in ["/svc/web-.local", "/svc/a.local", "/svc/web-a"] {
            assert!(!some(prefix, "/svc/web-{sni}.local"), "{prefix}");
        }
    }

    #[test]
    fn refuses_the_rest_and_says_why() {
        for (path, reason) in [
            ("", "does not begin with `/`"),
            ("svc", "does not begin with `/`"),
            ("/svc/", "has an empty segment"),
            ("//svc", "has an empty segment"),
            ("/svc/a b", "contains ' '"),
            ("/svc/é", "contains 'é'"),
            ("/svc/*", "contains '*'"),
            ("/svc/{sni}", "contains '{'"),
            (r"/svc/\x4", "contains '\\\\'"),
            (r"/svc/\xé", "contains '\\\\'"),
        ] {
            let error = check(path).unwrap_err();
            assert!(error.starts_with(reason), "{path}: {error}");
        }
        assert!(check_destination("/svc/{snj}").is_err());
    }

    #[test]
    fn a_prefix_is_made_of_whole_segments() {
        for (prefix, path, expected) in [
            ("/svc", "/svc", true),
            ("/svc", "/svc/google", true),
            ("/svc/", "/svc/google", true),
            ("/svc", "/svcx", false),
            ("/svc/google", "/svc", false),
            ("/", "/svc", true),
            ("/", "/", true),
            ("/*", "/", false),
            ("/*/google", "/svc/google", true),
            ("/*/google", "/svc/yahoo", false),
            ("/svc/*", "/svc", false),
            ("/svc/*/x", "/svc/a/x/y", true),
        ] {
            assert_eq!(Prefix::parse(prefix).unwrap().matches(path), expected, "{prefix} on {path}");
        }
    }

    #[test]
    fn refuses_prefixes_that_could_be_misread() {
        for prefix in ["", "svc", "/svc//x", "//", "/sv*", "/svc/a b"] {
            assert!(Prefix::parse(prefix).is_err(), "{prefix}");
        }
    }
}
