//! What the first bytes of a connection show.
//!
//! A proxy that may terminate TLS, serve HTTP or pass bytes through has to know which of them a connection carries
//! before it commits itself. [`sniff`] looks at the bytes read so far and answers [`Look::Incomplete`] or
//! [`Look::Decided`]. It reads nothing itself: the caller reads (or peeks), calls again with everything read so
//! far, and keeps the bytes for whoever takes the connection over.
//!
//! ```
//! use std::io::Read;
//!
//! use meshlib::io::sniff::{Look, Sniffed, sniff};
//!
//! # let mut connection = &b"GET / HTTP/1.1\r\n"[..];
//! let (mut read, mut scratch) = (Vec::new(), Vec::new());
//! let protocol = loop {
//!     if let Look::Decided(protocol) = sniff(&read, &mut scratch) {
//!         break protocol;
//!     }
//!     if connection.by_ref().take(4).read_to_end(&mut read)? == 0 {
//!         break Sniffed::Unknown;
//!     }
//! };
//! assert_eq!(protocol, Sniffed::Plaintext);
//! # Ok::<(), std::io::Error>(())
//! ```

mod hello;
#[cfg(test)]
mod tests;

use hello::Message;

/// The most bytes that are ever needed to decide: 64 KiB, record headers included.
///
/// The largest hellos seen in practice (post-quantum key shares, session tickets) stay below 4 KiB; rustls itself
/// refuses handshake messages above 64 KiB. A buffer that holds this much is never answered with
/// [`Look::Incomplete`].
pub const MAX_HELLO: usize = 64 * 1024;

/// What the first bytes of a connection show.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sniffed<'a> {
    /// The start of a TLS handshake, well-formed or not.
    ///
    /// A hello that is broken, larger than [`MAX_HELLO`] or cut into more than 256 records shows neither name nor
    /// protocols. It is still TLS, so that the TLS library may answer it with the proper alert.
    Tls {
        /// The host asked for (RFC 6066 section 3), as sent: letter case is kept, a dot at the end is not.
        ///
        /// `None` if the client sent no name or one that is not a DNS host name: empty, not ASCII, or an IP address.
        /// Under encrypted client hello this is the public name of the outer hello.
        server_name: Option<&'a str>,
        /// The application protocols offered, in the client's order of preference (RFC 7301 section 3.1).
        ///
        /// Empty if none were offered. Reserved values (RFC 8701) are passed on like any other.
        alpn: Vec<&'a [u8]>,
    },
    /// HTTP without TLS: the start of an HTTP/1 request line or the HTTP/2 preface.
    ///
    /// The request line is recognised by an upper-case method, one space, and the start of a target: `/`, `*`,
    /// `http`, or anything that may start an authority after `CONNECT`. The preface `PRI * HTTP/2.0` has that form.
    /// The rest of the line is not waited for, so a text protocol with commands of exactly that form counts as well.
    Plaintext,
    /// None of the above: a protocol that must be treated as opaque.
    ///
    /// An SSL 2 compatible hello is among these. It opens an encrypted session, so it is not plaintext, and no TLS
    /// library in use answers it, so it is of no use to call it TLS.
    Unknown,
}

/// Outcome of looking at the bytes read so far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Look<'a> {
    /// More bytes are needed to decide; at most [`MAX_HELLO`] in all are ever asked for.
    Incomplete,
    /// No further byte changes this answer.
    Decided(Sniffed<'a>),
}

/// Looks at the first bytes of a connection, all that were read so far.
///
/// Never panics, and never takes an answer back: if a prefix of `bytes` was decided, `bytes` is decided the same way.
/// A peer that closes early leaves [`Look::Incomplete`]; such a connection is best treated as [`Sniffed::Unknown`].
///
/// `scratch` holds the reassembled hello if the client cut it into several TLS records, and is left alone otherwise.
/// Its former content is thrown away then.
///
/// Cost: one pass over the hello once it is complete, a constant number of steps before that. One allocation for the
/// list of protocols if there are any; a 64 KiB hello with nothing but one-byte protocols makes it 512 KiB.
pub fn sniff<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Look<'a> {
    // Nothing after the limit may matter, or a longer buffer could change the answer.
    let (bytes, full) = match bytes.get(..MAX_HELLO) {
        Some(head) => (head, true),
        None => (bytes, false),
    };
    match bytes.first() {
        None => Look::Incomplete,
        Some(&hello::HANDSHAKE) => match hello::message(bytes, scratch) {
            Message::Foreign => Look::Decided(Sniffed::Unknown),
            Message::Partial if !full => Look::Incomplete,
            Message::Partial | Message::Broken => Look::Decided(nameless()),
            Message::Whole(body) => Look::Decided(hello::parse(body).unwrap_or_else(nameless)),
        },
        Some(_) => request_line(bytes),
    }
}

/// TLS of which nothing else is known.
fn nameless<'a>() -> Sniffed<'a> {
    Sniffed::Tls { server_name: None, alpn: Vec::new() }
}

/// Recognises `METHOD SP target`, as far as the first bytes of the target.
fn request_line(bytes: &[u8]) -> Look<'_> {
    // RFC 9110 section 9.1 allows any token as method, but all registered ones are upper-case letters and hyphens.
    // Being strict here keeps other line protocols (`get key`, `a1 LOGIN`) out.
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    if method == 0 || method > MAX_METHOD || bytes[0] == b'-' {
        return Look::Decided(Sniffed::Unknown);
    }
    let (method, rest) = bytes.split_at(method);
    let [space, target @ ..] = rest else {
        return Look::Incomplete;
    };
    if *space != b' ' {
        return Look::Decided(Sniffed::Unknown);
    }
    // RFC 9112 section 3.2: origin form, absolute form, authority form (CONNECT only), asterisk form.
    let starts = match target {
        [] => return Look::Incomplete,
        [b'/' | b'*', ..] => true,
        [first, ..] if method == b"CONNECT" => first.is_ascii_alphanumeric() || *first == b'[',
        _ => {
            let seen = target.len().min(SCHEME.len());
            if !target[..seen].eq_ignore_ascii_case(&SCHEME[..seen]) {
                false
            } else if seen < SCHEME.len() {
                return Look::Incomplete;
            } else {
                true
            }
        }
    };
    Look::Decided(if starts { Sniffed::Plaintext } else { Sniffed::Unknown })
}

/// Longest method looked for; the longest registered one is `UPDATEREDIRECTREF` with 17 letters.
const MAX_METHOD: usize = 32;

/// Start of an absolute target; `https` has it too.
const SCHEME: &[u8] = b"http";
