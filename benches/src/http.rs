//! The little HTTP/1.1 that load and backend speak: GET requests whose path is the size of the answer's body.

use std::io;

use crate::tls::NAME;

/// The path of a body of `size` bytes.
pub fn path(size: usize) -> String {
    format!("/{size}")
}

/// A request for a body of `size` bytes.
pub fn request(size: usize) -> Vec<u8> {
    format!("GET {} HTTP/1.1\r\nHost: {NAME}\r\n\r\n", path(size)).into_bytes()
}

/// A request for a body of as many bytes as there are fields of [`TOLD`] in the head when it arrives.
pub fn request_told() -> Vec<u8> {
    format!("GET {TOLD_PATH} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").into_bytes()
}

/// The fields in which proxies tell servers about the client.
pub const TOLD: [&str; 4] = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];
const TOLD_PATH: &str = "/told";

/// The body of `size` bytes.
pub fn body(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

/// The answer with a body of `size` bytes.
pub fn answer(size: usize) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    answer.extend(body(size));
    answer
}

/// Finds requests in what a server reads.
#[derive(Debug, Default)]
pub struct Requests {
    head: Head,
}

impl Requests {
    /// Takes bytes off `read` until a request is complete, and says how large its answer is to be. Nothing if more must be
    /// read first.
    pub fn next(&mut self, read: &mut &[u8]) -> io::Result<Option<usize>> {
        if !self.head.take(read)? {
            return Ok(None);
        }
        let size = wanted_size(self.head.bytes()).ok_or_else(|| strange("request", self.head.bytes()))?;
        self.head.clear();
        Ok(Some(size))
    }
}

/// Counts the answers in what a client reads.
#[derive(Debug, Default)]
pub struct Answers {
    head: Head,
    /// What is missing of the body.
    left: usize,
}

impl Answers {
    /// Takes what was read and says how many answers ended in it. Fails at whatever is no success with a length.
    pub fn take(&mut self, mut read: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        while !read.is_empty() {
            if self.left == 0 {
                if !self.head.take(&mut read)? {
                    break;
                }
                self.left = length(self.head.bytes()).ok_or_else(|| strange("answer", self.head.bytes()))?;
                self.head.clear();
            }
            let part = self.left.min(read.len());
            self.left -= part;
            read = &read[part..];
            done += usize::from(self.left == 0);
        }
        Ok(done)
    }
}

/// Collects one head.
#[derive(Debug, Default)]
struct Head(Vec<u8>);

impl Head {
    /// Takes bytes off `read` up to the end of the head; true when that has come.
    fn take(&mut self, read: &mut &[u8]) -> io::Result<bool> {
        let known = self.0.len();
        self.0.extend_from_slice(read);
        let from = known.saturating_sub(END.len() - 1);
        let Some(at) = self.0[from..].windows(END.len()).position(|bytes| bytes == END) else {
            *read = &[];
            return if self.0.len() > LONGEST { Err(strange("head", &self.0)) } else { Ok(false) };
        };
        let end = from + at + END.len();
        *read = &read[end - known..];
        self.0.truncate(end);
        Ok(true)
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// The number that is the path of a request, or how many fields of [`TOLD`] it has.
fn wanted_size(head: &[u8]) -> Option<usize> {
    let path = head.strip_prefix(b"GET ")?;
    let path = &path[..path.iter().position(|byte| *byte == b' ')?];
    if path == TOLD_PATH.as_bytes() { Some(told(head)) } else { number(path.strip_prefix(b"/")?) }
}

fn told(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let names = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    names.filter(|(name, _)| TOLD.contains(name)).count()
}

/// The length of a successful answer.
fn length(head: &[u8]) -> Option<usize> {
    let ok = head.starts_with(b"HTTP/1.1 200 ");
    let mut lines = head.split(|byte| *byte == b'\n').skip(1);
    let line = lines.find(|line| line.get(..KEY.len()).is_some_and(|key| key.eq_ignore_ascii_case(KEY)))?;
    ok.then(|| number(&line[KEY.len()..]))?
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.trim().parse().ok()
}

fn strange(what: &str, head: &[u8]) -> io::Error {
    let start = String::from_utf8_lossy(&head[..head.len().min(200)]).into_owned();
    io::Error::other(format!("an unexpected {what}: {start:?}"))
}

const END: &[u8] = b"\r\n\r\n";
const KEY: &[u8] = b"content-length:";
/// The longest head in bytes; more is no proxy of ours to measure.
const LONGEST: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_wherever_reads_end() {
        let two = [answer(7), answer(3)].concat();

        for cut in 0..two.len() {
            let mut answers = Answers::default();
            let first = answers.take(&two[..cut]).unwrap();
            let second = answers.take(&two[cut..]).unwrap();
            assert_eq!(first + second, 2, "cut at {cut}");
        }
    }

    #[test]
    fn requests_are_found_wherever_reads_end() {
        let two = [request(64), request(100_000)].concat();

        for cut in 0..two.len() {
            let mut requests = Requests::default();
            let mut sizes = Vec::new();
            for mut part in [&two[..cut], &two[cut..]] {
                while let Some(size) = requests.next(&mut part).unwrap() {
                    sizes.push(size);
                }
            }
            assert_eq!(sizes, [64, 100_000], "cut at {cut}");
        }
    }

    #[test]
    fn what_a_proxy_tells_is_counted() {
        let head = String::from_utf8(request_told()).unwrap();
        let told = head.replace("Host:", "X-Real-IP: 192.0.2.1\r\nx-forwarded-for: x-real-ip\r\nHost:");

        assert_eq!(Requests::default().next(&mut head.as_bytes()).unwrap(), Some(0));
        assert_eq!(Requests::default().next(&mut told.as_bytes()).unwrap(), Some(2));
    }

    #[test]
    fn failures_are_no_answers() {
        let refused = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
        assert!(Answers::default().take(refused).unwrap_err().to_string().contains("502"));
        assert!(Answers::default().take(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
