//! A reader of the naming language that knows where it stands.

use std::fmt;

use super::Path;
use super::Prefix;
use super::is_showable;
use super::print_label;

/// Longest text that is read: 1 MiB.
pub const MAX_TEXT: usize = 1 << 20;

/// Why a text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// A character that cannot stand where it does, or the end of the text too early.
    ///
    /// Printed in the form that users of the original language know, with the place marked by brackets:
    /// `'/' expected but 'i' found at '[i]nvalid'`.
    #[error("{expected} expected but {} found at '{marked}'", Found(*found))]
    Unexpected {
        /// What could have stood there: a character in quotes, or a word such as `label char`.
        expected: &'static str,
        /// What stands there; `None` at the end of the text.
        found: Option<char>,
        /// Place in the text, in bytes from 0.
        offset: usize,
        /// Line of that place, from 1.
        line: usize,
        /// Column in that line, in characters from 1.
        column: usize,
        /// The text with the character found in brackets, or with empty brackets at its end.
        marked: Box<str>,
    },
    /// The text is longer than [`MAX_TEXT`].
    #[error("text of {length} bytes is longer than {MAX_TEXT}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

/// Prints what was found.
struct Found(Option<char>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(c) => write!(f, "'{c}'"),
            None => f.write_str("end of input"),
        }
    }
}

/// A place in a text. Each reading method starts there and leaves it behind what it has read.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, ParseError> {
        if text.len() > MAX_TEXT {
            return Err(ParseError::TooLong { length: text.len() });
        }
        Ok(Self { text, at: 0 })
    }

    /// `path := blanks "/" [ label { "/" label } ]`
    pub(super) fn path(&mut self) -> Result<Path, ParseError> {
        self.labels(false).map(|printed| Path(printed.into()))
    }

    /// The same, with `*` for any label.
    pub(super) fn prefix(&mut self) -> Result<Prefix, ParseError> {
        self.labels(true).map(Prefix::from_printed)
    }

    /// Blanks, then the end of the text.
    pub(super) fn end(&mut self) -> Result<(), ParseError> {
        self.skip_blanks();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("end of input")),
        }
    }

    fn labels(&mut self, wildcards: bool) -> Result<String, ParseError> {
        self.skip_blanks();
        self.eat('/', "'/'")?;
        let mut printed = String::new();
        // A lone slash is the empty path, whatever follows; a slash after a label must be followed by one.
        if !self.peek().is_some_and(|c| is_label_char(c) || wildcards && c == '*') {
            return Ok(printed);
        }
        let mut label = Vec::new();
        loop {
            if wildcards && self.skip_if('*') {
                printed.push_str("/*");
            } else {
                label.clear();
                self.label(&mut label)?;
                print_label(&mut printed, &label);
            }
            if !self.skip_if('/') {
                return Ok(printed);
            }
        }
    }

    /// One or more showable characters and escapes, as many as there are.
    fn label(&mut self, bytes: &mut Vec<u8>) -> Result<(), ParseError> {
        loop {
            match self.peek() {
                Some('\\') => {
                    self.at += 1;
                    self.eat('x', "'x'")?;
                    let high = self.hex()?;
                    let low = self.hex()?;
                    bytes.push(high << 4 | low);
                }
                Some(c) if is_showable(c) => {
                    // Showable characters are ASCII: each is its own byte.
                    bytes.push(self.text.as_bytes()[self.at]);
                    self.at += 1;
                }
                _ if bytes.is_empty() => return Err(self.unexpected("label char")),
                _ => return Ok(()),
            }
        }
    }

    fn hex(&mut self) -> Result<u8, ParseError> {
        let digit = self.peek().and_then(|c| c.to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
        let Some(digit) = digit else {
            return Err(self.unexpected("hex char"));
        };
        self.at += 1;
        Ok(digit)
    }

    /// Skips white space, and comments from `#` to the end of the line.
    fn skip_blanks(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                let rest = &self.text[self.at..];
                self.at += rest.find('\n').map_or(rest.len(), |newline| newline + 1);
            } else if is_blank(c) {
                self.at += c.len_utf8();
            } else {
                return;
            }
        }
    }

    fn eat(&mut self, c: char, expected: &'static str) -> Result<(), ParseError> {
        if self.skip_if(c) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn skip_if(&mut self, c: char) -> bool {
        let there = self.peek() == Some(c);
        if there {
            self.at += c.len_utf8();
        }
        there
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn unexpected(&self, expected: &'static str) -> ParseError {
        let (before, after) = self.text.split_at(self.at);
        let found = after.chars().next();
        let (shown, after) = after.split_at(found.map_or(0, char::len_utf8));
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ParseError::Unexpected {
            expected,
            found,
            offset: self.at,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            marked: format!("{before}[{shown}]{after}").into(),
        }
    }
}

fn is_label_char(c: char) -> bool {
    c == '\\' || is_showable(c)
}

/// White space as the Java virtual machine sees it: also the four separators, but no space that forbids a break.
fn is_blank(c: char) -> bool {
    match c {
        '\u{1c}'..='\u{1f}' => true,
        '\u{85}' | '\u{a0}' | '\u{2007}' | '\u{202f}' => false,
        _ => c.is_whitespace(),
    }
}
