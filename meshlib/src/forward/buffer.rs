//! Buffers that belong to the thread, borrowed for the length of one poll.

use std::cell::Cell;

/// Room that a decrypted buffer needs above the encrypted one it came from: the rest of a record that was read before.
pub(super) const RECORD_BYTES: usize = 16 * 1024 + 512;

thread_local! {
    static PLAIN: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SEALED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer for payload, at least `bytes` long.
pub(super) fn with_plain<T>(bytes: usize, f: impl FnOnce(&mut [u8]) -> T) -> T {
    PLAIN.with(|cell| lend(cell, bytes + RECORD_BYTES, f))
}

/// Lends the thread's buffer for encrypted bytes, `bytes` long.
pub(super) fn with_sealed<T>(bytes: usize, f: impl FnOnce(&mut [u8]) -> T) -> T {
    SEALED.with(|cell| lend(cell, bytes, |buffer| f(&mut buffer[..bytes])))
}

/// Takes the buffer out of its place meanwhile: a nested borrower gets a fresh one instead of a panic.
fn lend<T>(cell: &Cell<Vec<u8>>, bytes: usize, f: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = cell.take();
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    let result = f(&mut buffer);
    cell.set(buffer);
    result
}
