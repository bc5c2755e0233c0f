//! Bytes: all of them, in order, until one side has had enough.

use std::fs;
use std::io;
use std::time::Duration;

use meshlib::test_util::Echo;
use meshlib::test_util::TestCa;
use tempfile::tempdir;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsConnector;

use crate::process::Program;
use crate::process::SOON;
use crate::talk::fixed;
use crate::talk::metric_is;
use crate::talk::metrics;
use crate::talk::sum;

const TLS: &str = "tls: {defaultIdentity: {certs: [cert.pem], privateKey: key.pem}}";
const CLIENT_TLS: &str = "tls: {dnsName: backend, trustCerts: [ca.pem]}";

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A proxy in front of an address, with TLS on either side or not.
fn proxy(ca: &TestCa, addr: std::net::SocketAddr, (outside, inside): (bool, bool)) -> Program {
    let dir = tempdir().unwrap();
    ca.issue(["proxy"]).write_to(&dir).unwrap();
    fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    let (server, client) = (if outside { TLS } else { "" }, if inside { CLIENT_TLS } else { "" });
    Program::start_in(dir, &fixed(&[addr], server, client), &[])
}

async fn connect(ca: &TestCa, program: &Program, tls: bool) -> Box<dyn Stream> {
    let io = TcpStream::connect(program.addr()).await.unwrap();
    if !tls {
        return Box::new(io);
    }
    let tls = ca.client_tls("proxy");
    Box::new(TlsConnector::from(tls.config).connect(tls.server_name, io).await.unwrap())
}

/// The byte at a place of an endless text that never repeats itself soon.
fn byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

const MIXES: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_megabytes_come_back_as_they_went_through_every_mix_of_tls() {
    const BYTES: u64 = 40_000_000;
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let ca = TestCa::new();
    for mix in MIXES {
        let backend =
            if mix.1 { Echo::start_tls(ca.server_config(["backend"])).await } else { Echo::start().await };
        let program = proxy(&ca, backend.addr(), mix);
        let (mut input, mut output) = tokio::io::split(connect(&ca, &program, mix.0).await);

        let writes = tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut sent = 0;
            while sent < BYTES {
                // Sizes of every order of magnitude up to 64 KiB.
                let most = 1 << random.u32(0..=16);
                let size = random.u64(1..=most).min(BYTES - sent);
                let chunk: Vec<u8> = (sent..sent + size).map(byte).collect();
                output.write_all(&chunk).await.unwrap();
                output.flush().await.unwrap();
                sent += size;
            }
            output.shutdown().await.unwrap();
        });
        let mut buf = vec![0; 1 << 16];
        let mut got = 0;
        loop {
            let n = time::timeout(SOON, input.read(&mut buf)).await.expect("bytes come").unwrap();
            if n == 0 {
                break;
            }
            for (at, found) in (got..).zip(&buf[..n]) {
                assert!(*found == byte(at), "byte {at} through {mix:?}");
            }
            got += n as u64;
        }
        writes.await.unwrap();

        assert_eq!(got, BYTES, "through {mix:?}");
        metric_is(program.admin(), "l5d:srv:closes", "", 1.0).await;
        let metrics = metrics(program.admin()).await;
        assert_eq!(sum(&metrics, "l5d:srv:stream:rx_bytes", ""), BYTES as f64);
        assert_eq!(sum(&metrics, "l5d:srv:stream:tx_bytes", ""), BYTES as f64);
    }
}

/// A server that takes one connection at a time, as the test wants it.
async fn accepting(ca: &TestCa, tls: bool) -> (TcpListener, Option<tokio_rustls::TlsAcceptor>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener, tls.then(|| ca.server_config(["backend"]).into()))
}

async fn accept(server: &(TcpListener, Option<tokio_rustls::TlsAcceptor>)) -> Box<dyn Stream> {
    let (io, _) = time::timeout(SOON, server.0.accept()).await.expect("a connection comes").unwrap();
    match &server.1 {
        None => Box::new(io),
        Some(tls) => Box::new(tls.accept(io).await.unwrap()),
    }
}

