//! TLS records and the ClientHello inside them.

use super::MAX_HELLO;
use super::Sniffed;

/// The handshake message at the start of a connection, as far as it has come.
pub(super) enum Message<'a> {
    /// Not a ClientHello.
    Foreign,
    /// The start of a ClientHello.
    Partial,
    /// A ClientHello in records that no TLS library accepts, or one that is too large.
    Broken,
    /// The body of a ClientHello, without the handshake header.
    Whole(&'a [u8]),
}

/// Content type of a record with handshake messages (RFC 8446 section 5.1).
pub(super) const HANDSHAKE: u8 = 22;

/// Finds the ClientHello at the start of `bytes`; `scratch` is used if it spans several records.
pub(super) fn message<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Message<'a> {
    // Every byte is judged as soon as it is there: a peer that waits for an answer must not be waited for.
    match bytes {
        [_, major, ..] if *major != 3 => return Message::Foreign,
        [_, _, minor, ..] if !MINORS.contains(minor) => return Message::Foreign,
        [_, _, _, 0, 0, ..] => return Message::Foreign,
        [_, _, _, _, _, kind, ..] if *kind != CLIENT_HELLO => return Message::Foreign,
        [_, _, _, _, _, _, ..] => {}
        _ => return Message::Partial,
    }

    // Count first and copy once: a slow client makes this run once per segment.
    let mut header = [0; HANDSHAKE_HEADER];
    let mut got = 0;
    let mut records = Records { rest: bytes };
    for nth in 0..MAX_RECORDS {
        let fragment = match records.next() {
            Some(Ok(fragment)) => fragment,
            Some(Err(Malformed)) => return Message::Broken,
            None => return Message::Partial,
        };
        if let Some(missing) = header.get_mut(got..) {
            missing.iter_mut().zip(fragment).for_each(|(to, from)| *to = *from);
        }
        got += fragment.len();
        if got < HANDSHAKE_HEADER {
            continue;
        }
        let [_, high, middle, low] = header;
        let end =
            HANDSHAKE_HEADER + usize::from(high) * 0x1_0000 + usize::from(u16::from_be_bytes([middle, low]));
        if RECORD_HEADER + end > MAX_HELLO {
            return Message::Broken;
        }
        if got < end {
            continue;
        }
        let whole: &'a [u8] = if nth == 0 {
            fragment
        } else {
            scratch.clear();
            for fragment in (Records { rest: bytes }).take(nth + 1).flatten() {
                scratch.extend_from_slice(fragment);
            }
            scratch
        };
        return whole.get(HANDSHAKE_HEADER..end).map_or(Message::Broken, Message::Whole);
    }
    Message::Broken
}

/// A record or a field whose length or type cannot be right.
struct Malformed;

/// The handshake records at the start of a connection; the last one as far as it was read.
///
/// Does not go past a malformed one: from there on it yields the same error for ever.
struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (header, rest) = self.rest.split_first_chunk::<RECORD_HEADER>()?;
        let [kind, major, _, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        // RFC 8446 section 5.1: a fragment has at most 2^14 bytes, a handshake fragment at least one, and nothing
        // else may come between the records of one handshake message. The version means nothing here.
        if kind != HANDSHAKE || major != 3 || !(1..=MAX_FRAGMENT).contains(&length) {
            return Some(Err(Malformed));
        }
        let (fragment, rest) = rest.split_at(length.min(rest.len()));
        self.rest = rest;
        Some(Ok(fragment))
    }
}

/// Reads the body of a ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2); `None` if it is broken.
pub(super) fn parse(body: &[u8]) -> Option<Sniffed<'_>> {
    let mut body = Reader(body);
    body.take(2)?; // legacy version
    body.take(32)?; // random
    let session = body.vector8()?;
    let suites = body.vector16()?;
    let compressions = body.vector8()?;
    if session.0.len() > 32 || suites.0.is_empty() || suites.0.len() % 2 != 0 || compressions.0.is_empty() {
        return None;
    }

    let mut names = None;
    let mut protocols = None;
    // TLS 1.2 allows a hello to end before the extensions.
    if !body.is_empty() {
        let mut extensions = body.vector16()?;
        while !extensions.is_empty() {
            let kind = extensions.u16()?;
            let content = extensions.vector16()?;
            let seen = match kind {
                SERVER_NAME => &mut names,
                ALPN => &mut protocols,
                _ => continue,
            };
            // RFC 8446 section 4.2: no extension comes twice.
            if seen.replace(content).is_some() {
                return None;
            }
        }
    }
    if !body.is_empty() {
        return None;
    }
    let server_name = match names {
        Some(content) => host_name(content)?,
        None => None,
    };
    let alpn = match protocols {
        Some(content) => protocol_names(content)?,
        None => Vec::new(),
    };
    Some(Sniffed::Tls { server_name, alpn })
}

