//! Open loops: requests start at instants fixed in advance, whatever the answers do.
//!
//! Latency counts from the scheduled instant, so a stall is charged to every request it delays. A request
//! that never ends counts with the time it has waited.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::{Start, Work};
use crate::clock::Alarm;
use crate::counters;
use crate::histogram::Histogram;
use crate::talk::Conversation;
use crate::tls::Sessions;
use crate::wire::{MESSAGE, Wire};

/// Evenly spaced messages, in turn over kept connections.
pub(super) async fn kept(
    work: &Work,
    start: &Start,
    connections: usize,
    per_second: f64,
) -> io::Result<Histogram> {
    let alarm = Alarm::new()?;
    let wires = work.connect_all(connections).await?;
    let window = Window::new(start.now(), work);
    let latencies = Arc::new(Mutex::new(Histogram::new()));
    let mut lanes = Vec::with_capacity(connections);
    let mut readers = JoinSet::new();
    for wire in wires {
        let (reader, writer) = tokio::io::split(wire);
        let waiting = Waiting::default();
        lanes.push((writer, waiting.clone()));
        let (latencies, work) = (Arc::clone(&latencies), work.clone());
        readers.spawn(async move {
            if let Err(error) = read(reader, &waiting, &work, window, &latencies).await {
                work.counters.fail(error);
            }
        });
    }

    let gap = Duration::from_secs_f64(1.0 / per_second);
    let question = work.talk.question();
    let mut due = window.start;
    for turn in 0.. {
        if due >= window.end {
            break;
        }
        alarm.until(due).await?;
        let (writer, waiting) = &mut lanes[turn % connections];
        waiting.lock().push_back(due);
        // It fits unless the connection is dead or has stalled for a long time; both show as waiting requests.
        let sent = async { writer.write_all(&question).await.and(writer.flush().await) };
        if !matches!(sent.now_or_never(), Some(Ok(()))) {
            work.counters.fail("a message could not be sent");
        }
        due += gap;
        // `until` does not wait when it is late; readers need their turn all the same.
        tokio::task::yield_now().await;
    }

    let last_call = Instant::now() + GRACE;
    while Instant::now() < last_call && lanes.iter().any(|(_, waiting)| !waiting.lock().is_empty()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut latencies = lock(&latencies).clone();
    let unanswered = lanes.iter().flat_map(|(_, waiting)| waiting.lock().clone());
    for due in unanswered.filter(|due| window.measures(*due)) {
        latencies.record(due.elapsed());
    }
    Ok(latencies)
}

/// Requests at random (Poisson) instants: messages on a connection each, HTTP on connections that are kept.
pub(super) async fn arrivals(work: &Work, start: &Start, per_second: f64) -> io::Result<Histogram> {
    let alarm = Alarm::new()?;
    let window = Window::new(start.now(), work);
    let latencies = Arc::new(Mutex::new(Histogram::new()));
    let mut tasks = JoinSet::new();
    // The same instants for every proxy and round.
    let mut random = fastrand::Rng::with_seed(7);
    let tls = work.tls(Sessions::Resume)?;
    let kept = Arc::new(Mutex::new(Vec::<Conversation>::new()));
    let mut due = window.start;
    loop {
        due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / per_second);
        if due >= window.end {
            break;
        }
        alarm.until(due).await?;
        let (work, latencies) = (work.clone(), Arc::clone(&latencies));
        let (tls, kept) = (tls.clone(), Arc::clone(&kept));
        tasks.spawn(async move {
            let request = async {
                let last = lock(&kept).pop();
                let mut conversation = match last {
                    Some(conversation) => conversation,
                    None => work.begin(tls.as_ref()).await?,
                };
                conversation.ask().await?;
                if work.profile.is_http() {
                    lock(&kept).push(conversation);
                }
                io::Result::Ok(())
            };
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

/// The scheduled instants of the unanswered messages of a connection, oldest first.
#[derive(Clone, Debug, Default)]
struct Waiting(Arc<Mutex<VecDeque<Instant>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        lock(&self.0)
    }
}

/// Reads the answers of a connection, which come in order.
async fn read(
    mut reader: ReadHalf<Wire>,
    waiting: &Waiting,
    work: &Work,
    window: Window,
    latencies: &Mutex<Histogram>,
) -> io::Result<()> {
    let mut answers = work.talk.answers();
    let mut buf = [0; 64 * MESSAGE];
    loop {
        let n = reader.read(&mut buf).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let now = Instant::now();
        let mut waiting = waiting.lock();
        // More answers than questions would be the proxy's fault, not a reason to panic.
        let answered = waiting.len().min(answers.take(&buf[..n])?);
        for due in waiting.drain(..answered) {
            counters::add(&work.counters.done, 1);
            if window.measures(due) {
                lock(latencies).record(now.saturating_duration_since(due));
            }
        }
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
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long unanswered requests are waited for after the last was sent.
const GRACE: Duration = Duration::from_secs(2);
