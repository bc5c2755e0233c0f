//! What is in a value's file.

use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;

use super::failed;
use super::key;
use super::there;
use crate::store::Lock;
use crate::store::StoreError;

/// Longest first line.
const MAX_LINE: u64 = 1024;
/// Largest value that is read.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Value {
    pub(super) version: u64,
    /// The lock this lives by.
    pub(super) owner: Option<Owner>,
    pub(super) bytes: Bytes,
}

/// A lock as it is known in files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) file: PathBuf,
    pub(super) token: String,
}

impl Owner {
    pub(super) fn of(lock: &Lock) -> Result<Self, StoreError> {
        Ok(Self { file: key::lock(lock.key())?, token: lock.token().to_owned() })
    }
}

impl Value {
    pub(super) fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        let Some(file) = there(File::open(path))? else { return Ok(None) };
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        (&mut file).take(MAX_LINE).read_until(b'\n', &mut line).map_err(failed)?;
        let (version, owner) = head(&line)
            .ok_or_else(|| StoreError::Garbled(format!("{} has no version", path.display()).into()))?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(Self { version, owner, bytes: bytes.into() }))
    }

    pub(super) fn write(
        file: &mut File,
        version: u64,
        owner: Option<&Owner>,
        bytes: &[u8],
    ) -> io::Result<()> {
        match owner {
            Some(Owner { file: lock, token }) => writeln!(file, "{version} {token} {}", lock.display())?,
            None => writeln!(file, "{version}")?,
        }
        file.write_all(bytes)
    }
}

fn head(line: &[u8]) -> Option<(u64, Option<Owner>)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let mut words = line.split(' ');
    let version = words.next()?.parse().ok()?;
    let owner = match (words.next(), words.next(), words.next()) {
        (None, ..) => None,
        (Some(token), Some(file), None) => Some(Owner { file: file.into(), token: token.to_owned() }),
        _ => return None,
    };
    Some((version, owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_value_is_said_to_be_none() {
        let owner = Owner { file: "locks/a".into(), token: "7".into() };

        assert_eq!(head(b"12\n"), Some((12, None)));
        assert_eq!(head(b"12 7 locks/a\n"), Some((12, Some(owner))));
        for broken in [&b""[..], b"12", b"x\n", b"12 7\n", b"12 7 a b\n", b"\xff\n"] {
            assert_eq!(head(broken), None);
        }
    }
}
