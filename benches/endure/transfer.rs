//! Pseudo-random bytes through the proxy, compared one by one.

use std::io;
use std::time::Duration;

use benches::tls;
use benches::tls::Sessions;
use benches::wire::Wire;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::time;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;

use crate::args::Args;
use crate::config;
use crate::program::Program;
use crate::setup::Setup;

/// How much, and which bytes.
#[derive(Debug)]
pub(crate) struct Options {
    bytes: u64,
    seed: u64,
}

impl Options {
    /// Reads the options of this run.
    pub(crate) fn read(args: &mut Args) -> io::Result<Self> {
        let bytes = args.number("megabytes", 400)? as u64 * 1_000_000;
        Ok(Self { bytes, seed: args.take("seed", fastrand::u64(..))? })
    }
}

/// Whether a side of the proxy speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Plain,
    Tls,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "TLS",
        }
    }
}

/// Sends so many bytes from the client and then as many from the backend, for each mix of plain and TLS.
pub(crate) async fn run(setup: &Setup, options: &Options) -> io::Result<()> {
    println!("{} bytes each way, seed {}", options.bytes, options.seed);
    for client in [Side::Plain, Side::Tls] {
        for endpoint in [Side::Plain, Side::Tls] {
            let mix = format!("{}/{}", client.name(), endpoint.name());
            let (up, down) = transfer(setup, options, client, endpoint)
                .await
                .map_err(|error| io::Error::other(format!("{mix}: {error}")))?;
            let rate = |took: Duration| options.bytes as f64 / 1e6 / took.as_secs_f64();
            println!("{mix:11} {:6.0} MB/s up, {:6.0} MB/s down", rate(up), rate(down));
        }
    }
    Ok(())
}

/// One connection; the times of the two directions.
async fn transfer(
    setup: &Setup,
    options: &Options,
    client: Side,
    endpoint: Side,
) -> io::Result<(Duration, Duration)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let tls_of = |side, value| if side == Side::Tls { value } else { json!({}) };
    let mut config = config::empty(1);
    let server = tls_of(client, config::server_tls(&setup.identity));
    let towards = tls_of(endpoint, config::client_tls(&setup.identity));
    config::add_router(&mut config, server, config::fixed(&[listener.local_addr()?]), towards);
    let program = Program::start(setup, &config)?;

    let Options { bytes, seed } = *options;
    let acceptor = (endpoint == Side::Tls).then(|| setup.identity.server()).transpose()?;
    let backend = tokio::spawn(async move {
        let (socket, _) = listener.accept().await?;
        let mut wire = match acceptor {
            Some(config) => Wire::tls(TlsAcceptor::from(config).accept(socket).await?),
            None => Wire::Plain(socket),
        };
        receive(&mut wire, Bytes::new(seed), bytes).await?;
        let turned = Instant::now();
        send(&mut wire, Bytes::new(!seed), bytes).await?;
        io::Result::Ok(turned)
    });

    let began = Instant::now();
    let socket = TcpStream::connect(program.addr()).await?;
    let mut wire = match client {
        Side::Tls => {
            let connector = TlsConnector::from(setup.identity.client(Sessions::Forget)?);
            Wire::tls(connector.connect(tls::server_name()?, socket).await?)
        }
        Side::Plain => Wire::Plain(socket),
    };
    let talk = async {
        send(&mut wire, Bytes::new(seed), bytes).await?;
        receive(&mut wire, Bytes::new(!seed), bytes).await?;
        io::Result::Ok(Instant::now())
    };
    let (ended, turned) = tokio::join!(talk, backend);
    // What went wrong at the backend explains what the client saw.
    let turned = turned.map_err(io::Error::other)?.map_err(|error| at("backend", &error))?;
    let ended = ended.map_err(|error| at("client", &error))?;
    Ok((turned - began, ended - turned))
}

