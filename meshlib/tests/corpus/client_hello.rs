//! What holds for the first bytes of any connection.

use meshlib::io::sniff::{Look, MAX_HELLO, Sniffed, sniff};
use rustls::server::Acceptor;

/// Panics if the answers contradict each other, or rustls.
pub(crate) fn check(bytes: &[u8]) {
    let mut scratch = Vec::new();
    let whole = sniff(bytes, &mut scratch);

    if whole == Look::Incomplete {
        assert!(bytes.len() < MAX_HELLO);
    }
    // Every cut of a short input, a few of a long one.
    for end in (0..bytes.len()).step_by(bytes.len() / 16 + 1) {
        let mut scratch = Vec::new();
        let part = sniff(&bytes[..end], &mut scratch);
        assert!(part == Look::Incomplete || part == whole, "{part:?} after {end} bytes, then {whole:?}");
    }
    compare_with_rustls(bytes, &whole);
}

/// Where rustls accepts a hello, both must have seen the same in it.
fn compare_with_rustls(bytes: &[u8], look: &Look<'_>) {
    // Deliberate limits on size and number of records, which rustls does not share.
    let limited = bytes.len() > 6 * 256;
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    let accepted = loop {
        if !matches!(acceptor.read_tls(&mut rest), Ok(1..)) {
            return;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => break accepted,
            Err(_) => return,
        }
    };
    // Versions above that of TLS 1.3 are no TLS known today; rustls takes any.
    if bytes[2] > 4 {
        return;
    }
    let hello = accepted.client_hello();
    let Look::Decided(Sniffed::Tls { server_name, alpn }) = look else {
        panic!("{look:?}, but rustls accepts the hello");
    };
    if limited && server_name.is_none() && alpn.is_empty() {
        return;
    }
    // rustls gives the name in lower case.
    assert_eq!(server_name.map(str::to_ascii_lowercase).as_deref(), hello.server_name());
    assert!(alpn.iter().copied().eq(hello.alpn().into_iter().flatten()), "{alpn:?}");
}
