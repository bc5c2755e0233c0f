//! Limits of this process, which its children inherit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open descriptors as far as allowed and returns it. Children inherit it.
pub fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, ..limit };
    let limit = if setrlimit(Resource::Nofile, wanted).is_ok() { wanted } else { limit };
    // "Unlimited" is not a number that every peer takes.
    limit.current.unwrap_or(1 << 20)
}
