//! Threads that serve connections.
//!
//! Each worker is a thread with a runtime of its own, and each has its own listening socket of every address; the kernel
//! spreads connections over them. A connection stays on its thread, so nothing on its path is shared but counters.

use std::io;
use std::num::NonZeroUsize;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::future::try_join_all;
use tokio::runtime::Builder;
use tokio::time;

/// A job of a worker: made elsewhere, run on the worker's runtime until it ends.
pub type Job = Box<dyn FnOnce() -> BoxFuture<'static, io::Result<()>> + Send>;

/// One worker per processor that this process may use.
pub fn usual() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Ends with its runtime.
///
/// tokio (1.54) wakes the thread's own poller, which is a system call, for each timer that is to end before the next one
/// that it sleeps until. Every connection sets timers of seconds and drops them in microseconds; with this one in place
/// none of them is the next. Costs ten wake-ups a second, and saves three system calls per connection.
async fn tick() {
    loop {
        time::sleep(Duration::from_millis(100)).await;
    }
}

/// Running workers.
#[derive(Debug)]
#[must_use = "workers must be waited for"]
pub struct Workers {
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Workers {
    /// Starts a thread for each list of jobs.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started.
    pub fn start(jobs: Vec<Vec<Job>>) -> io::Result<Self> {
        let threads = jobs.into_iter().enumerate().map(|(n, jobs)| {
            thread::Builder::new().name(format!("worker-{n}")).spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                runtime.spawn(tick());
                runtime.block_on(try_join_all(jobs.into_iter().map(|job| job()))).map(drop)
            })
        });
        Ok(Self { threads: threads.collect::<io::Result<_>>()? })
    }

    /// Waits until all have ended. Blocks the thread.
    ///
    /// # Errors
    ///
    /// The first error of a job.
    pub fn join(self) -> io::Result<()> {
        let mut first = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker thread panicked")));
            first = first.and(ended);
        }
        first
    }
}
