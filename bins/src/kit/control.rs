//! The runtime of everything but connections: discovery, admin pages, signals.

use tokio::runtime::Builder;

use crate::kit::cli::Failure;

/// Threads that read files and ask for addresses, which end after a while without work. Files that never answer, of each TLS
/// section one, must leave some for the rest.
const READERS: usize = 64;

/// Does a program's control work, on this thread, and returns what came of it.
///
/// What was started and still goes on then is left behind: after a second signal the process ends without it.
///
/// # Errors
///
/// What the work says, or that there can be no runtime.
pub fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().max_blocking_threads(READERS).build();
    let runtime = runtime.map_err(Failure::runtime)?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}
