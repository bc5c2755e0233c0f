//! The runtime of everything but connections: discovery, admin pages, signals.

use std::io;

use tokio::runtime::Builder;

/// Threads that read files, which end after a while without work.
const READERS: usize = 8;

/// Does a program's control work, on this thread, and returns what came of it.
///
/// What was started and still goes on then is left behind: after a second signal the process ends without it.
///
/// # Errors
///
/// If there can be no runtime.
pub fn run<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(READERS).build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(done)
}
