//! Reading configuration files: one way for all tools.
//!
//! A file goes through three steps. [`read`] fetches the text, [`tree::parse`] turns YAML or JSON into a
//! [`Node`](tree::Node) tree in which every key and value knows its line and column, and a tool walks that tree
//! with a [`Reader`](fields::Reader), which collects every problem instead of stopping at the first. The tree is
//! read rather than deserialized into structs because deserialization ends at the first error and loses the
//! position of a value as soon as a tagged or flattened type is involved.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

pub use self::nearest::nearest;
pub use self::report::ConfigError;
pub use self::report::Place;
pub use self::report::Position;
pub use self::report::Problem;
pub use self::report::Warning;
pub use self::report::in_one_line;
pub(crate) use self::secret::blotted;

pub mod fields;
pub mod language;
mod nearest;
mod report;
mod secret;
pub mod tree;

/// The largest configuration that is read: 16 MiB. A path such as `/dev/zero` has no end.
pub const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The text of a configuration and the name it is reported under.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Source {
    /// What messages call the file: its path as given, or `stdin`.
    pub name: Arc<str>,
    /// The whole text, unchanged.
    pub text: Arc<str>,
}

impl Source {
    /// Makes a source from a text that is already in memory.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}

/// Why a configuration could not be read at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file could not be opened or read.
    #[error("{name}: cannot read the configuration")]
    Io {
        /// The path as given, or `stdin`.
        name: Arc<str>,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The file is larger than [`MAX_BYTES`].
    #[error("{name}: the configuration is larger than {MAX_BYTES} bytes")]
    TooLarge {
        /// The path as given, or `stdin`.
        name: Arc<str>,
    },
    /// The file is not UTF-8.
    #[error("{name}:{position}: the configuration is not UTF-8 text")]
    NotUtf8 {
        /// The path as given, or `stdin`.
        name: Arc<str>,
        /// Where the first byte stands that does not belong to UTF-8 text.
        position: Position,
    },
}

/// Reads a file, or standard input if the path is `-`.
///
/// Blocks until the input ends; meant for the start of a process, before its runtime does any work.
///
/// # Errors
///
/// [`ReadError`] names the file and the reason.
pub fn read(path: impl AsRef<Path>) -> Result<Source, ReadError> {
    let path = path.as_ref();
    if path.as_os_str() == "-" {
        return read_from("stdin".into(), io::stdin().lock());
    }
    let name: Arc<str> = path.to_string_lossy().into();
    match File::open(path) {
        Ok(file) => read_from(name, file),
        Err(source) => Err(ReadError::Io { name, source }),
    }
}

/// A configuration as YAML.
pub fn yaml(config: &serde_json::Value) -> String {
    // A value of JSON has no key that is not a text, and memory is written to.
    serde_saphyr::to_string(config).unwrap_or_default()
}

fn read_from(name: Arc<str>, input: impl Read) -> Result<Source, ReadError> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file of exactly the limit from a larger one.
    if let Err(source) = input.take(MAX_BYTES + 1).read_to_end(&mut bytes) {
        return Err(ReadError::Io { name, source });
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ReadError::TooLarge { name });
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text: text.into() }),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..good]);
            Err(ReadError::NotUtf8 { name, position: Position::after(&before) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_with_the_cause_behind_it() {
        let error = read("/nonexistent/linkerd.yml").unwrap_err();

        assert_eq!(error.to_string(), "/nonexistent/linkerd.yml: cannot read the configuration");
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(cause.as_deref(), Some("No such file or directory (os error 2)"));
    }

    #[test]
    fn a_directory_is_an_error() {
        assert!(matches!(read("/"), Err(ReadError::Io { .. })));
    }

    #[test]
    fn bytes_outside_utf8_are_located() {
        let error = read_from("a.yml".into(), &b"admin:\n  \xc3\xa9\xff"[..]).unwrap_err();

        assert_eq!(error.to_string(), "a.yml:2:4: the configuration is not UTF-8 text");
    }

    #[test]
    fn an_endless_file_is_refused() {
        let error = read_from("zero".into(), io::repeat(b'a')).unwrap_err();

        assert_eq!(error.to_string(), "zero: the configuration is larger than 16777216 bytes");
    }

    #[test]
    fn a_file_is_read_as_it_is() {
        let source = read_from("a.yml".into(), &b"\xef\xbb\xbf proxies: []\r\n"[..]).unwrap();

        assert_eq!(source, Source::new("a.yml", "\u{feff} proxies: []\r\n"));
    }
}
