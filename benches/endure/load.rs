//! A steady load: exchanges over kept connections, and new connections of one exchange each.
//!
//! All of it is paced in batches by one timer, so that the load costs little beside what it measures.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use benches::counters;
use benches::counters::Counters;
use benches::wire::MESSAGE;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;
use tokio::time::Instant;

use crate::backend;

/// How much of each, per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Exchanges over kept connections.
    pub(crate) requests: usize,
    /// How many connections are kept.
    pub(crate) kept: usize,
    /// New connections.
    pub(crate) connects: usize,
}

/// What was done and what went wrong.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Exchanges over kept connections.
    pub(crate) requests: AtomicU64,
    /// New connections with their exchange.
    pub(crate) connects: AtomicU64,
    errors: Counters,
    began: Instant,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            requests: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            errors: Counters::default(),
            began: Instant::now(),
        }
    }

    /// Counts an error, and prints it if it is one of the first.
    fn fail(&self, what: &str, error: impl Display) {
        self.errors.fail(format!("{what}: {error}"));
        if self.errors.failures().0 <= PRINTED_ERRORS {
            println!("error after {:.1} s: {what}: {error}", self.began.elapsed().as_secs_f64());
        }
    }

    /// The load so far on one line.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} requests, {} connections, {} errors",
            counters::read(&self.requests),
            counters::read(&self.connects),
            self.errors.failures().0
        )
    }

    /// Fails if anything went wrong, or if nothing was done.
    pub(crate) fn holds(&self) -> io::Result<()> {
        if counters::read(&self.requests) == 0 || counters::read(&self.connects) == 0 {
            return Err(io::Error::other("the load did nothing"));
        }
        match self.errors.failures() {
            (0, _) => Ok(()),
            (n, last) => {
                Err(io::Error::other(format!("{n} client errors, the last: {}", last.unwrap_or_default())))
            }
        }
    }
}

/// Loads the server at `addr` until `end`.
pub(crate) async fn drive(addr: SocketAddr, rates: Rates, tally: Arc<Tally>, end: Instant) -> io::Result<()> {
    let mut kept = Vec::new();
    for _ in 0..rates.kept {
        kept.push(open(addr).await?);
    }
    let (mut requests, mut connects) = (Pace::new(rates.requests), Pace::new(rates.connects));
    let mut next = 0;
    // After a pause the missed ticks come at once, which keeps the rate.
    let mut ticks = time::interval(TICK);
    loop {
        let now = ticks.tick().await;
        if now >= end {
            return Ok(());
        }
        for _ in 0..connects.due() {
            let tally = Arc::clone(&tally);
            // Ends after one exchange, or with its deadline.
            tokio::spawn(async move {
                match time::timeout(PATIENCE, once(addr)).await {
                    Ok(Ok(())) => counters::add(&tally.connects, 1),
                    Ok(Err(error)) => tally.fail("new connection", error),
                    Err(error) => tally.fail("new connection", error),
                }
            });
        }
        let mut due = requests.due();
        while due > 0 {
            // A slice of the connections; the next begins behind it.
            let to = kept.len().min(next + due);
            exchange(&mut kept[next..to], addr, &tally).await;
            due -= to - next;
            next = to % kept.len();
        }
    }
}

/// One exchange on each of these connections: first all requests, then all answers.
async fn exchange(kept: &mut [TcpStream], addr: SocketAddr, tally: &Tally) {
    let message = message();
    for io in &mut *kept {
        // A write that fails is followed by a read that fails.
        let _ = time::timeout(PATIENCE, io.write_all(&message)).await;
    }
    for io in kept {
        match time::timeout(PATIENCE, answer(io, &message)).await.unwrap_or_else(|error| Err(error.into())) {
            Ok(()) => counters::add(&tally.requests, 1),
            Err(error) => {
                tally.fail("kept connection", error);
                match open(addr).await {
                    Ok(another) => *io = another,
                    Err(error) => tally.fail("kept connection, again", error),
                }
            }
        }
    }
}

/// Connects, one exchange, and a proper end.
async fn once(addr: SocketAddr) -> io::Result<()> {
    let mut io = open(addr).await?;
    io.shutdown().await?;
    backend::expect_end(&mut io).await
}

/// Connects, one exchange.
async fn open(addr: SocketAddr) -> io::Result<TcpStream> {
    let mut io = TcpStream::connect(addr).await?;
    io.set_nodelay(true)?;
    let message = message();
    io.write_all(&message).await?;
    answer(&mut io, &message).await?;
    Ok(io)
}

async fn answer(io: &mut TcpStream, message: &[u8; MESSAGE]) -> io::Result<()> {
    let mut answer = [0; MESSAGE];
    io.read_exact(&mut answer).await?;
    if answer == *message { Ok(()) } else { Err(io::Error::other("the answer is not the request")) }
}

/// Begins with what no manner of the backend begins with, so it is echoed.
fn message() -> [u8; MESSAGE] {
    let mut message = [0; MESSAGE];
    fastrand::fill(&mut message[1..]);
    message
}

/// How many are due at each tick, so that a second has the right number of them.
#[derive(Debug)]
struct Pace {
    per_second: usize,
    ticks: usize,
}

impl Pace {
    fn new(per_second: usize) -> Self {
        Self { per_second, ticks: 0 }
    }

    fn due(&mut self) -> usize {
        let per_tick = |ticks: usize| self.per_second * ticks / TICKS_PER_SECOND;
        let due = per_tick(self.ticks + 1) - per_tick(self.ticks);
        self.ticks += 1;
        due
    }
}

/// A client does not wait longer for anything. Longer than the proxy looks for an endpoint.
const PATIENCE: Duration = Duration::from_secs(15);
const TICKS_PER_SECOND: usize = 50;
const TICK: Duration = Duration::from_millis(1000 / TICKS_PER_SECOND as u64);
const PRINTED_ERRORS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_the_right_number() {
        for per_second in [1, 49, 50, 51, 5000] {
            let mut pace = Pace::new(per_second);

            for _ in 0..3 {
                assert_eq!((0..TICKS_PER_SECOND).map(|_| pace.due()).sum::<usize>(), per_second);
            }
        }
    }
}
