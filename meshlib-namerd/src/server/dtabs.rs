//! The dtabs of namespaces, with versions.

use std::collections::BTreeMap;
use std::collections::HashMap;

use super::dtab::Dentry;

/// Dtabs by namespace, each with a version that changes with it.
#[derive(Debug, Default)]
pub(super) struct Dtabs {
    live: BTreeMap<String, (Vec<Dentry>, u64)>,
    /// The last versions of what was deleted: one that is created again must not look unchanged.
    deleted: HashMap<String, u64>,
}

/// Whether a change was made, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Made,
    Exists,
    Missing,
    Mismatch,
}

/// Which version a change is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Any, or none.
    Anything,
    /// Any that exists.
    Existing,
    /// This one. `None` is one that this server never gave out.
    Version(Option<u64>),
}

impl Dtabs {
    /// The namespaces, sorted.
    pub(super) fn list(&self) -> Vec<&str> {
        self.live.keys().map(String::as_str).collect()
    }

    pub(super) fn get(&self, namespace: &str) -> Option<(&[Dentry], u64)> {
        self.live.get(namespace).map(|(entries, version)| (entries.as_slice(), *version))
    }

    pub(super) fn create(&mut self, namespace: &str, entries: Vec<Dentry>) -> Change {
        if self.live.contains_key(namespace) {
            return Change::Exists;
        }
        self.put(namespace, entries);
        Change::Made
    }

    pub(super) fn put(&mut self, namespace: &str, entries: Vec<Dentry>) {
        let last = match self.live.get(namespace) {
            Some((_, version)) => *version,
            None => self.deleted.remove(namespace).unwrap_or(0),
        };
        self.live.insert(namespace.to_owned(), (entries, last + 1));
    }

    pub(super) fn update(&mut self, namespace: &str, entries: Vec<Dentry>, expected: Expected) -> Change {
        match (expected, self.get(namespace)) {
            (Expected::Anything, _) | (Expected::Existing, Some(_)) => {}
            (_, None) => return Change::Missing,
            (Expected::Version(expected), Some((_, version))) if expected == Some(version) => {}
            (Expected::Version(_), Some(_)) => return Change::Mismatch,
        }
        self.put(namespace, entries);
        Change::Made
    }

    /// False if there is none.
    pub(super) fn delete(&mut self, namespace: &str) -> bool {
        let Some((_, version)) = self.live.remove(namespace) else {
            return false;
        };
        self.deleted.insert(namespace.to_owned(), version);
        true
    }
}

/// A version as the text of an `ETag`: base64 of eight bytes, first the highest.
pub(super) fn etag(version: u64) -> String {
    let mut text = String::with_capacity(12);
    for group in version.to_be_bytes().chunks(3) {
        let word =
            group.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let six = (word >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[six as usize]) } else { '=' });
        }
    }
    text
}

/// Reads an `If-Match`: a version with or without quotes, or `*`. `None`: it is no base64.
pub(super) fn expected(if_match: &str) -> Option<Expected> {
    if if_match == "*" {
        return Some(Expected::Existing);
    }
    let text = if_match.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let text = text.unwrap_or(if_match);
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if padding > 2 || !text.len().is_multiple_of(4) || !digits.bytes().all(|byte| DIGITS.contains(&byte)) {
        return None;
    }
    // Versions of other lengths are base64 and just not ours.
    let bits = digits
        .bytes()
        .filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte))
        .fold(0_u128, |bits, six| bits << 6 | six as u128);
    let version =
        (text.len() == 12 && padding == 1).then_some(bits >> 2).and_then(|bits| u64::try_from(bits).ok());
    Some(Expected::Version(version.filter(|version| etag(*version) == text)))
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
