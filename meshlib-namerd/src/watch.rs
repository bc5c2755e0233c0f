//! JSON values out of a stream of bytes.
//!
//! A watch is one endless answer in which values follow each other. Their borders are not those of chunks or lines, so
//! [`Values`] looks for the end of each value itself.

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use serde::de::IgnoredAny;

/// Splits a stream of bytes into JSON values.
///
/// It is filled with [`push`](Self::push) and iterated over in between: `None` means that more bytes are needed. Blanks
/// between values are free and none are needed. A value is yielded with its last byte, a bare number or word with the
/// byte after it or with [`finish`](Self::finish).
///
/// What is not JSON is the text of an error: an item of [`ValueError`], after which nothing comes. It is yielded at the
/// end of the text's line, or with the first 512 bytes of it.
///
/// The cost is O(bytes), whatever their borders.
///
/// ```
/// use meshlib_namerd::watch::Values;
///
/// let mut values = Values::new();
/// values.push(b"{\"type\":\"neg\"}\n{\"type\"");
/// assert_eq!(values.next().unwrap()?, r#"{"type":"neg"}"#);
/// assert!(values.next().is_none());
/// values.push(b":\"bound\"}java.lang.Exception: gone\n");
/// assert_eq!(values.next().unwrap()?, r#"{"type":"bound"}"#);
/// assert_eq!(values.next().unwrap().unwrap_err().to_string(), r#"not JSON: "java.lang.Exception: gone""#);
/// # Ok::<(), meshlib_namerd::watch::ValueError>(())
/// ```
#[derive(Debug)]
pub struct Values {
    /// Starts with the value that is being read.
    buf: BytesMut,
    /// How many bytes of the value were looked at.
    scanned: usize,
    state: State,
    max_value: usize,
    finished: bool,
}

/// Where in a value the scan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between values.
    Between,
    /// In a number or a word.
    Bare,
    /// In an object or list, outside of texts.
    Nested { depth: usize },
    /// In a text; depth 0 is one that is a value itself.
    Text { depth: usize, escaped: bool },
    /// What is read is not JSON, as this byte shows.
    Broken { at: usize },
    /// An error was yielded.
    Over,
}

/// Why a stream has no more values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The peer wrote something else, for example what went wrong there.
    #[error("not JSON: {text:?}")]
    NotJson {
        /// What it wrote, up to the end of the line and at most 512 bytes.
        text: String,
    },
    /// The stream ended inside a value.
    #[error("the stream ended inside a value: {text:?}")]
    Truncated {
        /// The value's first 512 bytes.
        text: String,
    },
    /// A value is larger than allowed.
    #[error("a value is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

impl Values {
    /// Most bytes of a value unless set otherwise: 16 MiB.
    pub const MAX_VALUE: usize = 16 * 1024 * 1024;

    /// Starts a stream whose values have at most [`MAX_VALUE`](Self::MAX_VALUE) bytes.
    pub fn new() -> Self {
        Self {
            buf: BytesMut::new(),
            scanned: 0,
            state: State::Between,
            max_value: Self::MAX_VALUE,
            finished: false,
        }
    }

    /// Sets the most bytes of a value.
    #[must_use]
    pub fn with_max_value(mut self, bytes: usize) -> Self {
        self.max_value = bytes;
        self
    }

    /// Adds the next bytes of the stream. Nothing is added after its end or an error.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.finished || self.state == State::Over {
            return;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// Says that the stream has ended.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Looks at bytes until a value ends, and returns its length.
    fn scan(&mut self) -> Option<usize> {
        while let Some(&byte) = self.buf.get(self.scanned) {
            let next = match self.state {
                State::Between if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => {
                    self.scanned += 1;
                    continue;
                }
                State::Between => {
                    self.buf.advance(self.scanned);
                    self.scanned = 0;
                    begin(byte)
                }
                State::Bare if is_bare(byte) => State::Bare,
                State::Bare => return Some(self.scanned),
                State::Nested { depth } => match byte {
                    b'"' => State::Text { depth, escaped: false },
                    b'{' | b'[' => State::Nested { depth: depth + 1 },
                    b'}' | b']' if depth == 1 => return Some(self.scanned + 1),
                    b'}' | b']' => State::Nested { depth: depth - 1 },
                    _ => self.state,
                },
                State::Text { depth, escaped: true } => State::Text { depth, escaped: false },
                State::Text { depth, .. } => match byte {
                    b'"' if depth == 0 => return Some(self.scanned + 1),
                    b'"' => State::Nested { depth },
                    b'\\' => State::Text { depth, escaped: true },
                    // RFC 8259 section 7: control characters must be escaped.
                    0..0x20 => State::Broken { at: self.scanned },
                    _ => self.state,
                },
                State::Broken { .. } | State::Over => return None,
            };
            self.state = next;
            if matches!(next, State::Broken { .. }) {
                return None;
            }
            self.scanned += 1;
            if self.scanned > self.max_value {
                return None;
            }
        }
        (self.finished && self.state == State::Bare).then_some(self.scanned)
    }

    /// The error that the stream has come to, if it has.
    fn error(&self) -> Option<ValueError> {
        match self.state {
            State::Broken { at } => self.error_text(at).map(|text| ValueError::NotJson { text }),
            State::Between | State::Over => None,
            _ if self.scanned > self.max_value => Some(ValueError::TooLarge { limit: self.max_value }),
            _ if self.finished => Some(ValueError::Truncated { text: excerpt(&self.buf) }),
            _ => None,
        }
    }

    /// The line that is not JSON, once its end is known or enough of it.
    fn error_text(&self, at: usize) -> Option<String> {
        let shown = &self.buf[..self.buf.len().min(MAX_TEXT)];
        let end = shown.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'));
        match end {
            Some(end) => Some(excerpt(&shown[..at + end])),
            None if self.finished || shown.len() == MAX_TEXT => Some(excerpt(shown)),
            None => None,
        }
    }
}

impl Iterator for Values {
    type Item = Result<Bytes, ValueError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(length) = self.scan() {
            if length > self.max_value {
                self.state = State::Over;
                return Some(Err(ValueError::TooLarge { limit: self.max_value }));
            }
            if is_json(&self.buf[..length]) {
                self.state = State::Between;
                self.scanned = 0;
                return Some(Ok(self.buf.split_to(length).freeze()));
            }
            self.state = State::Broken { at: length - 1 };
        }
        if self.state == State::Between {
            // Nothing but blanks.
            self.buf.clear();
            self.scanned = 0;
        }
        let error = self.error()?;
        self.state = State::Over;
        self.buf = BytesMut::new();
        Some(Err(error))
    }
}

impl Default for Values {
    fn default() -> Self {
        Self::new()
    }
}

/// What the first byte of a value says about it.
fn begin(byte: u8) -> State {
    match byte {
        b'{' | b'[' => State::Nested { depth: 1 },
        b'"' => State::Text { depth: 0, escaped: false },
        _ if is_bare(byte) => State::Bare,
        _ => State::Broken { at: 0 },
    }
}

/// Whether a byte can be part of a number or a word.
fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// Whether what looks like a value is one.
fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// The first bytes of what a peer wrote, as a text.
fn excerpt(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(MAX_TEXT)];
    String::from_utf8_lossy(shown).trim_end().to_owned()
}

/// Most bytes of an error's text: a line of an exception and not its trace.
const MAX_TEXT: usize = 512;
