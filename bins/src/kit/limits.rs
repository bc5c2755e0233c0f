//! Limits that the operating system sets to the process.

use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

use crate::kit::log;

/// Takes all descriptors that the hard limit allows: each connection needs two, and the usual soft limit of 1,024 is there
/// for programs that use `select`.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(target: log::PROCESS, %error, descriptors = limit.current, "cannot raise the limit of open descriptors");
    }
}
