//! Where the body of an answer ends (RFC 9112 section 6.3).

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::Version;
use http::header;
use httparse::Status;

use super::Broken;
use super::head;

/// How much of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    Chunked(Chunked),
    /// All until the connection is closed.
    UntilClose,
}

/// What comes next in a body of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    Size,
    Data(u64),
    /// The line's end behind a chunk.
    Behind,
    Trailers,
    End,
}

/// What was taken from the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// Nothing, for more has to be read.
    Nothing,
}

/// Most bytes of the line with a chunk's size.
const MAX_SIZE_LINE: usize = 4096;
/// What is smaller is copied, so that the buffer can be used again.
const SMALL: usize = 1024;

impl Framing {
    /// The framing of an answer to a request of this method.
    pub(super) fn of(response: &Response<()>, method: &Method) -> Result<Self, Broken> {
        let status = response.status();
        if method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Ok(Self::Length(0));
        }
        let headers = response.headers();
        if let Some(last) = headers.get_all(header::TRANSFER_ENCODING).iter().next_back() {
            if response.version() == Version::HTTP_10 {
                return Err(Broken::Malformed("a transfer coding in HTTP/1.0"));
            }
            return Ok(if ends_chunked(last) { Self::Chunked(Chunked::Size) } else { Self::UntilClose });
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            return length(headers).map(Self::Length).ok_or(Broken::Malformed("its length is none"));
        }
        Ok(Self::UntilClose)
    }

    /// Whether nothing more comes.
    pub(super) fn is_at_end(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked::End))
    }

    /// How many bytes are still to come, if that is known.
    pub(super) fn left(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Takes what is there of the body.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Taken, Broken> {
        match self {
            Self::Length(0) => Ok(Taken::End),
            Self::Length(left) => Ok(take(left, input)),
            Self::UntilClose => {
                let mut left = u64::MAX;
                Ok(take(&mut left, input))
            }
            Self::Chunked(next) => next.take(input),
        }
    }
}

impl Chunked {
    fn take(&mut self, input: &mut BytesMut) -> Result<Taken, Broken> {
        loop {
            match self {
                Self::Size => match httparse::parse_chunk_size(input) {
                    Ok(Status::Complete((len, size))) => {
                        // Without a digit it would count as the last one, and others may see two lines in one.
                        let line = &input[..len - 2];
                        if !line.first().is_some_and(u8::is_ascii_hexdigit) || line.contains(&b'\n') {
                            return Err(NO_CHUNK);
                        }
                        input.advance(len);
                        *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                    }
                    Ok(Status::Partial) if input.len() > MAX_SIZE_LINE => return Err(NO_CHUNK),
                    Ok(Status::Partial) => return Ok(Taken::Nothing),
                    Err(_) => return Err(NO_CHUNK),
                },
                Self::Data(left) => {
                    let taken = take(left, input);
                    if *left == 0 {
                        *self = Self::Behind;
                        if **input == *LAST {
                            input.clear();
                            *self = Self::End;
                        }
                    }
                    return Ok(taken);
                }
                Self::Behind => match input.get(..2) {
                    Some(b"\r\n") => {
                        input.advance(2);
                        *self = Self::Size;
                    }
                    Some(_) => return Err(NO_CHUNK),
                    None => return Ok(Taken::Nothing),
                },
                Self::Trailers => match head::parse_trailers(input)? {
                    Some(trailers) => {
                        *self = Self::End;
                        return Ok(if trailers.is_empty() { Taken::End } else { Taken::Trailers(trailers) });
                    }
                    None => return Ok(Taken::Nothing),
                },
                Self::End => return Ok(Taken::End),
            }
        }
    }
}

/// What nearly always follows the last chunk with data, mostly at once.
const LAST: &[u8] = b"\r\n0\r\n\r\n";
const NO_CHUNK: Broken = Broken::Malformed("a chunk of its body is none");

/// Takes what is there of so many bytes.
fn take(left: &mut u64, input: &mut BytesMut) -> Taken {
    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    if n == 0 {
        return Taken::Nothing;
    }
    *left -= n as u64;
    if n <= SMALL {
        let data = Bytes::copy_from_slice(&input[..n]);
        input.advance(n);
        return Taken::Data(data);
    }
    Taken::Data(input.split_to(n).freeze())
}

/// Whether the last coding of a list is `chunked`.
fn ends_chunked(list: &HeaderValue) -> bool {
    let last = list.as_bytes().rsplit(|byte| *byte == b',').next();
    last.is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// The length that a head tells, if it is one. It may tell the same one several times.
fn length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    let length = digits(lengths.next()?)?;
    lengths.all(|another| digits(another) == Some(length)).then_some(length)
}

