//! The loop behind a manager: starts what is due, follows announcements, cleans up.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::task::JoinError;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::Instant;

use super::Shared;
use super::clock;
use super::limits::Wait;
use super::plan::Phase;
use super::record::Announcement;
use super::record::Failures;
use crate::drain::Draining;
use crate::error::Chain;
use crate::store::Entry;
use crate::store::Read;
use crate::store::StoreError;
use crate::store::When;

/// Most names whose certificate is read at a time.
const MAX_READS: usize = 16;
/// Most questions to the authority about renewals at a time.
const MAX_LOOKS: usize = 4;
/// The longest sleep: a clock that was set is noticed after it.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// When a certificate is read again that could not be.
const LOAD_AGAIN: Duration = Duration::from_secs(1);
/// How often all keys are listed: for certificates that nobody announced, and for old ones.
const SWEEP: Duration = Duration::from_secs(3600);
/// The same after it failed.
const SWEEP_AGAIN: Duration = Duration::from_secs(10);
/// How long a certificate that nobody wants stays in the store after it has expired; a failure that is over, too.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

type Announcements = BoxStream<'static, Result<Arc<[Entry]>, StoreError>>;

/// How much of each kind of work is under way.
#[derive(Debug, Default)]
pub(super) struct Busy {
    reads: AtomicUsize,
    looks: AtomicUsize,
    orders: AtomicUsize,
}

fn reads(busy: &Busy) -> &AtomicUsize {
    &busy.reads
}

fn looks(busy: &Busy) -> &AtomicUsize {
    &busy.looks
}

fn orders(busy: &Busy) -> &AtomicUsize {
    &busy.orders
}

impl Shared {
    /// Works until the drain begins, then finishes the orders that are under way, unless it is forced.
    pub(super) async fn run(self: &Arc<Self>, draining: &Draining) {
        let (mut looking, mut ordering) = (JoinSet::new(), JoinSet::new());
        let mut announcements: Announcements = self.store.watch(&self.layout.announcements());
        let (mut following, mut paused_until) = (true, Instant::now());
        let mut seen = HashMap::new();
        let mut next_sweep = Instant::now();
        let mut outlast = pin!(self.outlast());
        while !draining.is_started() {
            let stalled = self.outage.is_on();
            if next_sweep <= Instant::now() && !stalled {
                next_sweep = Instant::now() + SWEEP;
                let shared = Arc::clone(self);
                looking.spawn(async move { shared.sweep().await });
            }
            let wait = self.start_looks(&mut looking).min(self.start_order(&mut ordering, draining));
            tokio::select! {
                biased;
                () = draining.started() => break,
                // A store that fails may say so again and again.
                entries = next_after(paused_until, &mut announcements), if following => match entries {
                    Some(Ok(entries)) => {
                        if self.announced(&entries, &mut seen) == Announced::SomeGone {
                            let shared = Arc::clone(self);
                            looking.spawn(async move { shared.look_for_loss().await });
                        }
                    }
                    Some(Err(error)) => {
                        tracing::debug!(error = %Chain(&error), "the announcements may be out of date");
                        paused_until = Instant::now() + LOAD_AGAIN;
                    }
                    None => following = false,
                },
                Some(done) = looking.join_next() => match done {
                    Ok(Done::Swept(false)) => next_sweep = Instant::now() + SWEEP_AGAIN,
                    done => said(done),
                },
                Some(done) = ordering.join_next() => said(done),
                // Wakes us when the store is back.
                never = &mut outlast => match never {},
                () = self.wake.notified() => {}
                () = time::sleep(wait) => {}
                () = time::sleep_until(next_sweep), if !stalled => {}
            }
        }
        // Whoever comes next looks by himself.
        looking.shutdown().await;
        // What is dropped gives its lock back, and the lock takes the proofs along.
        draining.until_forced(async { while ordering.join_next().await.is_some() {} }).await;
    }

