//! Whether the program that runs with the same settings wants traffic, for orchestrators that run a command to find out: an
//! image with nothing but the program has nothing else to ask with.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

use tokio::time::Instant;

use super::cli;
use super::cli::Failure;
use super::units::is_harmful;

/// How long connecting and the answer may take together. Docker gives a probe 30 s unless told otherwise, Kubernetes 1 s.
const PATIENCE: Duration = Duration::from_secs(2);
/// More of an answer is not read.
const MOST: u64 = 16 << 10;

/// Asks at the admin address, and prints `ready`.
///
/// # Errors
///
/// If it is not ready, with its reasons, or does not answer.
pub fn ready(admin: SocketAddr) -> Result<(), Failure> {
    if admin.port() == 0 {
        let text = "the admin address has no fixed port, so nobody knows where to ask";
        return Err(Failure::Usage(text.into()));
    }
    let until = Instant::now() + PATIENCE;
    let (mut addr, mut answer) = (admin, Err(io::ErrorKind::AddrNotAvailable.into()));
    for candidate in reachable(admin) {
        (addr, answer) = (candidate, ask(candidate, until));
        if answer.is_ok() {
            break;
        }
    }
    let unanswered = |error| Failure::Runtime(format!("not ready: {addr} does not answer: {error}"));
    let answer = answer.map_err(unanswered)?;
    let (head, reasons) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") if reasons == "ready\n" => {
            cli::print("ready");
            Ok(())
        }
        Some("503") => {
            let harmless = |line: &str| line.chars().filter(|c| !is_harmful(*c)).collect::<String>();
            let reasons: Vec<String> = reasons.lines().map(harmless).collect();
            Err(Failure::Runtime(format!("not ready: {}", reasons.join("; "))))
        }
        _ => Err(Failure::Runtime(format!("not ready: whatever answers at {addr} is not this program"))),
    }
}

/// Where a listener is reached from its own machine. One of every address may be without IPv6.
fn reachable(addr: SocketAddr) -> Vec<SocketAddr> {
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let ips: &[IpAddr] = match addr.ip() {
        ip if !ip.is_unspecified() => &[ip],
        IpAddr::V4(_) => &[v4],
        IpAddr::V6(_) => &[v6, v4],
    };
    ips.iter().map(|ip| SocketAddr::new(*ip, addr.port())).collect()
}

fn ask(addr: SocketAddr, until: Instant) -> io::Result<String> {
    let left = || match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let mut io = TcpStream::connect_timeout(&addr, left()?)?;
    io.set_write_timeout(Some(left()?))?;
    io.write_all(format!("GET /ready HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut io = io.take(MOST);
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    loop {
        io.get_ref().set_read_timeout(Some(left()?))?;
        match io.read(&mut part) {
            Ok(0) => return Ok(String::from_utf8_lossy(&answer).into_owned()),
            Ok(n) => answer.extend_from_slice(&part[..n]),
            // So the kernel says that the time is over.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What is said of a program that answers so, at once.
    fn said_of(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let program = thread::spawn(move || {
            let (mut io, _) = listener.accept().unwrap();
            let asked = io.read(&mut [0; 1024]).unwrap();
            assert!(asked > 0);
            io.write_all(answer.as_bytes()).unwrap();
        });
        let said = ready(addr).map_err(|failure| failure.to_string());
        program.join().unwrap();
        said
    }

    #[test]
    fn the_answer_of_the_program_is_told() {
        assert_eq!(said_of("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n"), Ok(()));
        let unready = said_of("HTTP/1.1 503 Service Unavailable\r\n\r\nno Consul\nno \u{1b}[mrules\n");
        assert_eq!(unready.unwrap_err(), "not ready: no Consul; no [mrules");
    }

    #[test]
    fn others_are_not_taken_for_the_program() {
        let hello = "HTTP/1.1 200 OK\r\n\r\nWell, hello!\n";
        for answer in ["", "SSH-2.0-x\r\n", "HTTP/1.1 404 Not Found\r\n\r\n", hello, "\u{1b}[m"] {
            let said = said_of(answer).unwrap_err();
            assert!(said.contains("is not this program") && !said.contains('\u{1b}'), "{said}");
        }
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let since = Instant::now();
        let said = ready(listener.local_addr().unwrap()).unwrap_err().to_string();
        assert!(said.ends_with("does not answer: timed out"), "{said}");
        assert!(since.elapsed() >= PATIENCE && since.elapsed() < 5 * PATIENCE);
    }

    #[test]
    fn every_address_is_asked_at_the_loopback_address() {
        let at = |addr: &str| {
            let found = reachable(addr.parse().unwrap());
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(at("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(at("[::]:1"), "[::1]:1 127.0.0.1:1");
        assert_eq!(at("10.0.0.1:1"), "10.0.0.1:1");
    }
}
