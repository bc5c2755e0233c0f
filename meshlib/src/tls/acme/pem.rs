//! Keys in text.

use std::fmt::Write;

/// A section of PEM (RFC 7468 section 2).
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    let mut base64 = String::with_capacity(der.len() * 4 / 3 + 4);
    for chunk in der.chunks(3) {
        let bytes = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let word = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at) & 63) as usize];
            base64.push(if at <= chunk.len() { digit.into() } else { '=' });
        }
    }
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    // Writing to a string cannot fail.
    let _ = writeln!(pem, "-----END {label}-----");
    pem
}

/// PKCS#8 around a P-256 key of SEC1 (RFC 5208 section 5, RFC 5915 section 3). Nothing if it is too long to be one.
pub(super) fn wrap_p256(sec1: &[u8]) -> Option<Vec<u8>> {
    /// `INTEGER 0`, and the algorithm: id-ecPublicKey over prime256v1.
    const HEAD: [u8; 24] = [
        0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
        0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ];

    let mut inner = HEAD.to_vec();
    inner.extend(tagged(0x04, sec1)?);
    tagged(0x30, &inner)
}

/// DER's tag, length and value, for up to 255 bytes.
fn tagged(tag: u8, value: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(value.len()).ok()?;
    let mut der = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
    der.extend_from_slice(value);
    Some(der)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for length in [1, 2, 3, 48, 49, 138] {
            let der = vec![0xa5; length];
            let pem = encode("PRIVATE KEY", &der);
            let read = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
            assert_eq!(read.secret_pkcs8_der(), der);
            assert!(pem.lines().all(|line| line.len() <= 64));
        }
    }
}
