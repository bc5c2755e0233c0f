//! Paths of the naming language, and patterns over them.
//!
//! A [`Path`] is a sequence of labels, each one or more bytes of any value: `/svc/web`, `/#/io.l5d.fs/web`,
//! `/$/inet/10.0.0.1/80`. Bytes outside `0-9 A-Z a-z _ : . # $ % -` are written as `\xhh`.
//!
//! ```
//! use meshlib::dtab::path::{Path, Pattern};
//!
//! let id: Path = "/#/io.l5d.k8s/prod/http/web".parse()?;
//! let pattern = Pattern::new("/#/io.l5d.k8s/*/*/{service}");
//! let captures = pattern.captures(&id).ok_or("no match")?;
//! assert_eq!(captures.substitute("{service}.example.com"), "web.example.com");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cursor;
mod pattern;
mod prefix;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::iter::FusedIterator;
use std::str::FromStr;
use std::sync::Arc;

use cursor::Cursor;

pub use cursor::MAX_TEXT;
pub use cursor::ParseError;
pub use pattern::Captures;
pub use pattern::Pattern;
pub use prefix::Prefix;

/// A logical name: zero or more labels.
///
/// A clone is one reference count. Kept in its printed form, so that printing, comparing and hashing are those of a
/// string; two texts that mean the same labels (`/ab`, `/a\x62`) are equal. The order is that of the printed forms.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(
    /// A slash and the printed label for each label, hence empty for the empty path.
    Arc<str>,
);

impl Path {
    /// Reads a path. Blanks and `#` comments may stand around it, not inside.
    ///
    /// # Errors
    ///
    /// [`ParseError`] says where and why; also for text longer than [`MAX_TEXT`].
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(text)?;
        let path = cursor.path()?;
        cursor.end()?;
        Ok(path)
    }

    /// Makes a path of one label for each byte string. `None` if one of them is empty.
    pub fn from_labels<B: AsRef<[u8]>>(labels: impl IntoIterator<Item = B>) -> Option<Self> {
        let mut printed = String::new();
        for label in labels {
            let label = label.as_ref();
            if label.is_empty() {
                return None;
            }
            print_label(&mut printed, label);
        }
        Some(Self(printed.into()))
    }

    /// The printed form: `/` for the empty path.
    pub fn as_str(&self) -> &str {
        if self.is_empty() { "/" } else { &self.0 }
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of labels. O(length of the text).
    pub fn len(&self) -> usize {
        self.labels().count()
    }

    /// The labels from left to right.
    pub fn labels(&self) -> Labels<'_> {
        Labels(&self.0)
    }

    /// Whether the first labels are those of `prefix`. Every path starts with the empty one and with itself.
    pub fn starts_with(&self, prefix: &Self) -> bool {
        self.rest_after(prefix).is_some()
    }

    /// What follows `prefix`; `None` if the path does not start with it.
    pub fn strip_prefix(&self, prefix: &Self) -> Option<Self> {
        self.rest_after(prefix).map(|rest| Self(rest.into()))
    }

    /// The path without its first `n` labels; empty if there are not more than that.
    pub fn skip(&self, n: usize) -> Self {
        if n == 0 {
            return self.clone();
        }
        let mut labels = self.labels();
        labels.by_ref().take(n).for_each(drop);
        Self(labels.0.into())
    }

    /// The labels of this path, then those of `other`.
    pub fn concat(&self, other: &Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            _ => Self([&*self.0, &*other.0].concat().into()),
        }
    }

    fn rest_after(&self, prefix: &Self) -> Option<&str> {
        self.0.strip_prefix(&*prefix.0).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for Path {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl<'a> IntoIterator for &'a Path {
    type Item = Label<'a>;
    type IntoIter = Labels<'a>;

    fn into_iter(self) -> Labels<'a> {
        self.labels()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

/// One label of a [`Path`]: one or more bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label<'a>(&'a str);

impl<'a> Label<'a> {
    /// The printed form: the bytes themselves, or all of them as `\xhh` if one of them cannot be shown.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The bytes meant. Borrowed unless they are printed with escapes.
    pub fn to_bytes(self) -> Cow<'a, [u8]> {
        match self.0.strip_prefix("\\x") {
            None => Cow::Borrowed(self.0.as_bytes()),
            // Either no byte or every byte is escaped, and the digits come from `print_label`.
            Some(digits) => digits.split("\\x").filter_map(|hex| u8::from_str_radix(hex, 16).ok()).collect(),
        }
    }
}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Label({self})")
    }
}

/// The labels of a [`Path`], made by [`Path::labels`].
#[derive(Clone, Debug)]
pub struct Labels<'a>(
    /// What is left of the printed path; empty or with a slash in front.
    &'a str,
);

impl<'a> Iterator for Labels<'a> {
    type Item = Label<'a>;

    fn next(&mut self) -> Option<Label<'a>> {
        let text = self.0.strip_prefix('/')?;
        let (label, rest) = text.split_at(text.find('/').unwrap_or(text.len()));
        self.0 = rest;
        Some(Label(label))
    }
}

impl FusedIterator for Labels<'_> {}

/// Appends a slash and the printed form of a label.
fn print_label(to: &mut String, label: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    to.push('/');
    if label.iter().all(|byte| is_showable(char::from(*byte))) {
        to.extend(label.iter().map(|byte| char::from(*byte)));
        return;
    }
    for byte in label {
        to.push_str("\\x");
        to.extend([byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)])));
    }
}

/// Whether a label may hold this character as it is.
fn is_showable(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '#' | '$' | '%' | '-')
}
