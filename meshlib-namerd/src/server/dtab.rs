//! Rewriting by prefixes: the plainest part of the dtab language.

use meshlib::dtab::path::ParseError;
use meshlib::dtab::path::Path;
use meshlib::dtab::path::Prefix;
use serde::Deserialize;
use serde::Serialize;

/// One rule: a path that starts with the prefix is also what the destination is, with the rest after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dentry {
    pub(super) prefix: Prefix,
    pub(super) dst: Path,
}

/// Why a text is no dtab that this server knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DtabError {
    /// An entry is not `/prefix => /path`.
    #[error("'=>' expected in '{0}'")]
    Arrow(String),
    /// One side of an entry is no path.
    #[error(transparent)]
    Path(#[from] ParseError),
    /// The JSON is no list of entries.
    #[error("a list of objects with prefix and dst is expected: {0}")]
    Json(String),
}

/// An entry as JSON.
#[derive(Serialize, Deserialize)]
struct Json {
    prefix: String,
    dst: String,
}

/// Reads `/prefix => /path; ...`.
pub(super) fn parse(text: &str) -> Result<Vec<Dentry>, DtabError> {
    let entries = text.split(';').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let (prefix, dst) =
                entry.split_once("=>").ok_or_else(|| DtabError::Arrow(entry.chars().take(80).collect()))?;
            Dentry::new(prefix, dst)
        })
        .collect()
}

/// Reads a JSON list of entries.
pub(super) fn parse_json(json: &[u8]) -> Result<Vec<Dentry>, DtabError> {
    let entries: Vec<Json> =
        serde_json::from_slice(json).map_err(|error| DtabError::Json(error.to_string()))?;
    entries.iter().map(|entry| Dentry::new(&entry.prefix, &entry.dst)).collect()
}

/// The canonical text.
pub(super) fn print(dtab: &[Dentry]) -> String {
    let entries = dtab.iter().map(|entry| format!("{}=>{}", entry.prefix, entry.dst));
    entries.collect::<Vec<_>>().join(";")
}

/// The JSON list of entries.
pub(super) fn print_json(dtab: &[Dentry]) -> String {
    let entries =
        dtab.iter().map(|entry| Json { prefix: entry.prefix.to_string(), dst: entry.dst.to_string() });
    // Texts can always be written.
    serde_json::to_string(&entries.collect::<Vec<_>>()).unwrap_or_default()
}

impl Dentry {
    fn new(prefix: &str, dst: &str) -> Result<Self, DtabError> {
        Ok(Self { prefix: Prefix::parse(prefix)?, dst: Path::parse(dst)? })
    }
}