/// A number without a sign.
fn digits(text: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(text).ok()?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn framing(
        status: u16,
        version: Version,
        fields: &[(&'static str, &'static str)],
    ) -> Result<Framing, String> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        *response.version_mut() = version;
        for (name, value) in fields {
            response.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Framing::of(&response, &Method::GET).map_err(|error| error.to_string())
    }

    #[test]
    fn the_head_tells_where_the_body_ends() {
        let of = |fields: &[_]| framing(200, Version::HTTP_11, fields);
        let chunked = Ok(Framing::Chunked(Chunked::Size));
        assert_eq!(of(&[]), Ok(Framing::UntilClose));
        assert_eq!(of(&[("content-length", "3")]), Ok(Framing::Length(3)));
        assert_eq!(of(&[("content-length", "3, 3"), ("content-length", "3")]), Ok(Framing::Length(3)));
        assert_eq!(of(&[("transfer-encoding", "gzip, Chunked")]), chunked);
        assert_eq!(of(&[("content-length", "3"), ("transfer-encoding", "chunked")]), chunked);
        assert_eq!(
            of(&[("transfer-encoding", "chunked"), ("transfer-encoding", "gzip")]),
            Ok(Framing::UntilClose)
        );
        for wrong in ["", "+3", "3,4", "-1", "3 3", "0x3", "99999999999999999999"] {
            assert!(of(&[("content-length", wrong)]).is_err(), "{wrong}");
        }
        assert!(framing(200, Version::HTTP_10, &[("transfer-encoding", "chunked")]).is_err());
        for status in [204, 304] {
            let none = framing(status, Version::HTTP_11, &[("content-length", "3")]);
            assert_eq!(none, Ok(Framing::Length(0)), "{status}");
        }
        let mut head = Response::new(());
        head.headers_mut().insert("content-length", HeaderValue::from_static("3"));
        assert_eq!(Framing::of(&head, &Method::HEAD).unwrap(), Framing::Length(0));
    }

    /// Everything that is taken from bytes that come in pieces of this size, and what is left of them.
    fn taken(framing: Framing, bytes: &[u8], pieces: usize) -> Result<(Vec<u8>, HeaderMap, Vec<u8>), String> {
        let (mut framing, mut input) = (framing, BytesMut::new());
        let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
        for piece in bytes.chunks(pieces) {
            input.extend_from_slice(piece);
            loop {
                match framing.take(&mut input).map_err(|error| error.to_string())? {
                    Taken::Data(more) => data.extend_from_slice(&more),
                    Taken::Trailers(fields) => trailers = fields,
                    Taken::End | Taken::Nothing => break,
                }
            }
        }
        if framing.is_at_end() { Ok((data, trailers, input.to_vec())) } else { Err("it has no end".into()) }
    }

    #[test]
    fn chunks_are_put_together_however_they_come() {
        let body = b"4;a=\"b\"\r\nWiki\r\n0B \r\npedia in \r\n\r\n3\r\nchu\r\n000\r\nx-sum: 1\r\nX-Sum: 2\r\n\r\nrest";
        for pieces in 1..body.len() {
            let (data, trailers, rest) = taken(Framing::Chunked(Chunked::Size), body, pieces).unwrap();

            assert_eq!(data, b"Wikipedia in \r\nchu", "{pieces}");
            assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["1", "2"], "{pieces}");
            assert_eq!(rest, b"rest", "{pieces}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for wrong in [
            &b"\r\n\r\n"[..],
            b";a\r\n\r\n",
            b" 0\r\n\r\n",
            b"g\r\n",
            b"-1\r\nx\r\n0\r\n\r\n",
            b"0x1\r\nx\r\n0\r\n\r\n",
            b"1\r\nxx\r\n0\r\n\r\n",
            b"1\r\nx0\r\n\r\n",
            b"1\nx\n0\n\n",
            b"1;a\nb\r\nx\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\nx",
            b"1\r\nx\r\n0\r\nno trailer\r\n\r\n",
            b"1\r\nx\r\n0\r\na b: c\r\n\r\n",
        ] {
            let text = String::from_utf8_lossy(wrong);
            assert!(taken(Framing::Chunked(Chunked::Size), wrong, 1).is_err(), "{text:?}");
            assert!(taken(Framing::Chunked(Chunked::Size), wrong, 64).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lines_without_end_are_given_up() {
        let mut size = b"1;".to_vec();
        size.resize(2 * MAX_SIZE_LINE, b'a');
        let mut trailer = b"0\r\na: ".to_vec();
        trailer.resize(2 * head::MAX_HEAD_BYTES, b'a');
        for endless in [size, trailer] {
            let mut input = BytesMut::from(&*endless);
            let (mut framing, read) = (Framing::Chunked(Chunked::Size), input.len());
            assert!(framing.take(&mut input).is_err(), "of {read}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes: Vec<u8>, pieces in 1..40_usize) {
            let _ = taken(Framing::Chunked(Chunked::Size), &bytes, pieces);
        }

        #[test]
        fn any_chunks_come_out_as_they_went_in(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..3000), 0..8),
            pieces in 1..4000_usize,
        ) {
            let mut sent = Vec::new();
            for chunk in &chunks {
                sent.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                sent.extend_from_slice(chunk);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b"0\r\n\r\n");

            let (data, trailers, rest) = taken(Framing::Chunked(Chunked::Size), &sent, pieces).unwrap();

            prop_assert_eq!(data, chunks.concat());
            prop_assert!(trailers.is_empty() && rest.is_empty());
        }
    }
}
