//! Patterns that configurations match bound names with.

use std::fmt;
use std::sync::Arc;

use super::Labels;
use super::Path;
use super::is_showable;

/// What a path may start with, with wildcards and captures: `/#/io.l5d.k8s/*/*/{service}`.
///
/// Each segment between slashes stands for one label, compared in its printed form:
///
/// - `*` is any label;
/// - `{name}` captures part of a label and may be mixed with text: `{service}-{version}`. A name has one or more
///   letters, digits, full stops, or characters from `:` to `_`. Of several captures the leftmost takes as much as
///   it can; any may be empty. The segment has to match the whole label;
/// - anything else is that label, letter case included.
///
/// More labels may follow in the path. Slashes at both ends are of no meaning; `/` matches every path.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    segments: Arc<[Segment]>,
}

#[derive(Debug)]
enum Segment {
    Any,
    /// Text, then the name of each capture with the text after it.
    Text {
        first: Box<str>,
        captures: Box<[(Box<str>, Box<str>)]>,
    },
}

impl Pattern {
    /// Reads a pattern. Every text is one, but not every one can match; see [`Pattern::can_match`].
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let trimmed = text.trim_matches('/');
        let segments =
            if trimmed.is_empty() { Arc::default() } else { trimmed.split('/').map(Segment::new).collect() };
        Self { text, segments }
    }

    /// The text it was made of.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether any path matches. `false` if a segment is empty or has text that no printed label contains, such as
    /// a brace that belongs to no capture.
    pub fn can_match(&self) -> bool {
        self.segments.iter().all(|segment| match segment {
            Segment::Any => true,
            Segment::Text { first, captures } => {
                let mut texts = captures.iter().map(|(_, after)| after).chain([first]);
                let printable = texts.all(|text| text.chars().all(|c| is_showable(c) || c == '\\'));
                printable && !(first.is_empty() && captures.is_empty())
            }
        })
    }

    /// Whether the first labels of `path` match. O(length of the path), no allocation.
    pub fn matches_prefix(&self, path: &Path) -> bool {
        let mut labels = path.labels();
        self.segments
            .iter()
            .all(|segment| labels.next().is_some_and(|label| segment.matches(label.0, |_, _| {})))
    }

    /// What the first labels of `path` match with; `None` if they do not. Of captures with the same name the last
    /// counts. O(length of the path).
    pub fn captures<'a>(&'a self, path: &'a Path) -> Option<Captures<'a>> {
        capture(&self.segments, path.labels())
    }

    /// The same for the id of a bound name, where the mark `/#` of configured namers may be left out of the pattern,
    /// or of the id: `/ns/*/*/{service}` and `/#/ns/*/*/{service}` both match both forms.
    pub fn bound_captures<'a>(&'a self, id: &'a Path) -> Option<Captures<'a>> {
        if let found @ Some(_) = self.captures(id) {
            return found;
        }
        let mut labels = id.labels();
        let marked_id = labels.clone().next().is_some_and(|label| label.0 == MARK);
        let marked_pattern = matches!(self.segments.first(), Some(Segment::Text { first, captures })
            if captures.is_empty() && **first == *MARK);
        match (marked_pattern, marked_id) {
            (false, true) => {
                labels.next();
                capture(&self.segments, labels)
            }
            (true, false) => capture(&self.segments[1..], labels),
            _ => None,
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({self})")
    }
}

/// What a [`Pattern`] captured: names with parts of printed labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Captures<'a> {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// `template` with each `{name}` replaced by its value. Unknown names stay; values are not looked at again.
    pub fn substitute(&self, template: &str) -> String {
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((text, name, after)) = next_capture(rest) {
            out.push_str(text);
            match self.get(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["{", name, "}"]),
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }
}

fn capture<'a>(segments: &'a [Segment], mut labels: Labels<'a>) -> Option<Captures<'a>> {
    let mut found = Vec::new();
    for segment in segments {
        let label = labels.next()?;
        let start = found.len();
        if !segment.matches(label.0, |name, value| found.push((name, value))) {
            return None;
        }
        found[start..].reverse();
    }
    Some(Captures(found))
}

impl Segment {
    fn new(text: &str) -> Self {
        if text == "*" {
            return Self::Any;
        }
        let mut texts = Vec::new();
        let mut names = Vec::new();
        let mut rest = text;
        while let Some((before, name, after)) = next_capture(rest) {
            texts.push(before);
            names.push(name);
            rest = after;
        }
        texts.push(rest);
        let captures = names.into_iter().zip(&texts[1..]).map(|(name, &after)| (name.into(), after.into()));
        Self::Text { first: texts[0].into(), captures: captures.collect() }
    }

    /// Matches the whole label and hands out the captures from right to left.
    fn matches<'a>(&'a self, label: &'a str, mut found: impl FnMut(&'a str, &'a str)) -> bool {
        let Self::Text { first, captures } = self else {
            return true;
        };
        let Some(left) = label.strip_prefix(&**first) else {
            return false;
        };
        let Some(((name, after), others)) = captures.split_last() else {
            return left.is_empty();
        };
        let Some(mut left) = left.strip_suffix(&**after) else {
            return false;
        };
        // Placing each text as far right as it can go, from the last to the first, leaves most to the captures on
        // the left. It needs no second try: a place further left never helps the texts before it.
        let mut name = name;
        for (earlier, after) in others.iter().rev() {
            let Some(at) = left.rfind(&**after) else {
                return false;
            };
            found(name, &left[at + after.len()..]);
            left = &left[..at];
            name = earlier;
        }
        found(name, left);
        true
    }
}

/// Splits at the first capture: the text before it, its name, the text after it.
fn next_capture(text: &str) -> Option<(&str, &str, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':'..='_' | '.');
    text.match_indices('{').find_map(|(open, _)| {
        let (name, after) = text[open + 1..].split_once('}')?;
        (!name.is_empty() && name.chars().all(is_name)).then_some((&text[..open], name, after))
    })
}

/// First label of ids that configured namers give out.
const MARK: &str = "#";
