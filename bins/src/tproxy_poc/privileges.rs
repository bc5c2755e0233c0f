//! What the kernel lets this process do.
//!
//! Capabilities belong to threads: what serves connections keeps `CAP_NET_RAW` only, also where the thread that will
//! remove the rules holds more.

use std::io;

use meshlib::tproxy;
use rustix::thread::CapabilitySet;
use rustix::thread::capabilities;
use rustix::thread::clear_ambient_capability_set;
use rustix::thread::configure_capability_in_ambient_set;
use rustix::thread::set_capabilities;

use crate::kit::cli::Failure;

/// Needed to intercept and to use the client's address.
const NET_RAW: CapabilitySet = CapabilitySet::NET_RAW;
/// Needed to set rules, and as good as the other for sockets.
const NET_ADMIN: CapabilitySet = CapabilitySet::NET_ADMIN;

/// Whether this thread may set rules.
pub(super) fn for_rules() -> Result<(), Failure> {
    if holds(NET_ADMIN) {
        return Ok(());
    }
    // Both at once, or the second would be met after the first is granted.
    let and = if tproxy::permitted().is_ok() {
        ""
    } else {
        ". CAP_NET_RAW is missing as well, which transparent sockets need: grant it, or use --mode nat --source none, with \
         --send-proxy-protocol to tell the server the client"
    };
    Err(Failure::Privilege(format!(
        "CAP_NET_ADMIN is missing, which setting rules needs: grant it, or have them set by somebody else and say \
         --rules none{and}"
    )))
}

/// Whether this thread may intercept connections and, if it is spoofing, use clients' addresses.
pub(super) fn for_sockets(is_spoofing: bool) -> Result<(), Failure> {
    tproxy::permitted().map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let instead = if is_spoofing {
                ". Without it: --mode nat --source none, with --send-proxy-protocol to tell the server the client"
            } else {
                ". Without it: --mode nat"
            };
            Failure::Privilege(format!(
                "CAP_NET_RAW (or CAP_NET_ADMIN) is missing, which transparent sockets need{instead}"
            ))
        }
        _ => Failure::Runtime(error.to_string()),
    })
}

fn holds(set: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(set))
}

/// What this thread gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Everything but what sockets need.
    Sockets,
    /// Everything but what sockets and rules need.
    SocketsAndRules,
}

/// Gives up what this thread, and those that it starts from now on, will not need. Returns what it still holds.
pub(super) fn keep(what: Keep) -> io::Result<String> {
    let mut sets = capabilities(None)?;
    // With only the other one, sockets need that.
    let sockets = if sets.permitted.contains(NET_RAW) { NET_RAW } else { NET_ADMIN };
    let kept = match what {
        Keep::Sockets => sockets,
        Keep::SocketsAndRules => NET_RAW | NET_ADMIN,
    };
    sets.permitted &= kept;
    sets.effective &= kept;
    sets.inheritable &= kept;
    set_capabilities(None, sets)?;
    Ok(shown(capabilities(None)?.effective))
}

fn shown(set: CapabilitySet) -> String {
    let known = [(NET_ADMIN, "CAP_NET_ADMIN"), (NET_RAW, "CAP_NET_RAW")];
    let mut names: Vec<_> =
        known.iter().filter(|(bit, _)| set.contains(*bit)).map(|(_, name)| *name).collect();
    if !(set - NET_ADMIN - NET_RAW).is_empty() {
        names.push("others");
    }
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Lets programs that this thread runs set rules, also where the user is not root.
pub(super) struct Lent(());

impl Lent {
    pub(super) fn new() -> Self {
        let lend = || {
            let mut sets = capabilities(None)?;
            sets.inheritable |= sets.permitted & NET_ADMIN;
            set_capabilities(None, sets)?;
            configure_capability_in_ambient_set(NET_ADMIN, true)
        };
        // Root's programs have it anyway; those of others say themselves what they lack.
        let _: rustix::io::Result<()> = lend();
        Self(())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Nothing was lent, then.
        let _ = clear_ambient_capability_set();
    }
}
