//! The heads of requests and answers of HTTP/1.1, as they travel.

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Version;
use http::header;
use httparse::Status;
use hyper::ext::ReasonPhrase;

use super::Broken;
use super::framing::Framing;

/// Most bytes of an answer's head.
pub(in crate::http) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most bytes of its trailers.
const MAX_TRAILER_BYTES: usize = 16 * 1024;
/// Most fields of an answer's head.
const MAX_FIELDS: usize = 100;

/// Writes the head of a request with a body of this length behind what is in `output`.
///
/// What the request says about its length is replaced: a server that believed something else would take the rest of the
/// body for a request.
pub(super) fn write<B>(output: &mut Vec<u8>, request: &Request<B>, length: usize) {
    output.extend_from_slice(request.method().as_str().as_bytes());
    output.push(b' ');
    // One that begins with its query has an empty path, which travels as a slash.
    output.extend_from_slice(request.uri().path().as_bytes());
    if let Some(query) = request.uri().query() {
        output.push(b'?');
        output.extend_from_slice(query.as_bytes());
    }
    output.extend_from_slice(b" HTTP/1.1\r\n");
    let mut told = false;
    for (name, value) in request.headers() {
        match *name {
            header::TRANSFER_ENCODING => {}
            // Told once, however often the request says it.
            header::CONTENT_LENGTH if told => {}
            header::CONTENT_LENGTH => {
                told = true;
                write_length(output, length);
            }
            _ => write_field(output, name.as_str(), value.as_bytes()),
        }
    }
    if !told && length > 0 {
        write_length(output, length);
    }
    output.extend_from_slice(b"\r\n");
}

fn write_length(output: &mut Vec<u8>, length: usize) {
    write_field(output, "content-length", HeaderValue::from(length).as_bytes());
}

fn write_field(output: &mut Vec<u8>, name: &str, value: &[u8]) {
    output.extend_from_slice(name.as_bytes());
    output.extend_from_slice(b": ");
    output.extend_from_slice(value);
    output.extend_from_slice(b"\r\n");
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) framing: Framing,
    /// Whether the server takes another request on this connection.
    pub(super) keep_alive: bool,
}

/// Whether a head may end in `input`, of which so much was looked at before: it ends with an empty line. What comes first
/// is always worth a look, since it may be no head at all.
pub(super) fn may_end(input: &[u8], seen: usize) -> bool {
    let behind = |line: &[u8]| line.starts_with(b"\n") || line.starts_with(b"\r\n");
    let lines =
        input.get(seen.saturating_sub(3)..).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
    let mut lines = lines.skip_while(|line| !line.ends_with(b"\n")).skip(1);
    seen == 0 || lines.any(behind)
}

/// Takes the head of an answer to a request of this method from `input`; none if it is not complete. Interim answers are
/// passed over.
pub(super) fn parse(input: &mut BytesMut, method: &Method) -> Result<Option<Head>, Broken> {
    loop {
        if input.is_empty() {
            return Ok(None);
        }
        let Some(Parsed { response, keep_alive }) = parse_one(input)? else {
            return Ok(None);
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Broken::Malformed("it switches protocols unasked"));
        }
        if response.status().is_informational() {
            continue;
        }
        let framing = Framing::of(&response, method)?;
        // RFC 9112 section 6.3: a head that says both may be an attempt to smuggle.
        let one_way = !(response.headers().contains_key(header::TRANSFER_ENCODING)
            && response.headers().contains_key(header::CONTENT_LENGTH));
        let keep_alive = keep_alive && one_way && !matches!(framing, Framing::UntilClose);
        return Ok(Some(Head { response, framing, keep_alive }));
    }
}

struct Parsed {
    response: Response<()>,
    keep_alive: bool,
}

fn parse_one(input: &mut BytesMut) -> Result<Option<Parsed>, Broken> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let read =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, input, &mut fields);
    let len = match read {
        Ok(Status::Complete(len)) if len > MAX_HEAD_BYTES => return Err(Broken::TooLarge),
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Broken::TooLarge),
        Err(error) => return Err(Broken::Unreadable(error)),
    };
    // A copy, so that what was read stays where it is and the next answer is read to the same place.
    let head = Bytes::copy_from_slice(&input[..len]);
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = Response::new(());
    *response.status_mut() = status.ok_or(Broken::Malformed("its status is none"))?;
    let mut keep_alive = parsed.version == Some(1);
    *response.version_mut() = if keep_alive { Version::HTTP_11 } else { Version::HTTP_10 };
    if let Some(reason) = parsed.reason
        && response.status().canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    let mut closes = false;
    let headers = response.headers_mut();
    headers.reserve(parsed.headers.len());
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|_| Broken::Malformed("the name of a field is none"))?;
        let value = HeaderValue::from_maybe_shared(part(&head, input, field.value));
        let value = value.map_err(|_| Broken::Malformed("the value of a field is none"))?;
        if name == header::CONNECTION {
            closes |= has_token(&value, "close");
            keep_alive |= has_token(&value, "keep-alive");
        }
        if name == header::CONTENT_LENGTH
            && let Some(length) = told_often(&value)
        {
            headers.append(name, length);
            continue;
        }
        headers.append(name, value);
    }
    input.advance(len);
    Ok(Some(Parsed { response, keep_alive: keep_alive && !closes }))
}

/// The one member of a list that consists of nothing else.
fn told_often(list: &HeaderValue) -> Option<HeaderValue> {
    let mut members = list.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let first = members.next()?;
    let is_list = first.len() < list.len();
    (is_list && members.all(|member| member == first)).then(|| HeaderValue::from_bytes(first).ok()).flatten()
}

