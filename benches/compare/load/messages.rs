//! Small messages on kept connections, each sent when the last answer has come.

use std::io;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Start, Work};
use crate::counters;

/// One exchange at a time on each of `connections`.
pub(super) async fn run(work: &Work, start: &Start, connections: usize) -> io::Result<()> {
    let mut tasks = JoinSet::new();
    for mut wire in work.connect_all(connections).await? {
        let counters = Arc::clone(&work.counters);
        tasks.spawn(async move {
            loop {
                match wire.exchange().await {
                    Ok(()) => counters::add(&counters.done, 1),
                    Err(error) => return counters.fail(error),
                }
            }
        });
    }
    work.run_closed(start, tasks).await;
    Ok(())
}
