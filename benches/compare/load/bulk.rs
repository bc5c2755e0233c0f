//! Bytes in one direction, as many as fit.

use std::io;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Start, Work};
use crate::wire::{self, Wire, Wish};
use crate::workload::Profile;

/// The client sends. Where the proxy seals towards the backend, the backend drops ciphertext.
pub(super) async fn up(work: &Work, start: &Start, connections: usize) -> io::Result<()> {
    let wish = if work.profile == Profile::Originate { Wish::SinkRaw } else { Wish::Sink };
    let mut tasks = JoinSet::new();
    for mut wire in work.connect_all(connections).await? {
        let counters = Arc::clone(&work.counters);
        tasks.spawn(async move {
            if let Err(error) = begin_up(&mut wire, wish, &counters.sent).await {
                counters.fail(error);
            }
        });
    }
    work.run_closed(start, tasks).await;
    Ok(())
}

async fn begin_up(wire: &mut Wire, wish: Wish, sent: &std::sync::atomic::AtomicU64) -> io::Result<()> {
    wire.send(&wish.message()).await?;
    wire::pour(wire, sent).await
}

/// The client receives and drops: after the handshake even ciphertext, because opening it would make the load
/// core the limit.
pub(super) async fn down(work: &Work, start: &Start, connections: usize) -> io::Result<()> {
    let mut tasks = JoinSet::new();
    for mut wire in work.connect_all(connections).await? {
        let counters = Arc::clone(&work.counters);
        tasks.spawn(async move {
            let received = async {
                wire.send(&Wish::Source.message()).await?;
                wire::discard(&wire.into_socket(), &counters.received).await
            };
            match received.await {
                Ok(()) => counters.fail("the stream ended"),
                Err(error) => counters.fail(error),
            }
        });
    }
    work.run_closed(start, tasks).await;
    Ok(())
}
