//! Hellos built field by field, and by rustls.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

pub(super) fn vector8(content: &[u8]) -> Vec<u8> {
    [&[u8::try_from(content.len()).unwrap()], content].concat()
}

pub(super) fn vector16(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
}

pub(super) fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(content)].concat()
}

pub(super) fn server_name(host: &[u8]) -> Vec<u8> {
    extension(0, &vector16(&[&[0][..], &vector16(host)].concat()))
}

pub(super) fn alpn(names: &[&str]) -> Vec<u8> {
    let names: Vec<u8> = names.iter().flat_map(|name| vector8(name.as_bytes())).collect();
    extension(16, &vector16(&names))
}

/// The handshake message with what comes after the compression methods given.
pub(super) fn message(after: &[u8]) -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &vector8(&[9; 32]), &vector16(&[0x13, 1, 0x0a, 0x0a]), &[1, 0], after];
    let body = body.concat();
    [&u32::try_from(body.len() | 1 << 24).unwrap().to_be_bytes()[..], &body].concat()
}

/// The handshake message cut into records of at most `size` bytes.
pub(super) fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &vector16(part)].concat()).collect()
}

/// A hello with these extensions in one record.
pub(super) fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    records(&message(&vector16(&extensions.concat())), 1 << 14)
}

/// The hello that rustls sends, as it leaves the socket.
pub(super) fn rustls_hello(name: &str, alpn: &[&str], max_fragment: Option<usize>) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.max_fragment_size = max_fragment;
    let mut connection =
        ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut wire = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut wire).unwrap();
    }
    wire
}

/// Arbitrary bytes, arbitrary bytes behind the start of a hello, and hellos with one byte changed.
pub(super) fn wires() -> impl Strategy<Value = Vec<u8>> {
    let base = [server_name(b"a.example"), alpn(&["h2", "http/1.1"])];
    let mutated =
        (any::<prop::sample::Index>(), any::<u8>(), 1..80usize).prop_map(move |(at, value, size)| {
            let mut wire = records(&message(&vector16(&base.concat())), size);
            let at = at.index(wire.len());
            wire[at] = value;
            wire
        });
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let headed = bytes.clone().prop_map(|tail| [&b"\x16\x03\x01\x00\x90\x01\x00\x00"[..], &tail].concat());
    prop_oneof![bytes, headed, mutated, "[A-Z]{0,5} ?[/*htpx]{0,5}".prop_map(String::into_bytes)]
}
