//! Threads that serve connections.
//!
//! Each worker is a thread with a runtime of its own, and each has its own listening socket of every address; the kernel
//! spreads connections over them. A connection stays on its thread, so nothing on its path is shared but counters.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use meshlib::ListenOptions;
use meshlib::Listener;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time;

use crate::kit::ending::Ending;
use crate::kit::log;

/// What a worker does, on its own runtime, until it ends.
pub struct Job {
    name: String,
    work: BoxFuture<'static, io::Result<()>>,
}

impl Job {
    /// Names a piece of work, for when it fails.
    pub fn new(name: impl Into<String>, work: impl Future<Output = io::Result<()>> + Send + 'static) -> Self {
        Self { name: name.into(), work: Box::pin(work) }
    }

    /// Works to the end. A panic is a failure like others.
    async fn run(self) -> Result<(), JobError> {
        // Unwind safety: the work is not touched again after a panic.
        let outcome = AssertUnwindSafe(self.work).catch_unwind().await;
        let result = outcome.unwrap_or_else(|_| Err(io::Error::other("it panicked")));
        result.map_err(|source| JobError { job: self.name, source })
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A job failed.
#[derive(Debug, thiserror::Error)]
#[error("{job} failed")]
#[non_exhaustive]
pub struct JobError {
    /// Its name.
    pub job: String,
    /// What went wrong.
    pub source: io::Error,
}

/// One worker per processor that this process may use.
pub fn usual() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Opens a listening socket for each worker. Returns where they listen.
///
/// # Errors
///
/// What the operating system says, in particular if somebody listens there already.
pub fn listen(
    addr: SocketAddr,
    options: &ListenOptions,
    workers: usize,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let first = Listener::open(addr, options)?;
    let local = first.local_addr()?;
    if workers == 1 {
        return Ok((local, vec![first]));
    }
    // The first socket has shown that nobody else listens here; sockets that share a port would not notice.
    drop(first);
    let options = options.clone().with_reuse_port(true);
    let sockets = (0..workers).map(|_| Listener::open(local, &options)).collect::<io::Result<_>>()?;
    Ok((local, sockets))
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
    threads: Vec<JoinHandle<()>>,
    failures: mpsc::UnboundedReceiver<JobError>,
}

/// Gives workers more to do. They end when nobody has it any more and their jobs have ended.
#[derive(Debug)]
pub struct Hands(Vec<mpsc::UnboundedSender<Job>>);

impl Hands {
    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Gives each worker a job. What is given to one that has failed as a whole is dropped.
    pub fn give(&self, jobs: impl IntoIterator<Item = Job>) {
        for (worker, job) in self.0.iter().zip(jobs) {
            // The failure itself has been told.
            let _ = worker.send(job);
        }
    }
}

impl Workers {
    /// Starts a thread for each list of jobs. A job that fails ends none of the others.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started.
    pub fn start(jobs: Vec<Vec<Job>>) -> io::Result<Self> {
        let (workers, hands) = Self::waiting(jobs.len())?;
        for (worker, jobs) in hands.0.iter().zip(jobs) {
            for job in jobs {
                // A worker whose runtime cannot be says so itself.
                let _ = worker.send(job);
            }
        }
        Ok(workers)
    }

    /// Starts threads that wait for jobs.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started.
    pub fn waiting(count: usize) -> io::Result<(Self, Hands)> {
        let (failed, failures) = mpsc::unbounded_channel();
        let (mut threads, mut hands) = (Vec::new(), Vec::new());
        for n in 0..count {
            let (give, jobs) = mpsc::unbounded_channel();
            let (name, failed) = (format!("worker-{n}"), failed.clone());
            threads.push(thread::Builder::new().name(name.clone()).spawn(move || work(name, jobs, &failed))?);
            hands.push(give);
        }
        Ok((Self { threads, failures }, Hands(hands)))
    }

    /// Waits for the next failure of a job. `None`: all workers have ended, and no more is to come.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn failure(&mut self) -> Option<JobError> {
        self.failures.recv().await
    }

    /// Waits until all have ended. A job that fails begins the end of the program.
    ///
    /// # Errors
    ///
    /// The first job that failed.
    pub async fn until_ended(mut self, ending: &Ending) -> Result<(), JobError> {
        let mut first = None;
        while let Some(error) = self.failure().await {
            tracing::error!(target: log::PROCESS, error = %log::chain(&error), grace = ?ending.grace(), "draining");
            ending.begin();
            first.get_or_insert(error);
        }
        first.map_or(Ok(()), Err)?;
        // It does not block: what told of failures is the last that the threads let go of.
        self.join().map_err(|source| JobError { job: "a worker".into(), source })
    }

    /// Waits until all have ended. Blocks the thread.
    ///
    /// # Errors
    ///
    /// If a thread panicked outside of its jobs.
    pub fn join(self) -> io::Result<()> {
        for thread in self.threads {
            thread.join().map_err(|_| io::Error::other("a worker thread panicked"))?;
        }
        Ok(())
    }
}

/// Does the jobs of one worker and reports each that fails when it does.
fn work(name: String, mut jobs: mpsc::UnboundedReceiver<Job>, failed: &mpsc::UnboundedSender<JobError>) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            // Whether anybody listens any more is not for the worker to judge.
            let _ = failed.send(JobError { job: name, source });
            return;
        }
    };
    runtime.spawn(tick());
    runtime.block_on(async move {
        let mut running = JoinSet::new();
        loop {
            let job = tokio::select! {
                job = jobs.recv() => job,
                Some(_) = running.join_next() => continue,
            };
            let Some(job) = job else { break };
            let failed = failed.clone();
            running.spawn(async move {
                if let Err(error) = job.run().await {
                    let _ = failed.send(error);
                }
            });
        }
        while running.join_next().await.is_some() {}
    });
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// A job that tells when it has begun, and ends when told.
    fn patient() -> (Job, oneshot::Receiver<()>, oneshot::Sender<()>) {
        let (began_tx, began) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let job = Job::new("patient", async {
            began_tx.send(()).unwrap();
            ended.await.map_err(io::Error::other)
        });
        (job, began, end)
    }

    /// The failure of a job that runs beside a patient one on the same worker and another elsewhere.
    async fn failure_of(job: Job) -> JobError {
        let (beside, beside_began, end_beside) = patient();
        let (elsewhere, elsewhere_began, end_elsewhere) = patient();
        let mut workers = Workers::start(vec![vec![job, beside], vec![elsewhere]]).unwrap();

        // Both others still run when it is known.
        let failure = workers.failure().await.unwrap();

        beside_began.await.unwrap();
        elsewhere_began.await.unwrap();
        end_beside.send(()).expect("it runs");
        end_elsewhere.send(()).expect("it runs");
        assert!(workers.failure().await.is_none());
        workers.join().unwrap();
        failure
    }

    #[tokio::test]
    async fn an_error_is_told_at_once_and_ends_no_other_job() {
        let failure =
            failure_of(Job::new("fragile", async { Err(io::ErrorKind::InvalidInput.into()) })).await;

        assert_eq!((failure.job.as_str(), failure.source.kind()), ("fragile", io::ErrorKind::InvalidInput));
    }

    #[tokio::test]
    async fn a_panic_is_told_at_once_and_ends_no_other_job() {
        let failure = failure_of(Job::new("buggy", async { panic!("a bug of a job") })).await;

        assert_eq!(failure.to_string(), "buggy failed");
        assert_eq!(failure.source.to_string(), "it panicked");
    }

    #[tokio::test]
    async fn every_failure_is_told() {
        let failing = |_| Job::new("fragile", async { Err(io::ErrorKind::InvalidInput.into()) });
        let jobs = (0..2).map(|_| (0..3).map(failing).collect()).collect();
        let mut workers = Workers::start(jobs).unwrap();

        let mut failures = 0;
        while workers.failure().await.is_some() {
            failures += 1;
        }

        assert_eq!(failures, 6);
        workers.join().unwrap();
    }

    #[tokio::test]
    async fn jobs_are_taken_for_as_long_as_somebody_may_give_them() {
        let (mut workers, hands) = Workers::waiting(2).unwrap();
        let (first, began_first, end_first) = patient();
        let (second, began_second, end_second) = patient();
        hands.give([first]);
        began_first.await.unwrap();
        end_first.send(()).expect("it runs");

        hands.give([Job::new("none", async { Ok(()) }), second]);
        drop(hands);

        began_second.await.unwrap();
        end_second.send(()).expect("it runs");
        assert!(workers.failure().await.is_none());
        workers.join().unwrap();
    }

    #[tokio::test]
    async fn workers_without_jobs_end() {
        let mut workers = Workers::start(vec![Vec::new(), Vec::new()]).unwrap();

        assert!(workers.failure().await.is_none());
        workers.join().unwrap();
        assert!(Workers::start(Vec::new()).unwrap().failure().await.is_none());
    }
}
