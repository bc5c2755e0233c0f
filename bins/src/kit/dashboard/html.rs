//! Markup and text, kept apart.

use std::fmt;
use std::fmt::Display;
use std::fmt::Write;

use crate::kit::units::is_harmful;

/// A page that is being written.
///
/// Markup is known when the program is built. What is known later than that can only get in as text or as the value of
/// an attribute, and is escaped there.
#[derive(Default)]
pub(super) struct Html(String);

impl Html {
    /// Writes markup as it is.
    pub(super) fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Writes text.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        // Nothing fails here but a `Display` that says so, which leaves its text as far as it was written.
        let _ = write!(Escaped(&mut self.0), "{text}");
        self
    }

    /// Writes an attribute, with the space before it.
    pub(super) fn attribute(&mut self, name: &'static str, value: impl Display) -> &mut Self {
        self.markup(" ").markup(name).markup("=\"").text(value).markup("\"")
    }

    /// The page.
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(c),
                // Some have no place in HTML, and others could make an address look like another.
                c if is_harmful(c) => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_text_stays_text() {
        let mut html = Html::default();
        html.markup("<a").attribute("href", "\"><script>'").markup(">").text("a & b < c").markup("</a>");

        let expected = "<a href=\"&quot;&gt;&lt;script&gt;&#39;\">a &amp; b &lt; c</a>";
        assert_eq!(html.into_string(), expected);
    }

    #[test]
    fn text_does_not_change_how_it_is_read() {
        let mut html = Html::default();
        html.text("10.0.0.1\u{202e}1.0.0.01\u{0}\u{1b}[2J");

        assert_eq!(html.into_string(), "10.0.0.1\u{fffd}1.0.0.01\u{fffd}\u{fffd}[2J");
    }
}
