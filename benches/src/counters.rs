//! What load and backend count while they run, read by the measuring thread at the edges of the window.

use std::fmt::Display;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one side. All are relaxed: each is read alone, and the threads share a core.
#[derive(Debug, Default)]
pub struct Counters {
    /// Plain bytes written.
    pub sent: AtomicU64,
    /// Bytes read, plain unless the reader drops ciphertext.
    pub received: AtomicU64,
    /// Requests answered, or connections done.
    pub done: AtomicU64,
    /// How many of the handshakes were resumptions.
    pub resumed: AtomicU64,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Counters {
    /// Counts one failure and keeps its text.
    pub fn fail(&self, error: impl Display) {
        add(&self.errors, 1);
        if let Ok(mut last) = self.last_error.lock() {
            *last = Some(error.to_string());
        }
    }

    /// How many failures there were and the text of the last.
    pub fn failures(&self) -> (u64, Option<String>) {
        (read(&self.errors), self.last_error.lock().ok().and_then(|last| last.clone()))
    }
}

/// Adds to one counter.
pub fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Reads one counter.
pub fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