async fn hears(io: &mut (impl AsyncRead + Unpin), text: &str) {
    let mut heard = vec![0; text.len()];
    time::timeout(SOON, io.read_exact(&mut heard)).await.expect("it arrives").unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), text);
}

async fn hears_end(io: &mut (impl AsyncRead + Unpin)) {
    assert_eq!(time::timeout(SOON, io.read(&mut [0])).await.expect("it ends").unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_may_end_first_and_the_other_goes_on() {
    let ca = TestCa::new();
    for mix in MIXES {
        let listener = accepting(&ca, mix.1).await;
        let program = proxy(&ca, listener.0.local_addr().unwrap(), mix);
        for client_first in [true, false] {
            let (client, server) = tokio::join!(connect(&ca, &program, mix.0), accept(&listener));
            let (mut first, mut second) = if client_first { (client, server) } else { (server, client) };

            first.write_all(b"last words").await.unwrap();
            first.shutdown().await.unwrap();
            hears(&mut second, "last words").await;
            hears_end(&mut second).await;
            for text in ["still", "talking"] {
                second.write_all(text.as_bytes()).await.unwrap();
                second.flush().await.unwrap();
                hears(&mut first, text).await;
            }
            second.shutdown().await.unwrap();
            hears_end(&mut first).await;
        }
        metric_is(program.admin(), "l5d:srv:closes", "", 2.0).await;
        metric_is(program.admin(), "l5d:srv:failures", "", 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_passed_on_either_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let program = Program::start(&fixed(&[listener.local_addr().unwrap()], "", ""));
    for client_first in [true, false] {
        let client = TcpStream::connect(program.addr()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let (mut first, mut second) = if client_first { (client, server) } else { (server, client) };
        first.write_all(b"x").await.unwrap();
        hears(&mut second, "x").await;

        first.set_zero_linger().unwrap();
        drop(first);

        let read = time::timeout(SOON, second.read(&mut [0])).await.expect("it ends");
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    metric_is(program.admin(), "l5d:srv:failures", "", 2.0).await;
    metric_is(program.admin(), "l5d:srv:stream:failure", r#"cause="other""#, 2.0).await;
}

/// With TLS or without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_costs_little_memory() {
    const READERS: u64 = 24;
    let ca = TestCa::new();
    for mix in [(false, false), (true, true)] {
        let listener = accepting(&ca, mix.1).await;
        let program = proxy(&ca, listener.0.local_addr().unwrap(), mix);
        // What the first connection needs is needed once.
        let (mut client, mut server) = tokio::join!(connect(&ca, &program, mix.0), accept(&listener));
        server.write_all(&vec![1; 1 << 20]).await.unwrap();
        client.read_exact(&mut vec![0; 1 << 20]).await.unwrap();
        let before = program.memory();

        let mut held = Vec::new();
        for _ in 0..READERS {
            let (client, mut server) = tokio::join!(connect(&ca, &program, mix.0), accept(&listener));
            let chunk = vec![1; 1 << 20];
            // Until nothing more is taken for a while.
            while time::timeout(Duration::from_millis(100), server.write_all(&chunk)).await.is_ok() {}
            held.push((client, server));
        }

        let grown = program.memory().saturating_sub(before) / READERS;
        eprintln!("{grown} bytes for each reader through {mix:?}");
        assert!(grown < 1 << 20, "{grown} bytes for each reader through {mix:?}");
    }
}

/// What arrived before a TLS stream broke off is forwarded, and then the connection ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_stream_without_a_farewell_is_forwarded_as_far_as_it_came() {
    let ca = TestCa::new();
    let backend = Echo::start().await;
    let program = proxy(&ca, backend.addr(), (true, false));
    let tcp = TcpStream::connect(program.addr()).await.unwrap();
    let tls = ca.client_tls("proxy");
    let mut client = TlsConnector::from(tls.config).connect(tls.server_name, tcp).await.unwrap();
    client.write_all(b"unfinished").await.unwrap();
    client.flush().await.unwrap();

    // Ends the TCP stream, and says nothing about it in TLS.
    client.get_mut().0.shutdown().await.unwrap();

    let mut answer = Vec::new();
    time::timeout(SOON, client.read_to_end(&mut answer)).await.expect("it ends").unwrap();
    assert_eq!(answer, b"unfinished");
}