/// Writes so many bytes in chunks of any size, and then the end.
async fn send(wire: &mut Wire, mut bytes: Bytes, count: u64) -> io::Result<()> {
    let mut left = count;
    while left > 0 {
        let chunk = bytes.take(chunk_size().min(usize::try_from(left).unwrap_or(usize::MAX)));
        left -= chunk.len() as u64;
        patient(wire.send(chunk)).await.map_err(|error| after("sent", count - left, &error))?;
    }
    patient(wire.shutdown()).await
}

/// Reads to the end with buffers of any size; there must be exactly these bytes.
async fn receive(wire: &mut Wire, mut bytes: Bytes, count: u64) -> io::Result<()> {
    let mut buf = vec![0; MAX_CHUNK];
    let mut received = 0;
    loop {
        let read = patient(wire.read(&mut buf[..chunk_size()])).await;
        let mut got = match read.map_err(|error| after("received", received, &error))? {
            0 => break,
            n => &buf[..n],
        };
        while !got.is_empty() {
            let want = bytes.take(got.len());
            let (now, later) = got.split_at(want.len());
            if let Some(place) = now.iter().zip(want).position(|(got, want)| got != want) {
                return Err(io::Error::other(format!("byte {} is wrong", received + place as u64)));
            }
            received += now.len() as u64;
            got = later;
        }
    }
    if received != count {
        return Err(io::Error::other(format!("received {received} bytes of {count}")));
    }
    Ok(())
}

/// Bytes that a seed determines, without end.
#[derive(Debug)]
struct Bytes {
    random: fastrand::Rng,
    block: Vec<u8>,
    used: usize,
}

impl Bytes {
    fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), block: vec![0; BLOCK], used: BLOCK }
    }

    /// The next bytes: at least one, at most `most`. Which bytes come does not depend on how many are taken.
    fn take(&mut self, most: usize) -> &[u8] {
        if self.used == BLOCK {
            self.random.fill(&mut self.block);
            self.used = 0;
        }
        let from = self.used;
        self.used = BLOCK.min(from + most);
        &self.block[from..self.used]
    }
}

/// 1 B to 256 KiB; each power of two is as likely as the others.
fn chunk_size() -> usize {
    fastrand::usize(1..=1 << fastrand::u32(0..=MAX_CHUNK.ilog2()))
}

/// A connection on which nothing moves for so long is stuck.
async fn patient<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    time::timeout(Duration::from_secs(30), work).await?
}

fn after(done: &str, count: u64, error: &io::Error) -> io::Error {
    io::Error::other(format!("{done} {count} bytes, then: {error}"))
}

fn at(place: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("at the {place}: {error}"))
}

const MAX_CHUNK: usize = 256 * 1024;
const BLOCK: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_do_not_depend_on_the_chunks() {
        let (mut whole, mut pieces) = (Bytes::new(7), Bytes::new(7));
        let mut taken: Vec<u8> = Vec::new();
        while taken.len() < 3 * BLOCK {
            taken.extend(pieces.take(chunk_size()));
        }

        for block in taken.chunks_exact(BLOCK) {
            assert_eq!(whole.take(BLOCK), block);
        }
    }

    async fn received(sent: (u64, u64), wanted: (u64, u64)) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let (mut client, mut server) = (Wire::Plain(client), Wire::Plain(server));
        // The receiver may leave before all is sent.
        let send = async {
            let _ = send(&mut client, Bytes::new(sent.0), sent.1).await;
        };
        tokio::join!(send, receive(&mut server, Bytes::new(wanted.0), wanted.1)).1
    }

    #[tokio::test]
    async fn wrong_and_missing_bytes_are_seen() {
        received((7, 10_000), (7, 10_000)).await.unwrap();

        for (sent, wanted, text) in [
            ((7, 10_000), (8, 10_000), "byte 0 is wrong"),
            ((7, 9_999), (7, 10_000), "received 9999 bytes of 10000"),
            ((7, 10_001), (7, 10_000), "received 10001 bytes of 10000"),
        ] {
            let error = received(sent, wanted).await.unwrap_err();
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn chunks_stay_in_their_range() {
        assert!((0..10_000).map(|_| chunk_size()).all(|size| (1..=MAX_CHUNK).contains(&size)));
    }
}
