//! Which types of content are compressed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A list of media types such as `text/html`, without parameters and wildcards.
///
/// Read from a text with commas between them; spaces around them and empty ones do not count. Upper and lower case are
/// the same. A clone is one `Arc`.
///
/// # Examples
///
/// ```
/// use meshlib::http::MediaTypes;
///
/// let types: MediaTypes = "text/html, application/JSON".parse()?;
///
/// assert!(types.contains("application/json; charset=utf-8"));
/// assert!(!types.contains("text/htmlx"));
/// # Ok::<_, meshlib::http::InvalidMediaType>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct MediaTypes(Arc<[Box<str>]>);

impl MediaTypes {
    /// A list of these types.
    ///
    /// # Errors
    ///
    /// Names the first that is none.
    pub fn new(types: impl IntoIterator<Item: AsRef<str>>) -> Result<Self, InvalidMediaType> {
        let types = types.into_iter().map(|text| {
            let text = text.as_ref().trim();
            if is_media_type(text) {
                Ok(text.to_ascii_lowercase().into())
            } else {
                Err(InvalidMediaType(text.into()))
            }
        });
        types.collect::<Result<_, _>>().map(Self)
    }

    /// Whether the value of a `Content-Type` is one of these types, whatever its parameters are.
    ///
    /// O(n) in the number of types, no allocation.
    pub fn contains(&self, content_type: &str) -> bool {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        self.0.iter().any(|known| known.eq_ignore_ascii_case(essence))
    }

    /// The types, in lower case and the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|text| &**text)
    }
}

impl Default for MediaTypes {
    /// `text/html`, `text/plain`, `text/css`, `text/javascript`, `text/xml`, `application/javascript`,
    /// `application/json`, `application/xml`, `image/svg+xml` and `font/ttf`.
    fn default() -> Self {
        Self(DEFAULT.iter().map(|text| Box::from(*text)).collect())
    }
}

impl FromStr for MediaTypes {
    type Err = InvalidMediaType;

    fn from_str(text: &str) -> Result<Self, InvalidMediaType> {
        Self::new(text.split(',').filter(|item| !item.trim().is_empty()))
    }
}

/// With commas between them, as they are read.
impl fmt::Display for MediaTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl fmt::Debug for MediaTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A text is no media type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no media type; one looks like text/html, without parameters and without *")]
pub struct InvalidMediaType(Box<str>);

const DEFAULT: [&str; 10] = [
    "text/html",
    "text/plain",
    "text/css",
    "text/javascript",
    "text/xml",
    "application/javascript",
    "application/json",
    "application/xml",
    "image/svg+xml",
    "font/ttf",
];

/// RFC 9110 section 8.3.1: two tokens. An asterisk is left out, since it would be taken for a wildcard.
fn is_media_type(text: &str) -> bool {
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&b))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_case_and_empty_items_do_not_matter() {
        let types: MediaTypes = " text/HTML ,, image/svg+xml,".parse().unwrap();

        assert_eq!(types.to_string(), "text/html,image/svg+xml");
        assert!(types.contains("Text/Html ; charset=utf-8"));
        assert!(!types.contains("text/html-sandboxed"));
        assert!(!types.contains(""));
    }

    #[test]
    fn what_is_no_type_is_named() {
        for text in
            ["html", "text/", "/html", "text/*", "*/*", "text/html;q=1", "text/a/b", "te xt/html", "é/x"]
        {
            let error = format!("text/css,{text}").parse::<MediaTypes>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("{text:?} is no media type")), "{error}");
        }
    }

    #[test]
    fn the_default_reads_as_it_is_printed() {
        let default = MediaTypes::default();

        assert_eq!(default.to_string().parse(), Ok(default));
    }

    #[test]
    fn nothing_may_be_compressed() {
        assert!(!"".parse::<MediaTypes>().unwrap().contains("text/html"));
    }
}
