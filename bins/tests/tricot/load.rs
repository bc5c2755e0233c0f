//! Clients that ask without a pause while something else happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ask::Client;
use crate::process::until;

/// How clients connect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connections {
    /// One of each client, for as long as it is kept open.
    Kept,
    /// One for each request.
    New,
}

/// What clients got.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many answers had a status.
    pub(crate) answers: BTreeMap<u16, usize>,
    /// Why requests had no answer.
    pub(crate) errors: Vec<String>,
}

impl Tally {
    /// How many requests were answered with 200.
    pub(crate) fn ok(&self) -> usize {
        self.answers.get(&200).copied().unwrap_or(0)
    }

    /// Panics unless there were answers, and all of them with 200.
    pub(crate) fn assert_all_ok(&self) {
        assert!(self.ok() > 0 && self.answers.len() == 1 && self.errors.is_empty(), "{self:?}");
    }
}

/// Clients that ask until they are told to stop.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<Tally>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    /// Starts so many clients of a host.
    pub(crate) fn start(client: &Client, host: &str, clients: usize, connections: Connections) -> Self {
        let (stop, stopped) = watch::channel(false);
        let answered = Arc::new(AtomicUsize::new(0));
        let mut load = Self { stop, clients: JoinSet::new(), answered: Arc::clone(&answered) };
        for _ in 0..clients {
            let asking =
                ask(client.clone(), host.to_owned(), connections, stopped.clone(), Arc::clone(&answered));
            load.clients.spawn(asking);
        }
        load
    }

    /// How many answers have come so far.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more answers have come.
    pub(crate) async fn more(&self, answers: usize) {
        let wanted = self.answered() + answers;
        until("further answers", async || self.answered() >= wanted).await;
    }

    /// Stops the clients, once they have the answers that they wait for.
    pub(crate) async fn stop(self) -> Tally {
        self.stop.send_replace(true);
        let mut all = Tally::default();
        for tally in self.clients.join_all().await {
            all.errors.extend(tally.errors);
            for (status, n) in tally.answers {
                *all.answers.entry(status).or_default() += n;
            }
        }
        all
    }
}

async fn ask(
    client: Client,
    host: String,
    connections: Connections,
    stopped: watch::Receiver<bool>,
    answered: Arc<AtomicUsize>,
) -> Tally {
    let mut tally = Tally::default();
    let mut kept = None;
    while !*stopped.borrow() {
        let conn = match kept.take() {
            Some(conn) => Ok(conn),
            None => client.connect(&host).await,
        };
        let answer = match conn {
            Err(error) => Err(format!("connecting: {error}")),
            Ok(mut conn) => match conn.get(&host, "/").await {
                Err(error) => Err(format!("asking: {error}")),
                Ok(answer) => {
                    let closes = answer.all("connection").contains(&"close");
                    kept = (connections == Connections::Kept && !closes).then_some(conn);
                    Ok(answer)
                }
            },
        };
        match answer {
            Ok(answer) => {
                *tally.answers.entry(answer.status).or_default() += 1;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => tally.errors.push(error),
        }
    }
    tally
}
