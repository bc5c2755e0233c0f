//! Does a proxy do its job at all? Asked once per proxy and job, before anything is measured.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime;
use tokio::time::{Duration, timeout};

use crate::host::Policy;
use crate::http;
use crate::load;
use crate::peer::{Kind, Peer};
use crate::stage::{Server, Stage, Target};
use crate::tls::Sessions;
use crate::wire::{MESSAGE, Wire, Wish};
use crate::workload::Profile;

/// Remembers who passed.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    results: HashMap<(String, Profile), Result<(), String>>,
}

impl Verified {
    /// The reason why `peer` cannot be measured at `profile`, if there is one.
    pub(crate) fn check(&mut self, stage: &Stage, peer: &Peer, profile: Profile) -> Result<(), String> {
        self.results
            .entry((peer.name.clone(), profile))
            .or_insert_with(|| verify(stage, peer, profile).map_err(|error| error.to_string()))
            .clone()
    }
}

fn verify(stage: &Stage, peer: &Peer, profile: Profile) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let right = stage.start(peer, profile, Server::Right, Policy::Throughput)?;
    runtime.block_on(async {
        let done = async {
            if profile.is_http() {
                fetch(stage, peer, &right, profile).await
            } else {
                transfer(stage, &right, profile).await
            }
        };
        timeout(WITHIN, done).await.unwrap_or_else(|_| Err(io::Error::other("it stalled")))
    })?;
    drop(right);
    if profile != Profile::Originate || peer.kind == Kind::Direct {
        return Ok(());
    }
    // Origination counts only if the certificate is checked.
    let untrusted = stage.start(peer, profile, Server::Untrusted, Policy::Throughput)?;
    let accepted = runtime.block_on(async {
        timeout(WITHIN, async { load::connect(untrusted.addr, None).await?.exchange().await }).await
    });
    if matches!(accepted, Ok(Ok(()))) {
        return Err(io::Error::other("it accepts a certificate of an unknown authority"));
    }
    Ok(())
}

/// A megabyte there and back with every byte compared, and the handshake looked at.
async fn transfer(stage: &Stage, target: &Target, profile: Profile) -> io::Result<()> {
    let tls = profile.client_tls().then(|| stage.identity.client(Sessions::Resume)).transpose()?;
    if profile == Profile::Balance {
        return load::connect(target.addr, None).await?.exchange().await;
    }
    let mut wire = load::connect(target.addr, tls.as_ref()).await?;
    if let Wire::Tls(stream) = &wire
        && stream.get_ref().1.protocol_version() != Some(ProtocolVersion::TLSv1_3)
    {
        return Err(io::Error::other("it does not speak TLS 1.3"));
    }
    let mut random = fastrand::Rng::with_seed(1);
    let data: Vec<u8> =
        Wish::Echo.message().into_iter().chain((0..MEGABYTE).map(|_| random.u8(..))).collect();
    let mut back = Vec::with_capacity(data.len());
    let (mut read, mut write) = tokio::io::split(&mut wire);
    let send = async {
        write.write_all(&data).await?;
        write.flush().await
    };
    let receive = async {
        while back.len() < data.len() {
            if read.read_buf(&mut back).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    };
    tokio::try_join!(send, receive)?;
    if back != data {
        return Err(io::Error::other("bytes were changed on the way"));
    }
    drop(wire);
    match tls {
        Some(tls) => resume(target, &tls).await,
        None => Ok(()),
    }
}

/// Bodies of several sizes over one connection, with every byte compared, and what servers are told about the client.
async fn fetch(stage: &Stage, peer: &Peer, target: &Target, profile: Profile) -> io::Result<()> {
    let tls = profile.client_tls().then(|| stage.identity.client(Sessions::Forget)).transpose()?;
    let mut wire = load::connect(target.addr, tls.as_ref()).await?;
    for size in [MESSAGE, 1, 100_000, MESSAGE] {
        if ask(&mut wire, &http::request(size)).await? != http::body(size) {
            return Err(io::Error::other("a body was changed on the way"));
        }
    }
    // Which costs as much as all else that is done with a small head.
    let told = ask(&mut wire, &http::request_told()).await?.len();
    if peer.kind != Kind::Direct && told != http::TOLD.len() {
        return Err(io::Error::other(format!("servers are told {told} of {:?}", http::TOLD)));
    }
    Ok(())
}

/// The body of the answer to a request.
async fn ask(wire: &mut Wire, request: &[u8]) -> io::Result<Vec<u8>> {
    wire.send(request).await?;
    let (mut answers, mut all) = (http::Answers::default(), Vec::new());
    let mut seen = 0;
    while answers.take(&all[seen..])? == 0 {
        seen = all.len();
        if wire.read_buf(&mut all).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let head = all.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
    Ok(all.split_off(head))
}

/// The tickets of the first connection must shorten a second one.
async fn resume(target: &Target, tls: &Arc<rustls::ClientConfig>) -> io::Result<()> {
    let mut wire = load::connect(target.addr, Some(tls)).await?;
    wire.exchange().await?;
    match &wire {
        Wire::Tls(stream) if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) => Ok(()),
        _ => Err(io::Error::other("it does not resume TLS sessions")),
    }
}

const WITHIN: Duration = Duration::from_secs(5);
const MEGABYTE: usize = 1 << 20;
