//! Limits that the operating system sets to the process.

use std::sync::Arc;
use std::time::Duration;

use meshlib::Drain;
use meshlib::observe::prometheus::Registry;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;
use tokio::sync::Semaphore;
use tokio::time;
use tokio::time::Instant;

use crate::kit::log;

/// Descriptors that connections leave to admin requests, discovery, files, pipes and connections that are kept ready: at most
/// a quarter of all.
const LEFT_FREE: u64 = 1024;
/// How often it is said that there is no room.
const PAUSE: Duration = Duration::from_secs(10);

/// Takes all descriptors that the hard limit allows: each connection needs two, and the usual soft limit of 1,024 is there
/// for programs that use `select`.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(target: log::PROCESS, %error, descriptors = limit.current, "cannot raise the limit of open descriptors");
    }
}

/// Room for so many connections. Who comes when it is full waits in the kernel's queue. A clone is the same.
#[derive(Clone, Debug)]
pub struct Room {
    free: Arc<Semaphore>,
    connections: usize,
    limit: Arc<str>,
}

impl Room {
    /// Room for `connections`, which `limit` allows: what it is called where it is set.
    pub fn new(limit: &str, connections: usize) -> Self {
        let connections = connections.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(connections)), connections, limit: limit.into() }
    }

    /// Room for as many as there are descriptors for, two for each: by the limit that holds now, and what is open already,
    /// so it is to be asked for when all sockets listen.
    pub fn of_process(registry: &Registry) -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64);
        let left = LEFT_FREE.min(descriptors / 4).saturating_add(open);
        let connections = descriptors.saturating_sub(left) / 2;
        let room = Self::new("descriptors", usize::try_from(connections).unwrap_or(usize::MAX));
        let help = "Connections that may still be taken before descriptors run out; at 0 clients wait.";
        let free = Arc::clone(&room.free);
        registry.gauge_fn("process_connections_free", help, &[], move || free.available_permits() as f64);
        room
    }

    /// For [`Server::share_limit`](meshlib::Server::share_limit).
    pub fn limit(&self) -> Arc<Semaphore> {
        Arc::clone(&self.free)
    }

    fn is_full(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// That it is full, if it is.
    pub fn problem(&self) -> Option<String> {
        let Self { connections, limit, .. } = self;
        self.is_full().then(|| {
            format!("no room for more than {connections} connections ({limit}): clients that come now wait")
        })
    }

    /// Says so every 10 s while it is full, until nobody is taken any more.
    pub async fn watch(self, drain: Drain) {
        let mut told: Option<Instant> = None;
        while time::timeout(Duration::from_secs(1), drain.started()).await.is_err() {
            if self.is_full() && told.is_none_or(|told| told.elapsed() >= PAUSE) {
                let (connections, limit) = (self.connections, &*self.limit);
                tracing::warn!(
                    target: log::PROCESS,
                    connections,
                    limit,
                    "no room for more connections: clients that come now wait"
                );
                told = Some(Instant::now());
            }
        }
    }
}