/// The host name in a server name extension (RFC 6066 section 3). The outer `None` means broken, the inner unusable.
fn host_name(mut content: Reader<'_>) -> Option<Option<&str>> {
    let mut list = content.vector16()?;
    if list.is_empty() || !content.is_empty() {
        return None;
    }
    let mut host = None;
    while !list.is_empty() {
        // Only host names are defined; the layout of other types is not known, so they end the walk.
        if list.u8()? != HOST_NAME {
            break;
        }
        let name = list.vector16()?.0;
        if host.replace(name).is_some() {
            return None;
        }
    }
    Some(host.and_then(dns_name))
}

/// The protocols in an ALPN extension (RFC 7301 section 3.1); `None` if it is broken.
fn protocol_names(mut content: Reader<'_>) -> Option<Vec<&[u8]>> {
    let list = content.vector16()?;
    if list.is_empty() || !content.is_empty() {
        return None;
    }
    let names = || {
        let mut list = Reader(list.0);
        std::iter::from_fn(move || (!list.is_empty()).then(|| list.vector8().map(|name| name.0)))
    };
    let mut count = 0;
    for name in names() {
        name.filter(|name| !name.is_empty())?;
        count += 1;
    }
    let mut protocols = Vec::with_capacity(count);
    protocols.extend(names().flatten());
    Some(protocols)
}

/// Accepts host names of RFC 1123, underscores included because they are in use, and refuses IP addresses.
///
/// RFC 6066 section 3 wants no dot at the end, but clients that were given a URL with one send it. It is dropped, as
/// rustls does, so that a decision made here fits the handshake that follows.
fn dns_name(name: &[u8]) -> Option<&str> {
    if name.len() > 253 {
        return None;
    }
    let name = name.strip_suffix(b".").unwrap_or(name);
    let well_formed = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && !label.starts_with(b"-")
            && !label.ends_with(b"-")
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if ends_in_number(name) || !name.split(|byte| *byte == b'.').all(well_formed) {
        return None;
    }
    std::str::from_utf8(name).ok()
}

/// Whether the last label is a number: then it is an IPv4 address in one of its spellings, such as `127.1` or `0x7f.1`
/// (WHATWG URL standard, "ends in a number").
fn ends_in_number(name: &[u8]) -> bool {
    match name.rsplit(|byte| *byte == b'.').next() {
        Some([b'0', b'x' | b'X', hex @ ..]) => hex.iter().all(u8::is_ascii_hexdigit),
        Some(label) => label.iter().all(u8::is_ascii_digit),
        None => false,
    }
}

/// Reads fields off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn u16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    /// A vector with one byte of length.
    fn vector8(&mut self) -> Option<Self> {
        let length = self.u8()?;
        self.take(length.into()).map(Self)
    }

    /// A vector with two bytes of length.
    fn vector16(&mut self) -> Option<Self> {
        let length = self.u16()?;
        self.take(length.into()).map(Self)
    }
}

/// Minor record versions of a first hello. RFC 8446 section 5.1 has them ignored; 1 and 3 are common, 0 was sent by
/// clients that also spoke SSL 3, 4 by early ones of TLS 1.3. Anything above is no TLS known today.
const MINORS: std::ops::RangeInclusive<u8> = 0..=4;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const MAX_FRAGMENT: usize = 1 << 14;
/// More records than any client has reason to use; without a bound, tiny records would make every call walk
/// thousands of them.
const MAX_RECORDS: usize = 256;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const ALPN: u16 = 16;
