//! What all connections of a server share.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::record::Log;
use super::tables::Tables;
use super::wire::Cut;

#[derive(Debug)]
pub(super) struct Shared {
    tables: Mutex<Tables>,
    changed: watch::Sender<()>,
    cut: watch::Sender<Cut>,
    log: Log,
    /// Numbers connections.
    accepted: AtomicU64,
    connections: Arc<AtomicUsize>,
    watches: Arc<AtomicUsize>,
}

/// Counts something while it lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        // A figure for tests; it orders nothing.
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            tables: Mutex::default(),
            changed: watch::Sender::new(()),
            cut: watch::Sender::new(Cut::Close),
            log: Log::new(),
            accepted: AtomicU64::new(0),
            connections: Arc::default(),
            watches: Arc::default(),
        }
    }

    /// Changes the tables and lets everybody look again.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Tables) -> T) -> T {
        let result = change(&mut self.tables.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        result
    }

    /// Changes what concerns only the one who asks.
    pub(super) fn take<T>(&self, take: impl FnOnce(&mut Tables) -> T) -> T {
        take(&mut self.tables.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> T {
        read(&self.tables.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn cut(&self, how: Cut) {
        self.cut.send_replace(how);
    }

    pub(super) fn cuts(&self) -> watch::Receiver<Cut> {
        self.cut.subscribe()
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn number_connection(&self) -> u64 {
        self.accepted.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn count_connection(&self) -> Counted {
        Counted::new(&self.connections)
    }

    pub(super) fn count_watch(&self) -> Counted {
        Counted::new(&self.watches)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn watches(&self) -> usize {
        self.watches.load(Ordering::Relaxed)
    }
}