/// The part of `copy` that `part` is of `whole`.
fn part(copy: &Bytes, whole: &[u8], part: &[u8]) -> Bytes {
    if part.is_empty() {
        // It may be anywhere.
        return Bytes::new();
    }
    let at = part.as_ptr().addr() - whole.as_ptr().addr();
    copy.slice(at..at + part.len())
}

/// Takes trailers from `input`; none if they are not complete.
pub(super) fn parse_trailers(input: &mut BytesMut) -> Result<Option<HeaderMap>, Broken> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let (len, trailers) = match httparse::parse_headers(input, &mut fields) {
        Ok(Status::Complete((len, fields))) => {
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes());
                let name = name.map_err(|_| Broken::Malformed("the name of a trailer is none"))?;
                let value = HeaderValue::from_bytes(field.value);
                trailers
                    .append(name, value.map_err(|_| Broken::Malformed("the value of a trailer is none"))?);
            }
            (len, trailers)
        }
        Ok(Status::Partial) if input.len() > MAX_TRAILER_BYTES => return Err(Broken::TooLarge),
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Broken::TooLarge),
        Err(error) => return Err(Broken::Unreadable(error)),
    };
    input.advance(len);
    Ok(Some(trailers))
}

/// Whether a head asks for its connection to be closed.
pub(super) fn closes(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|list| has_token(list, "close"))
}

/// Whether a list has this member.
fn has_token(list: &HeaderValue, token: &str) -> bool {
    let members = list.as_bytes().split(|byte| *byte == b',');
    members.map(<[u8]>::trim_ascii).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(request: &Request<()>, length: usize) -> String {
        let mut output = Vec::new();
        write(&mut output, request, length);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn a_head_tells_the_length_that_its_body_has() {
        let get = Request::get("/a?b").header("host", "x").body(()).unwrap();
        assert_eq!(written(&get, 0), "GET /a?b HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(written(&get, 3), "GET /a?b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n");
        let lies = Request::post("http://x?y")
            .header("content-length", "7")
            .header("transfer-encoding", "chunked")
            .header("content-length", "8")
            .body(())
            .unwrap();
        assert_eq!(written(&lies, 0), "POST /?y HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
        let all = Request::options("*").body(()).unwrap();
        assert_eq!(written(&all, 0), "OPTIONS * HTTP/1.1\r\n\r\n");
    }

    fn parsed(text: &str) -> Result<Option<Head>, String> {
        parse(&mut BytesMut::from(text), &Method::GET).map_err(|error| error.to_string())
    }

    fn keeps_alive(text: &str) -> bool {
        parsed(text).unwrap().unwrap().keep_alive
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let mut input = BytesMut::from(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
             HTTP/1.1 200 Fine\r\nx-a: 1\r\nX-A: 2\r\ncontent-length: 2\r\n\r\nokHTTP",
        );

        let head = parse(&mut input, &Method::GET).unwrap().unwrap();

        assert_eq!(head.response.status(), 200);
        assert_eq!(
            head.response.extensions().get::<ReasonPhrase>().map(ReasonPhrase::as_bytes),
            Some(&b"Fine"[..])
        );
        assert_eq!(head.response.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(head.framing, Framing::Length(2));
        assert!(head.keep_alive);
        assert_eq!(input, "okHTTP");
    }

    #[test]
    fn a_connection_is_kept_if_both_know_where_the_answer_ends() {
        for (kept, head) in [
            (true, "HTTP/1.1 200 OK\r\ncontent-length: 0"),
            (false, "HTTP/1.1 200 OK"),
            (false, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: x, Close"),
            (false, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\nconnection: keep-alive"),
            (false, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ntransfer-encoding: chunked"),
            (false, "HTTP/1.0 200 OK\r\ncontent-length: 0"),
            (true, "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: Keep-Alive"),
        ] {
            assert_eq!(keeps_alive(&format!("{head}\r\n\r\n")), kept, "{head:?}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for head in [
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\rc: d\r\n\r\n",
            "<html>",
        ] {
            assert!(parsed(head).is_err(), "{head:?}");
        }
        for incomplete in ["", "HTTP/1.", "HTTP/1.1 200 OK\r\na: b\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
            assert!(parsed(incomplete).unwrap().is_none(), "{incomplete:?}");
        }
    }

    #[test]
    fn heads_are_limited() {
        let many = "a: b\r\n".repeat(MAX_FIELDS + 1);
        assert!(parsed(&format!("HTTP/1.1 200 OK\r\n{many}")).is_err());
        let large = "a".repeat(MAX_HEAD_BYTES);
        assert!(parsed(&format!("HTTP/1.1 200 OK\r\na: {large}\r\n\r\n")).is_err());
    }

    #[test]
    fn a_head_is_looked_at_again_when_it_may_end() {
        for head in ["HTTP/1.1 200 OK\r\na: b\r\n\r\n", "HTTP/1.1 200 OK\na: b\n\n"] {
            for seen in 1..head.len() {
                assert!(may_end(head.as_bytes(), seen), "{seen}");
                for now in seen..head.len() {
                    assert!(!may_end(&head.as_bytes()[..now], seen), "{seen}..{now}");
                }
            }
        }
        assert!(may_end(b"H", 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            let answer = [&b"HTTP/1.1 200 OK\r\n"[..], &bytes].concat();
            for bytes in [bytes, answer] {
                let _ = parse(&mut BytesMut::from(&*bytes), &Method::GET);
            }
        }
    }
}
