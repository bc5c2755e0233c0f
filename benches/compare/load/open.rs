//! Open loops: requests start at instants fixed in advance, whatever the answers do.
//!
//! Latency counts from the scheduled instant, so a stall is charged to every request it delays. A request
//! that never ends counts with the time it has waited.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::{Start, Work};
use crate::clock::Alarm;
use crate::counters;
use crate::histogram::Histogram;
use crate::wire::{MESSAGE, Wish};

/// Evenly spaced messages, in turn over kept connections.
pub(super) async fn kept(
    work: &Work,
    start: &Start,
    connections: usize,
    per_second: f64,
) -> io::Result<Histogram> {
    let alarm = Alarm::new()?;
    let mut lanes = Vec::with_capacity(connections);
    for wire in work.connect_all(connections).await? {
        lanes.push(Arc::new(Lane { socket: wire.into_socket(), waiting: Mutex::default() }));
    }
    let window = Window::new(start.now(), work);
    let latencies = Arc::new(Mutex::new(Histogram::new()));
    let mut readers = JoinSet::new();
    for lane in &lanes {
        let (lane, latencies, work) = (Arc::clone(lane), Arc::clone(&latencies), work.clone());
        readers.spawn(async move {
            if let Err(error) = lane.read(&work, window, &latencies).await {
                work.counters.fail(error);
            }
        });
    }

    let gap = Duration::from_secs_f64(1.0 / per_second);
    let message = Wish::Echo.message();
    let mut due = window.start;
    for lane in lanes.iter().cycle() {
        if due >= window.end {
            break;
        }
        alarm.until(due).await?;
        lane.lock().push_back(due);
        // 64 B fit unless the connection is dead or has stalled for a long time; both show as waiting
        // requests.
        if !matches!(lane.socket.try_write(&message), Ok(MESSAGE)) {
            work.counters.fail("a message could not be sent");
        }
        due += gap;
        // `until` does not wait when it is late; readers need their turn all the same.
        tokio::task::yield_now().await;
    }

    let last_call = Instant::now() + GRACE;
    while Instant::now() < last_call && lanes.iter().any(|lane| !lane.lock().is_empty()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut latencies = lock(&latencies).clone();
    for due in lanes.iter().flat_map(|lane| lane.lock().clone()).filter(|due| window.measures(*due)) {
        latencies.record(due.elapsed());
    }
    Ok(latencies)
}

/// One connection per request, at random (Poisson) instants.
pub(super) async fn arrivals(work: &Work, start: &Start, per_second: f64) -> io::Result<Histogram> {
    let alarm = Alarm::new()?;
    let window = Window::new(start.now(), work);
    let latencies = Arc::new(Mutex::new(Histogram::new()));
    let mut tasks = JoinSet::new();
    // The same instants for every proxy and round.
    let mut random = fastrand::Rng::with_seed(7);
    let mut due = window.start;
    loop {
        due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / per_second);
        if due >= window.end {
            break;
        }
        alarm.until(due).await?;
        let (work, latencies) = (work.clone(), Arc::clone(&latencies));
        tasks.spawn(async move {
            let request = async { work.connect(None).await?.exchange().await };
            match tokio::time::timeout_at(window.end + GRACE, request).await {
                Ok(Ok(())) => counters::add(&work.counters.done, 1),
                Ok(Err(error)) => work.counters.fail(error),
                Err(_late) => work.counters.fail("a request did not end"),
            }
            if window.measures(due) {
                lock(&latencies).record(due.elapsed());
            }
        });
        tokio::task::yield_now().await;
    }
    while tasks.join_next().await.is_some() {}
    let latencies = lock(&latencies).clone();
    Ok(latencies)
}

/// A kept connection and the scheduled instants of its unanswered messages, oldest first.
#[derive(Debug)]
struct Lane {
    socket: TcpStream,
    waiting: Mutex<VecDeque<Instant>>,
}

impl Lane {
    /// Answers come in order, 64 B each.
    async fn read(&self, work: &Work, window: Window, latencies: &Mutex<Histogram>) -> io::Result<()> {
        let mut buf = [0; 64 * MESSAGE];
        let mut bytes = 0;
        loop {
            self.socket.readable().await?;
            match self.socket.try_read(&mut buf) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => bytes += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            let now = Instant::now();
            let mut waiting = self.lock();
            // More answers than questions would be the proxy's fault, not a reason to panic.
            let answered = waiting.len().min(bytes / MESSAGE);
            for due in waiting.drain(..answered) {
                counters::add(&work.counters.done, 1);
                if window.measures(due) {
                    lock(latencies).record(now.saturating_duration_since(due));
                }
            }
            bytes %= MESSAGE;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Instant>> {
        lock(&self.waiting)
    }
}

/// When requests start, and which of them are measured.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: Instant,
    measured: Instant,
    end: Instant,
}

impl Window {
    fn new(start: Instant, work: &Work) -> Self {
        let measured = start + work.warm_up;
        Self { start, measured, end: measured + work.window }
    }

    fn measures(self, due: Instant) -> bool {
        self.measured <= due && due < self.end
    }
}

/// All threads that hold these locks are this one.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long unanswered requests are waited for after the last was sent.
const GRACE: Duration = Duration::from_secs(2);
