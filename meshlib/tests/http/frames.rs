//! HTTP/2 written by hand: what no good client sends.

use std::net::SocketAddr;

use super::wire::Wire;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// What a client makes of the frames for one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The first byte of an answer's fields: the status, where it is a common one.
    Answered(u8),
    /// RST_STREAM.
    Reset,
    /// GOAWAY with an error, or the end of the connection.
    Closed,
}

/// Fields of an answer that begin with `:status: 200` and `:status: 400` (RFC 7541 appendix A).
pub(crate) const OK: Fate = Fate::Answered(0x88);
pub(crate) const BAD_REQUEST: Fate = Fate::Answered(0x8c);

/// RFC 9113 section 4.1.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut all = vec![length[1], length[2], length[3], kind, flags];
    all.extend(stream.to_be_bytes());
    all.extend(payload);
    all
}

/// Literal fields without indexing or Huffman code, RFC 7541 section 6.2.2.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, value) in fields {
        all.push(0);
        for text in [name, value] {
            let short = u8::try_from(text.len()).ok().filter(|n| *n < 127);
            all.push(short.expect("texts of one byte's length"));
            all.extend(text.bytes());
        }
    }
    all
}

/// A connection that begins with HTTP/2.
pub(crate) async fn connect(addr: SocketAddr) -> Wire {
    let mut wire = Wire::connect(addr).await;
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    wire.send(frame(SETTINGS, 0, 0, &[])).await;
    wire
}

/// The next frame: kind, flags, stream, payload. `None` at the end.
pub(crate) async fn next(wire: &mut Wire) -> Option<(u8, u8, u32, Vec<u8>)> {
    let head = wire.take(9).await?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Some((head[3], head[4], stream, wire.take(length).await?))
}

/// What becomes of a stream.
pub(crate) async fn fate(wire: &mut Wire, wanted: u32) -> Fate {
    loop {
        match next(wire).await {
            None => return Fate::Closed,
            Some((GOAWAY, _, _, payload)) if payload[4..8] != [0; 4] => return Fate::Closed,
            Some((HEADERS, _, stream, payload)) if stream == wanted => return Fate::Answered(payload[0]),
            Some((RST_STREAM, _, stream, _)) if stream == wanted => return Fate::Reset,
            Some(_) => {}
        }
    }
}
