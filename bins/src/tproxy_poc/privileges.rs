//! What the kernel lets this process do.
//!
//! Capabilities belong to threads: what serves connections keeps `CAP_NET_RAW` only. The thread that will remove the
//! rules, and those that it starts to look at them, have `CAP_NET_ADMIN` besides, but only while it is [`Lent`] does it
//! have an effect.

use std::io;

use meshlib::tproxy;
use rustix::thread::CapabilitySet;
use rustix::thread::CapabilitySets;
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
    /// Everything but what sockets and rules need. The latter has no effect but while it is [`Lent`].
    SocketsAndRules,
}

/// Gives up what this thread, and those that it starts from now on, will not need. Returns what it still holds.
pub(super) fn keep(what: Keep) -> io::Result<String> {
    let mut sets = capabilities(None)?;
    // With only the other one, sockets need that.
    let sockets = if sets.permitted.contains(NET_RAW) { NET_RAW } else { NET_ADMIN };
    let (permitted, effective) = match what {
        Keep::Sockets => (sockets, sockets),
        Keep::SocketsAndRules => (NET_RAW | NET_ADMIN, NET_RAW),
    };
    sets.permitted &= permitted;
    sets.effective &= effective;
    sets.inheritable &= effective;
    set_capabilities(None, sets)?;
    Ok(shown(capabilities(None)?))
}

fn shown(sets: CapabilitySets) -> String {
    let known = [(NET_ADMIN, "CAP_NET_ADMIN"), (NET_RAW, "CAP_NET_RAW")];
    let mut names: Vec<_> =
        known.iter().filter(|(bit, _)| sets.effective.contains(*bit)).map(|(_, name)| *name).collect();
    if !(sets.permitted - NET_ADMIN - NET_RAW).is_empty() {
        names.push("others");
    }
    if (sets.permitted - sets.effective).contains(NET_ADMIN) {
        names.push("CAP_NET_ADMIN for the rules only");
    }
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Lets this thread set rules, and programs that it runs, also where the user is not root. Is dropped where it was
/// made: capabilities belong to threads.
pub(super) struct Lent {
    /// What this thread held before.
    before: Option<CapabilitySets>,
}

impl Lent {
    pub(super) fn new() -> Self {
        let lend = || {
            let before = capabilities(None)?;
            let mut sets = before;
            sets.effective |= sets.permitted & NET_ADMIN;
            sets.inheritable |= sets.permitted & NET_ADMIN;
            set_capabilities(None, sets)?;
            // Root's programs have it anyway; those of others say themselves what they lack.
            let _ = configure_capability_in_ambient_set(NET_ADMIN, true);
            rustix::io::Result::Ok(before)
        };
        Self { before: lend().ok() }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Where these fail nothing was lent: anybody may give up what they hold.
        let _ = clear_ambient_capability_set();
        if let Some(before) = self.before {
            let _ = set_capabilities(None, before);
        }
    }
}
