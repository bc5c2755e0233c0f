//! Small messages on kept connections, each sent when the last answer has come.

use std::io;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Start, Work};
use crate::counters;
use crate::talk::Conversation;

/// One exchange at a time on each of `connections`.
pub(super) async fn run(work: &Work, start: &Start, connections: usize) -> io::Result<()> {
    let mut tasks = JoinSet::new();
    for wire in work.connect_all(connections).await? {
        let mut conversation = Conversation::new(wire, work.talk);
        let counters = Arc::clone(&work.counters);
        tasks.spawn(async move {
            loop {
                match conversation.ask().await {
                    Ok(()) => counters::add(&counters.done, 1),
                    Err(error) => return counters.fail(error),
                }
            }
        });
    }
    work.run_closed(start, tasks).await;
    Ok(())
}
