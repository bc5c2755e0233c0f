//! What a client is told.

use std::net::SocketAddr;

use meshlib::io::sniff::Look;
use meshlib::io::sniff::Sniffed;
use meshlib::io::sniff::sniff;

/// The most bytes of a client that are looked at.
pub(super) const MAX_REQUEST: usize = 2048;

const GREETING: &str = "Well, hello!";

/// The answer to the first bytes of a client: the greeting, as an HTTP response if the client speaks HTTP/1.
pub(super) fn answer(request: &[u8], peer: Option<SocketAddr>) -> Vec<u8> {
    if !is_http(request) {
        return GREETING.into();
    }
    let length = GREETING.len();
    let peer = peer.map(|peer| format!("x-peer-addr: {peer}\r\n")).unwrap_or_default();
    // RFC 9110 section 9.3.2: the answer to HEAD is that to GET without the content.
    let content = if request.starts_with(b"HEAD ") { "" } else { GREETING };
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n{peer}\r\n{content}"
    )
    .into()
}

/// Whether these bytes begin with an HTTP/1 request line, or with so much of one as was looked at.
fn is_http(request: &[u8]) -> bool {
    let looks_like_one = matches!(sniff(request, &mut Vec::new()), Look::Decided(Sniffed::Plaintext));
    looks_like_one
        && match request.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let line = request[..end].strip_suffix(b"\r").unwrap_or(&request[..end]);
                matches!(line, [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9'])
            }
            None => request.len() >= MAX_REQUEST,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Option<SocketAddr> {
        "10.77.0.2:40000".parse().ok()
    }

    #[test]
    fn http_is_answered_as_http() {
        for request in
            ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "PUT /a HTTP/1.0\r\n\r\n", "OPTIONS * HTTP/1.1\n\n"]
        {
            let answer = String::from_utf8(answer(request.as_bytes(), peer())).unwrap();

            let (head, content) = answer.split_once("\r\n\r\n").unwrap();
            let mut lines = head.lines();
            assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"), "{request}");
            let fields: Vec<_> = lines.collect();
            for field in ["content-length: 12", "connection: close", "x-peer-addr: 10.77.0.2:40000"] {
                assert!(fields.contains(&field), "{field} is not in {fields:?}");
            }
            assert_eq!(content, "Well, hello!");
        }
    }

    #[test]
    fn head_gets_no_content() {
        let answer = answer(b"HEAD / HTTP/1.1\r\n\r\n", peer());

        assert!(answer.ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn a_request_line_that_is_too_long_is_one() {
        let mut request = b"GET /".to_vec();
        request.resize(MAX_REQUEST, b'a');

        assert!(answer(&request, peer()).starts_with(b"HTTP/1.1 "));
    }

    #[test]
    fn the_peer_may_have_an_ipv6_address() {
        let answer = answer(b"GET / HTTP/1.1\r\n\r\n", "[fd77::2]:40000".parse().ok());

        assert!(String::from_utf8(answer).unwrap().contains("x-peer-addr: [fd77::2]:40000\r\n"));
    }

    #[test]
    fn anything_else_gets_the_bare_greeting() {
        for request in [
            &b"hi"[..],
            b"GET /\r\n",
            b"GET / HTTP/2.0\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/1.1",
            b"hello HTTP/1.1\r\n",
            b"\xff\xfe\x00",
            b"\n",
        ] {
            assert_eq!(answer(request, peer()), b"Well, hello!", "{}", request.escape_ascii());
        }
    }
}
