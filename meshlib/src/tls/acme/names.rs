//! Host names that can be ordered.

use std::net::IpAddr;

/// The name in lower case and without a final dot, if an authority could take it: letters, digits and hyphens between
/// dots. Not an address, and not a wildcard, for which neither kind of challenge here is offered.
pub(super) fn host_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let fits = !name.is_empty() && name.len() <= 253 && name.split('.').all(is_label);
    (fits && name.parse::<IpAddr>().is_err()).then(|| name.to_ascii_lowercase())
}

/// RFC 1123 section 2.1.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// About what somebody can register: the last two labels, or three below a country's second level such as `co.uk`.
///
/// Not the public suffix list: it only decides which orders wait for each other.
pub(super) fn registered_domain(name: &str) -> &str {
    let labels: Vec<&str> = name.rsplitn(4, '.').collect();
    let keep = match labels[..] {
        [top, second, _, ..] if top.len() == 2 && second.len() <= 3 => 3,
        _ => 2,
    };
    let length: usize = labels.iter().take(keep).map(|label| label.len() + 1).sum();
    // Where there is a fourth part, it holds the rest of the name, dots and all, and is not among those kept.
    &name[name.len().saturating_sub(length.saturating_sub(1))..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_are_taken() {
        for (name, taken) in [
            ("app.example.test", Some("app.example.test")),
            ("App.Example.Test.", Some("app.example.test")),
            ("localhost", Some("localhost")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("-a.b", None),
            ("a_b.example", None),
            ("b\u{fc}cher.example", None),
            ("*.example.test", None),
            ("127.0.0.1", None),
            ("::1", None),
            ("../../etc/passwd", None),
            ("a/b", None),
        ] {
            assert_eq!(host_name(name).as_deref(), taken, "{name}");
        }
        assert!(host_name(&format!("{}.test", "a".repeat(64))).is_none());
        assert!(host_name(&"a.".repeat(127)).is_some());
        assert!(host_name(&"a.".repeat(128)).is_none());
    }

    #[test]
    fn registered_domains_are_guessed() {
        for (name, domain) in [
            ("example.org", "example.org"),
            ("a.example.org", "example.org"),
            ("a.b.c.d.example.org", "example.org"),
            ("a.b.example.co.uk", "example.co.uk"),
            ("example.co.uk", "example.co.uk"),
            ("www.example.fr", "example.fr"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(registered_domain(name), domain, "{name}");
        }
    }
}
