//! What holds for any text as a path, prefix or pattern.

use meshlib::dtab::path::{Label, Path, Pattern, Prefix};

/// Panics if reading, printing and matching disagree. The first line is a pattern, the rest a path.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        // Labels hold any bytes, even where text does not.
        let labels = || bytes.split(|byte| *byte == b'/').filter(|label| !label.is_empty());
        let path = Path::from_labels(labels()).expect("no label is empty");
        assert_eq!(Path::parse(path.as_str()).as_ref(), Ok(&path));
        assert!(path.labels().map(Label::to_bytes).eq(labels()));
        return;
    };
    let (first, rest) = text.split_once('\n').unwrap_or(("/{a}-{b}/*", text));
    let prefix = Prefix::parse(first);
    if let Ok(prefix) = &prefix {
        assert_eq!(Prefix::parse(&prefix.to_string()).as_ref(), Ok(prefix));
    }
    let path = match Path::parse(rest) {
        Ok(path) => path,
        Err(error) => {
            assert!(error.to_string().contains(" found at '"));
            return;
        }
    };
    assert_eq!(Path::parse(path.as_str()).as_ref(), Ok(&path));
    assert_eq!(Path::from_labels(path.labels().map(Label::to_bytes)).as_ref(), Some(&path));

    let pattern = Pattern::new(first);
    let captures = pattern.captures(&path);
    assert_eq!(captures.is_some(), pattern.matches_prefix(&path));
    if let Some(captures) = captures {
        assert!(pattern.can_match());
        assert!(pattern.bound_captures(&path).is_some());
        captures.substitute(rest);
    }
    if let Ok(prefix) = prefix {
        let Some(left) = prefix.strip(&path) else { return };
        assert_eq!(prefix.len() + left.len(), path.len());
        assert_eq!(path.skip(prefix.len()), left);
        // A prefix in printed form is a pattern that matches the same paths.
        assert!(Pattern::new(prefix.to_string()).matches_prefix(&path));
    }
}