    /// Starts what looks at names that are due. Returns how long there is nothing more to start, if nobody says anything.
    fn start_looks(self: &Arc<Self>, jobs: &mut JoinSet<Done>) -> Duration {
        let now = self.now();
        let stalled = self.outage.is_on();
        // What is spawned on a runtime that ends is dropped at once, and wants the plan: nobody may hold it then.
        while self.busy.reads.load(Ordering::Relaxed) < MAX_READS {
            let check = self.plan().next_check(now);
            if let Some(name) = check {
                let reading = Working::on(self, reads, Some(&name));
                jobs.spawn(async move {
                    let phase = reading.shared.check(&name).await;
                    reading.done(&name, phase)
                });
                continue;
            }
            let load = if stalled { None } else { self.plan().next_load() };
            if let Some(name) = load {
                let reading = Working::on(self, reads, None);
                jobs.spawn(async move {
                    match reading.shared.load(&name).await {
                        Ok(_) => reading.shared.plan().touch(&name),
                        Err(error) => {
                            tracing::debug!(%name, error = %Chain(&error), "cannot read a certificate");
                            // It will not be announced again.
                            match error {
                                StoreError::Unreachable(_) => reading.shared.store_fails(&error),
                                _ => time::sleep(LOAD_AGAIN).await,
                            }
                            reading.shared.plan().load(name);
                        }
                    }
                    Done::Worked
                });
            } else {
                break;
            }
        }
        while self.busy.looks.load(Ordering::Relaxed) < MAX_LOOKS {
            let look = self.plan().next_look(now);
            let Some(name) = look else { break };
            let looking = Working::on(self, looks, None);
            jobs.spawn(async move {
                looking.shared.look(&name).await;
                Done::Worked
            });
        }
        let next = self.plan().next_time().and_then(|at| at.duration_since(now).ok());
        next.unwrap_or(LONGEST_SLEEP)
    }

    /// Starts an order if one may be placed. Returns how long none may be.
    fn start_order(self: &Arc<Self>, jobs: &mut JoinSet<Done>, draining: &Draining) -> Duration {
        let mut wait = LONGEST_SLEEP;
        if self.outage.is_on() {
            return wait;
        }
        let next = self.plan().next_order(|name| {
            self.limits.begin(name).map_err(|reason| {
                if let Wait::Until(at) = reason {
                    wait = wait.min(at.saturating_duration_since(Instant::now()));
                }
                reason == Wait::Domain
            })
        });
        if let Some((name, permit)) = next {
            let (ordering, ending) = (Working::on(self, orders, Some(&name)), draining.clone());
            jobs.spawn(async move {
                let phase = ordering.shared.order_step(&name, permit, &ending).await;
                ordering.done(&name, phase)
            });
            // There may be another one.
            wait = Duration::ZERO;
        }
        wait
    }

    /// Loads what others have announced.
    fn announced(&self, entries: &[Entry], seen: &mut HashMap<Arc<str>, u64>) -> Announced {
        let prefix = self.layout.announcements();
        let mut plan = self.plan();
        let before = seen.len();
        seen.retain(|key, _| entries.binary_search_by(|entry| entry.key.cmp(key)).is_ok());
        let announced = if seen.len() < before { Announced::SomeGone } else { Announced::More };
        for entry in entries {
            if seen.insert(Arc::clone(&entry.key), entry.version) == Some(entry.version) {
                continue;
            }
            let Some(name) = entry.key.strip_prefix(&prefix).and_then(super::names::host_name) else {
                continue;
            };
            let held = self.certs.certificate(&name);
            let known = held.as_ref().is_some_and(|held| {
                Announcement::parse(&entry.value).is_ok_and(|news| news.fingerprint == held.fingerprint)
            });
            if !known && (self.options.preload || held.is_some() || plan.is_known(&name)) {
                plan.load(name.into());
            } else if !known {
                self.certs.appeared(&name);
            }
        }
        announced
    }

    /// Announcements have gone: perhaps everything has.
    async fn look_for_loss(&self) -> Done {
        if let Err(error) = self.restore_if_allowed().await {
            // It is looked at again when it answers.
            self.store_fails(&error);
        }
        Done::Worked
    }

