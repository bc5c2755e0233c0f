//! Connections that come, ask once and go.

use std::io;
use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::Duration;
use tokio_rustls::TlsStream;

use super::{Start, Work};
use crate::counters;
use crate::tls::Sessions;
use crate::wire::Wire;

/// `workers` loops, each with one connection at a time. Each has its own TLS tickets, so that none takes the
/// last ticket of another.
pub(super) async fn run(work: &Work, start: &Start, workers: usize, sessions: Sessions) -> io::Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let tls = work.tls(sessions)?;
        let work = work.clone();
        tasks.spawn(async move {
            loop {
                if let Err(error) = once(&work, tls.as_ref()).await {
                    work.counters.fail(error);
                    // A proxy that refuses must not turn the loop into a busy one.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
    }
    work.run_closed(start, tasks).await;
    Ok(())
}

async fn once(work: &Work, tls: Option<&Arc<ClientConfig>>) -> io::Result<()> {
    let mut conversation = work.begin(tls).await?;
    conversation.ask().await?;
    if let Wire::Tls(mut stream) = conversation.into_wire() {
        if resumed(&stream) {
            counters::add(&work.counters.resumed, 1);
        }
        stream.shutdown().await?;
    }
    counters::add(&work.counters.done, 1);
    Ok(())
}

fn resumed<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
}
