//! When memory counts as flat.

use std::io;

/// Fails if memory has grown by more than 5 % and more than 2 MB.
pub(crate) fn is_flat(before: u64, after: u64) -> io::Result<()> {
    let allowed = before + (before / 20).max(2_000_000);
    if after <= allowed {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "memory grew from {} to {}; at most {} is flat",
        megabytes(before),
        megabytes(after),
        megabytes(allowed)
    )))
}

/// Memory as text, in megabytes of a million bytes.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_processes_may_grow_by_two_megabytes_and_large_ones_by_a_twentieth() {
        assert!(is_flat(10_000_000, 12_000_000).is_ok());
        assert!(is_flat(10_000_000, 12_000_001).is_err());
        assert!(is_flat(100_000_000, 105_000_000).is_ok());
        assert!(is_flat(100_000_000, 105_000_001).is_err());
        assert!(is_flat(100_000_000, 1).is_ok());
    }
}
