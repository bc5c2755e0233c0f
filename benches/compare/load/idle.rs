//! Connections that do one exchange and then only exist.

use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Start, Work};
use crate::counters;
use crate::tls::Sessions;

/// Opens them all, says so, and holds them for the rest of the sample.
pub(super) async fn run(work: &Work, start: &Start) -> io::Result<()> {
    let tls = work.tls(Sessions::Forget)?;
    let at_a_time = Arc::new(Semaphore::new(AT_A_TIME));
    let mut tasks = JoinSet::new();
    for _ in 0..work.idle_connections {
        let permit = Arc::clone(&at_a_time).acquire_owned().await.map_err(io::Error::other)?;
        let (work, tls) = (work.clone(), tls.clone());
        tasks.spawn(async move {
            let _permit = permit;
            let mut conversation = work.begin(tls.as_ref()).await?;
            conversation.ask().await?;
            io::Result::Ok(conversation.into_wire())
        });
    }
    let mut held = Vec::with_capacity(work.idle_connections);
    while let Some(done) = tasks.join_next().await {
        held.push(done.map_err(io::Error::other)??);
        counters::add(&work.counters.done, 1);
    }
    work.run_closed(start, JoinSet::from_iter([std::future::pending()])).await;
    drop(held);
    Ok(())
}

/// Connections being opened at the same time.
const AT_A_TIME: usize = 64;
