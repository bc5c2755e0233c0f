//! Just enough DER to turn a PKCS#8 key into its older forms.

/// Tags of what is looked for (X.690 section 8).
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `parameters [0]` of an EC key (RFC 5915 section 3).
const PARAMETERS: u8 = 0xa0;

/// rsaEncryption, 1.2.840.113549.1.1.1 (RFC 8017 appendix C).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-ecPublicKey, 1.2.840.10045.2.1 (RFC 5480 section 2.1.1).
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// A key in PKCS#8 version 1. Version 2 (RFC 5958) adds the public key, which OpenSSL 3.0 does not understand.
pub(super) fn without_public_key(pkcs8: &[u8]) -> Vec<u8> {
    let Some((algorithm, key)) = parts(pkcs8) else {
        return pkcs8.to_vec();
    };
    let version = value(INTEGER, &[0]);
    value(SEQUENCE, &[version, value(SEQUENCE, algorithm), value(OCTET_STRING, key)].concat())
}

/// The PKCS#1 or SEC1 form of a key in PKCS#8, with its PEM label.
pub(super) fn older_form(pkcs8: &[u8]) -> Option<(&'static str, Vec<u8>)> {
    let (algorithm, key) = parts(pkcs8)?;
    let (kind, curve) = take(algorithm, OID)?;
    if kind == RSA {
        return Some(("RSA PRIVATE KEY", key.to_vec()));
    }
    if kind != EC {
        return None;
    }
    // Inside PKCS#8 the curve stands outside the key; alone, the key must name it (RFC 5915 section 3).
    let (inside, _) = take(key, SEQUENCE)?;
    let (version, rest) = take(inside, INTEGER)?;
    let (secret, mut rest) = take(rest, OCTET_STRING)?;
    if let Some((_, after)) = take(rest, PARAMETERS) {
        rest = after;
    }
    let parts = [&value(INTEGER, version)[..], &value(OCTET_STRING, secret), &value(PARAMETERS, curve), rest];
    Some(("EC PRIVATE KEY", value(SEQUENCE, &parts.concat())))
}

/// Wraps DER into PEM (RFC 7468).
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let body: String = base64(der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned() + "\n")
        .collect();
    format!("-----BEGIN {label}-----\n{body}-----END {label}-----\n")
}

/// The algorithm and the key of PKCS#8.
fn parts(pkcs8: &[u8]) -> Option<(&[u8], &[u8])> {
    let (inside, _) = take(pkcs8, SEQUENCE)?;
    let (_version, rest) = take(inside, INTEGER)?;
    let (algorithm, rest) = take(rest, SEQUENCE)?;
    let (key, _) = take(rest, OCTET_STRING)?;
    Some((algorithm, key))
}

/// The content of the first value if it has the tag, and what follows it.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        (length, rest)
    };
    rest.split_at_checked(length)
}

/// A value: tag, length, content.
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut der = vec![tag];
    if length < 0x80 {
        der.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let used = &bytes[(length.leading_zeros() / 8) as usize..];
        der.push(0x80 | used.len() as u8);
        der.extend_from_slice(used);
    }
    der.extend_from_slice(content);
    der
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = ALPHABET[(group >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { digit as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        // RFC 4648 section 10.
        assert_eq!(base64(b"foobar"), "Zm9vYmFy");
        assert_eq!(base64(b"foob"), "Zm9vYg==");
        assert_eq!(base64(b"fooba"), "Zm9vYmE=");
    }

    #[test]
    fn lengths_of_all_sizes_come_back() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let der = value(OCTET_STRING, &vec![7; length]);
            let (content, rest) = take(&der, OCTET_STRING).unwrap();
            assert_eq!((content.len(), rest.len()), (length, 0));
        }
    }
}
