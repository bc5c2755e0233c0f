//! Keys as paths. No key leads out of the directory, and no two to the same file.

use std::path::PathBuf;

use crate::store::StoreError;

/// The longest name of a file.
const MAX_NAME: usize = 255;

/// The file of a value: its key's parts as folders, and a `=` at the end, so that a key may go on where another ends.
pub(super) fn value(key: &str) -> Result<PathBuf, StoreError> {
    let mut path = PathBuf::from("values");
    path.push(folder(key)?);
    let Some(name) = path.file_name().and_then(|name| name.to_str()).map(|name| format!("{name}=")) else {
        return Err(unfit(key, "it is empty"));
    };
    if name.len() > MAX_NAME {
        return Err(unfit(key, "a part of it is too long"));
    }
    path.set_file_name(name);
    Ok(path)
}

/// The folder of the keys that go on after this one.
pub(super) fn folder(key: &str) -> Result<PathBuf, StoreError> {
    let mut path = PathBuf::new();
    for part in key.split('/') {
        if part.is_empty() {
            return Err(unfit(key, "a part of it is empty"));
        }
        let name = encode(part);
        if name.len() > MAX_NAME {
            return Err(unfit(key, "a part of it is too long"));
        }
        path.push(name);
    }
    Ok(path)
}

/// The file of a lock; all of them lie in one folder.
pub(super) fn lock(key: &str) -> Result<PathBuf, StoreError> {
    let name = encode(key);
    match name.len() {
        0 => Err(unfit(key, "it is empty")),
        1..=MAX_NAME => Ok(PathBuf::from("locks").join(name)),
        // Longer ones are rare. Two that begin alike share a lock only if they also agree in length and sum.
        _ => {
            let sum = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            Ok(PathBuf::from("locks").join(format!("{}={}={sum:016x}", &name[..MAX_NAME - 40], key.len())))
        }
    }
}

/// A name of a file or a folder, read back.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) is_value: bool,
}

/// The part of a key that a file or folder stands for. Nothing for one that no key has.
pub(super) fn part(name: &str) -> Option<Part> {
    let (encoded, is_value) = match name.strip_suffix('=') {
        Some(encoded) => (encoded, true),
        None => (name, false),
    };
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            _ => byte,
        });
    }
    let decoded = String::from_utf8(bytes).ok()?;
    // Only names as they are written here: another spelling would be another file of the same key.
    (!decoded.is_empty() && encode(&decoded) == encoded).then_some(Part { name: decoded, is_value })
}

/// Letters, digits and some signs as they are, the rest percent-encoded. So is a dot at the beginning.
fn encode(part: &str) -> String {
    let mut name = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'.' if name.is_empty() => name.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'@' => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

fn unfit(key: &str, reason: &str) -> StoreError {
    StoreError::Unfit { key: key.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_paths_below() {
        assert_eq!(value("certs/a.test").unwrap(), PathBuf::from("values/certs/a.test="));
        assert_eq!(value("certs@0f/a").unwrap(), PathBuf::from("values/certs@0f/a="));
        assert_eq!(value("../../etc/passwd").unwrap(), PathBuf::from("values/%2E./%2E./etc/passwd="));
        assert_eq!(value("a=/b c").unwrap(), PathBuf::from("values/a%3D/b%20c="));
        assert_eq!(lock("renew_lock/a").unwrap(), PathBuf::from("locks/renew_lock%2Fa"));
        for unfit in ["", "/", "a//b", "/a", "a/", &"x".repeat(255)] {
            assert!(value(unfit).is_err(), "{unfit}");
        }
        let host = format!("certs/{}", "a".repeat(253));
        assert!(value(&host).is_ok());
        assert!(lock(&host.repeat(3)).unwrap().file_name().unwrap().len() <= MAX_NAME);
        assert_ne!(lock(&(host.clone() + "x")).unwrap(), lock(&(host + "y")).unwrap());
    }

    proptest! {
        #[test]
        fn no_key_leads_out_and_each_comes_back(key in "\\PC{0,40}") {
            let Ok(path) = value(&key) else { return Ok(()) };
            prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
            let parts: Option<Vec<_>> = path.iter().skip(1).map(|name| part(name.to_str().unwrap())).collect();
            let parts: Vec<_> = parts.unwrap().into_iter().map(|part| part.name).collect();
            prop_assert_eq!(parts.join("/"), key);
        }

        #[test]
        fn names_of_others_do_no_harm(name in "\\PC{0,20}") {
            let _ = part(&name);
        }
    }
}
