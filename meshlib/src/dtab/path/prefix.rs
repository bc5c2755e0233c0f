//! The left-hand side of a rewrite rule.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::Cursor;
use super::Labels;
use super::ParseError;
use super::Path;

/// The start of a path, in which `*` stands for any one label: `/svc/*/web`.
///
/// Only whole labels match, letter case counts, and the empty prefix `/` matches every path. A label that is itself
/// an asterisk is written `\x2a`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(
    /// Like the text of a [`Path`]; `*` is free to mark a wildcard, because no printed label contains it.
    Arc<str>,
);

impl Prefix {
    /// Reads a prefix. Blanks and `#` comments may stand around it, not inside.
    ///
    /// # Errors
    ///
    /// [`ParseError`] says where and why.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(text)?;
        let prefix = cursor.prefix()?;
        cursor.end()?;
        Ok(prefix)
    }

    /// Whether `path` starts with this.
    pub fn matches(&self, path: &Path) -> bool {
        self.rest_of(path).is_some()
    }

    /// What follows the matched labels of `path`; `None` if it does not start with this.
    pub fn strip(&self, path: &Path) -> Option<Path> {
        self.rest_of(path).map(|rest| Path(rest.0.into()))
    }

    /// The number of labels and wildcards. O(length of the text).
    pub fn len(&self) -> usize {
        Labels(&self.0).count()
    }

    /// Whether this is `/`, which matches every path.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn from_printed(printed: String) -> Self {
        Self(printed.into())
    }

    fn rest_of<'a>(&self, path: &'a Path) -> Option<Labels<'a>> {
        let mut labels = path.labels();
        for wanted in Labels(&self.0) {
            let label = labels.next()?;
            if wanted.as_str() != "*" && wanted != label {
                return None;
            }
        }
        Some(labels)
    }
}

/// The prefix without wildcards that exactly the paths starting with `path` match.
impl From<&Path> for Prefix {
    fn from(path: &Path) -> Self {
        Self(Arc::clone(&path.0))
    }
}

impl FromStr for Prefix {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.is_empty() { "/" } else { &self.0 })
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}