    /// Loads what nobody has announced, and deletes what is long over.
    async fn sweep(&self) -> Done {
        match self.try_sweep().await {
            Ok(()) => Done::Swept(true),
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "cannot list the certificates");
                self.store_fails(&error);
                Done::Swept(false)
            }
        }
    }

    pub(super) async fn try_sweep(&self) -> Result<(), StoreError> {
        self.restore_if_allowed().await?;
        self.learn_account().await?;
        let (prefix, held) = (self.layout.certificates(), self.certs.all());
        let keys = self.store.keys(&prefix).await?;
        self.note_deleted(&held, &keys).await?;
        for key in keys {
            let Some(name) = key.strip_prefix(&prefix).and_then(super::names::host_name) else { continue };
            if self.options.preload && self.certs.certificate(&name).is_none() {
                self.load(&name).await?;
                self.plan().touch(&name);
                self.wake.notify_one();
            }
            if self.certs.certificate(&name).is_none_or(|held| self.is_over(held.not_after)) {
                self.delete_old(&name).await?;
            }
        }
        let prefix = self.layout.failures();
        for key in self.store.keys(&prefix).await? {
            let Some(entry) = self.store.get(&key, Read::Latest).await? else { continue };
            let now = self.now();
            let over = Failures::parse(&entry.value).map_or(now, |failures| failures.until(now));
            if self.is_over(over) {
                self.store.delete(&key, When::Version(entry.version)).await?;
            }
        }
        for certificate in self.certs.all() {
            let unwanted = !self.plan().is_known(&certificate.name);
            if unwanted && self.is_over(certificate.not_after) {
                self.certs.remove(&certificate.name);
            }
        }
        Ok(())
    }

    /// Deletes a certificate that nobody wants, if it has expired long ago.
    async fn delete_old(&self, name: &str) -> Result<(), StoreError> {
        if self.plan().is_known(name) {
            return Ok(());
        }
        let key = self.layout.certificate(name);
        let Some(entry) = self.store.get(&key, Read::Latest).await? else { return Ok(()) };
        let Some(not_after) = not_after(&entry.value) else { return Ok(()) };
        if self.is_over(not_after) && self.store.delete(&key, When::Version(entry.version)).await? {
            tracing::info!(name, "deleted an old certificate");
            self.store.delete(&self.layout.announcement(name), When::Always).await?;
        }
        Ok(())
    }

    fn is_over(&self, end: SystemTime) -> bool {
        end + KEEP < self.now()
    }
}

/// What has ended by itself needs no word.
fn said(done: Result<Done, JoinError>) {
    if let Err(error) = done {
        tracing::error!(%error, "a task for a certificate failed");
    }
}

/// What the store says next, but not before this time. Cancel-safe.
async fn next_after(
    time: Instant,
    announcements: &mut Announcements,
) -> Option<Result<Arc<[Entry]>, StoreError>> {
    time::sleep_until(time).await;
    announcements.next().await
}

/// Until when a stored certificate was valid, by itself. It may be of no use otherwise.
fn not_after(json: &[u8]) -> Option<SystemTime> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let stored = super::record::Stored::parse(json).ok()?;
    let leaf = CertificateDer::from_pem_slice(stored.cert_pem.as_bytes()).ok()?;
    let (_, x509) = x509_parser::parse_x509_certificate(&leaf).ok()?;
    Some(clock::from_unix(x509.validity().not_after.timestamp()))
}

/// What the announcements say in comparison to those before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Announced {
    /// All that were there, and perhaps others.
    More,
    /// Some are not there any more.
    SomeGone,
}

/// What a task has done.
enum Done {
    Worked,
    /// Whether all keys could be listed.
    Swept(bool),
}

/// A task that is under way. If it breaks off, the name that it works on rests for a while.
struct Working {
    shared: Arc<Shared>,
    count: fn(&Busy) -> &AtomicUsize,
    name: Option<Arc<str>>,
}

impl Working {
    fn on(shared: &Arc<Shared>, count: fn(&Busy) -> &AtomicUsize, name: Option<&Arc<str>>) -> Self {
        count(&shared.busy).fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), count, name: name.cloned() }
    }

    fn done(mut self, name: &str, next: Phase) -> Done {
        self.name = None;
        let mut plan = self.shared.plan();
        // The store may be back since then, and all that waited for it may have been woken.
        let next = if next == Phase::Stalled && !self.shared.outage.is_on() { Phase::Check } else { next };
        plan.done(name, next);
        let now = self.shared.now();
        plan.forget_unwanted(name, now);
        drop(plan);
        Done::Worked
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        (self.count)(&self.shared.busy).fetch_sub(1, Ordering::Relaxed);
        if let Some(name) = self.name.take() {
            let until = self.shared.now() + LONGEST_SLEEP;
            self.shared.plan().done(&name, Phase::Rest(until));
        }
    }
}
