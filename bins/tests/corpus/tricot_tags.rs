//! What holds for any text that is given as the tags of an instance.

use bins::tricot::tags::Frontend;
use bins::tricot::tags::HostPattern;
use bins::tricot::tags::Parsed;
use bins::tricot::tags::Registration;
use bins::tricot::tags::Tag;
use bins::tricot::tags::parse;

/// Panics if reading the lines as tags does, if what was read is read differently after it was printed, or if a problem
/// cannot be shown on a line of a log.
pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let registration = Registration::from_tags(text.lines());

    for frontend in &registration.frontends {
        let again = read(&format!("tricot {frontend}"));
        assert_eq!(
            (&again.host, &again.path, again.priority),
            (&frontend.host, &frontend.path, frontend.priority)
        );
        if let HostPattern::Exact(host) = &frontend.host {
            assert!(host.as_str().is_ascii(), "{host}");
            assert!(frontend.host.matches(host.as_str()), "{host}");
        }
        // Whatever the pattern is, this ends.
        frontend.host.matches(&"a.".repeat(126));
    }
    assert!(registration.headers.len() <= 100);
    for problem in &registration.problems {
        let shown = problem.to_string();
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(shown.chars().count() < 10_000, "{shown}");
    }
}

fn read(tag: &str) -> Frontend {
    match parse(tag) {
        Parsed::Tag(Tag::Frontend(frontend), _) => frontend,
        other => panic!("{tag} becomes {other:?}"),
    }
}
