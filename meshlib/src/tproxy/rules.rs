//! The packet filter and routing rules of interception, as data.
//!
//! [`Rules`] says what is wanted; [`apply`](Rules::apply), [`release`](Rules::release) and [`remove`] say which commands
//! bring it about, and [`listings`](Rules::listings) which ones show whether it is so. Nothing here runs anything: a
//! [`Command`] prints as a line for `sh -e`, or is run by the program.
//!
//! What is set has names of its own (chains that begin with `MESHLIB_`, the nft table `meshlib_tproxy`, a routing rule
//! priority), so that it can be set twice, taken over after a crash and removed completely without touching anything else.
//!
//! # Examples
//!
//! ```
//! use meshlib::tproxy::Intercept;
//! use meshlib::tproxy::rules::{Rules, Tool};
//!
//! let rules = Rules::new(Intercept::Tproxy).with_listener("0.0.0.0:5000".parse().unwrap());
//! for command in rules.apply(Tool::Iptables) {
//!     println!("{command}");
//! }
//! ```

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;

use super::Intercept;

mod command;
mod foreign;
mod iptables;
mod listing;
mod nft;
mod ports;
mod route;
mod subnet;
mod sysctl;

pub use command::Command;
pub use command::Run;
pub use foreign::competing;
pub use listing::Difference;
pub use listing::Listing;
pub use ports::InvalidPorts;
pub use ports::Ports;
pub use subnet::InvalidSubnet;
pub use subnet::Subnet;
pub use sysctl::Sysctl;
pub use sysctl::recorded as recorded_sysctls;

/// What connections are intercepted, and how the answers of servers stay on this machine.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rules {
    /// How connections come to the listener.
    pub intercept: Intercept,
    /// Whose connections are intercepted. Default: this machine's own.
    pub topology: Topology,
    /// How the answers of servers stay on this machine. Default: [`Reply::Connmark`]. Means nothing to a gateway.
    pub reply: Reply,
    /// Where the proxy listens for IPv4. `None`: IPv4 is left alone.
    pub v4: Option<SocketAddr>,
    /// Where the proxy listens for IPv6. `None`: IPv6 is left alone.
    pub v6: Option<SocketAddr>,
    /// Which ports are intercepted, as dialled. Default: all.
    pub ports: Option<Ports>,
    /// Which ports are not, as dialled. Default: none.
    pub skip_ports: Option<Ports>,
    /// Which clients are not intercepted. Default: none.
    pub skip_subnets: Vec<Subnet>,
    /// Where clients come in. Default: every interface but `lo`.
    pub interface: Option<String>,
    /// The mark, which is its own mask: other bits are left alone. Default 1.
    pub mark: u32,
    /// The routing table. Default 100.
    pub table: u32,
    /// The priority of the routing rules. Default 7089.
    pub priority: u32,
    /// Whether to drop what comes from outside for a loopback address. For where `route_localnet` is on. Default false.
    pub guard_loopback: bool,
    /// Which settings of the kernel were switched on for this and are to be switched off with it: remembered among the
    /// rules. Default: none.
    pub switched_on: Vec<Sysctl>,
}

/// Whose connections are intercepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Topology {
    /// Those to addresses of this machine, or of this network namespace: a pod with a proxy and a server.
    #[default]
    Pod,
    /// Those that are routed through this machine.
    Gateway,
}

/// How the answers of servers to a client's address find the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reply {
    /// The connection tracking remembers which connections the proxy marked, and marks the answers.
    #[default]
    Connmark,
    /// Sockets of servers inherit the mark of whom they accept; the connection tracking sees nothing of it. Needs settings
    /// of the kernel: [`Rules::sysctls`].
    Fwmark,
    /// Answers are known by their loopback address: for servers that are connected to at one.
    SourceRule,
}

/// What sets packet filter rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tool {
    /// `iptables` and `ip6tables`.
    Iptables,
    /// `iptables-legacy` and `ip6tables-legacy`.
    IptablesLegacy,
    /// `nft`.
    Nft,
}

/// As options of command lines have it.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connmark => "connmark",
            Self::Fwmark => "fwmark",
            Self::SourceRule => "source-rule",
        })
    }
}

/// Its program's name.
impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iptables => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Nft => "nft",
        })
    }
}

/// A protocol that rules exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// What it means that rules which nobody wants cannot be shown. A kernel or a machine without IPv6 has none.
    fn unwanted(self) -> Run {
        match self {
            Self::V4 => Run::Must,
            Self::V6 => Run::May,
        }
    }
}

impl Rules {
    /// Rules that intercept nothing until they know a listener.
    pub fn new(intercept: Intercept) -> Self {
        Self {
            intercept,
            topology: Topology::Pod,
            reply: Reply::Connmark,
            v4: None,
            v6: None,
            ports: None,
            skip_ports: None,
            skip_subnets: Vec::new(),
            interface: None,
            mark: 1,
            table: 100,
            priority: 7089,
            guard_loopback: false,
            switched_on: Vec::new(),
        }
    }

    /// Sets where the proxy listens. `[::]` stands for IPv4 too, unless a listener for IPv4 is known.
    #[must_use]
    pub fn with_listener(mut self, addr: SocketAddr) -> Self {
        if addr.is_ipv4() {
            self.v4 = Some(addr);
        } else {
            self.v6 = Some(addr);
            if addr.ip().is_unspecified() {
                let any = SocketAddr::new(IpAddr::from([0; 4]), addr.port());
                self.v4.get_or_insert(any);
            }
        }
        self
    }

    /// Sets whose connections are intercepted.
    #[must_use]
    pub fn with_topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Sets how the answers of servers stay on this machine.
    #[must_use]
    pub fn with_reply(mut self, reply: Reply) -> Self {
        self.reply = reply;
        self
    }

    /// Sets which ports are intercepted.
    #[must_use]
    pub fn with_ports(mut self, ports: Option<Ports>) -> Self {
        self.ports = ports;
        self
    }

    /// Sets which ports are not intercepted.
    #[must_use]
    pub fn with_skip_ports(mut self, ports: Option<Ports>) -> Self {
        self.skip_ports = ports;
        self
    }

    /// Sets which clients are not intercepted, as few subnets as can be.
    #[must_use]
    pub fn with_skip_subnets(mut self, subnets: impl IntoIterator<Item = Subnet>) -> Self {
        self.skip_subnets = Subnet::reduced(subnets);
        self
    }

    /// Sets where clients come in.
    #[must_use]
    pub fn with_interface(mut self, interface: Option<String>) -> Self {
        self.interface = interface;
        self
    }

    /// Sets mark, routing table and priority.
    #[must_use]
    pub fn with_numbers(mut self, mark: u32, table: u32, priority: u32) -> Self {
        (self.mark, self.table, self.priority) = (mark, table, priority);
        self
    }

    /// Says whether to drop what comes from outside for a loopback address.
    #[must_use]
    pub fn with_guard_loopback(mut self, guard: bool) -> Self {
        self.guard_loopback = guard;
        self
    }

    /// Sets which settings of the kernel are remembered among the rules.
    #[must_use]
    pub fn with_switched_on(mut self, sysctls: Vec<Sysctl>) -> Self {
        self.switched_on = sysctls;
        self
    }

    /// What sets the rules, in order: routes first, what brings connections to the listener last. Replaces what an earlier
    /// run has set with the same tool.
    pub fn apply(&self, tool: Tool) -> Vec<Command> {
        let mut commands = route::apply(self);
        match tool {
            Tool::Nft => commands.push(nft::apply(self)),
            _ => commands.extend(self.families().flat_map(|family| iptables::apply(self, tool, family))),
        }
        commands
    }

    /// What removes rules that an earlier run has set with this tool and that [`apply`](Self::apply) leaves where they
    /// are, because they are of another kind.
    pub fn tidy(&self, tool: Tool) -> Vec<Command> {
        let mut commands = match tool {
            Tool::Nft => Vec::new(),
            _ => FAMILIES.iter().flat_map(|family| iptables::tidy(self, tool, *family)).collect(),
        };
        commands.extend(route::tidy(self));
        commands
    }

    /// What makes new connections go past the listener, while those that it has go on.
    pub fn release(&self, tool: Tool) -> Vec<Command> {
        match tool {
            Tool::Nft => vec![nft::release()],
            _ => self.families().flat_map(|family| iptables::release(self, tool, family)).collect(),
        }
    }

    /// Which settings of the kernel must be on.
    pub fn sysctls(&self) -> Vec<Sysctl> {
        if self.topology == Topology::Pod && self.reply == Reply::Fwmark {
            Sysctl::FWMARK.to_vec()
        } else {
            Vec::new()
        }
    }

    /// What shows whether the rules, and no others of ours, are set with this tool.
    pub fn listings(&self, tool: Tool) -> Vec<Listing> {
        let filters = FAMILIES.map(|family| {
            let wanted = self.families().any(|f| f == family);
            iptables::listing(tool, family, wanted.then_some(self))
        });
        let filters = match tool {
            Tool::Nft => vec![nft::listing(Some(self))],
            _ => filters.into(),
        };
        filters.into_iter().chain(route::listings(self)).collect()
    }

    /// What shows by the fewest commands whether the rules are set with this tool: three for one family; for both six with
    /// iptables, and five with nft, which has both in one table. Other than [`listings`](Self::listings) they find nothing
    /// of ours in a family without a listener, or in tables of iptables where these rules have nothing.
    pub fn own_listings(&self, tool: Tool) -> Vec<Listing> {
        let filters = match tool {
            Tool::Nft => vec![nft::listing(Some(self))],
            _ => self.families().map(|family| iptables::own_listing(self, tool, family)).collect(),
        };
        filters.into_iter().chain(route::listings(self)).filter(Listing::wants_any).collect()
    }

    pub(crate) fn families(&self) -> impl Iterator<Item = Family> {
        FAMILIES.into_iter().filter(|family| self.listener(*family).is_some())
    }

    pub(crate) fn listener(&self, family: Family) -> Option<SocketAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// Whether packets get the mark on their way in: those that are not for this machine must be routed to it.
    pub(crate) fn marks_inbound(&self) -> bool {
        self.topology == Topology::Gateway
    }

    /// Whether a chain for what goes out saves and restores marks.
    pub(crate) fn saves_marks(&self) -> bool {
        self.topology == Topology::Pod && self.reply == Reply::Connmark
    }

    /// Whether marked packets bypass the connection tracking.
    pub(crate) fn bypasses_tracking(&self) -> bool {
        self.topology == Topology::Pod && self.reply == Reply::Fwmark
    }

    pub(crate) fn skipped(&self, family: Family) -> impl Iterator<Item = &Subnet> {
        self.skip_subnets.iter().filter(move |subnet| subnet.is_v4() == (family == Family::V4))
    }
}

/// What removes every rule of ours that was set with this tool, whatever its kind. Succeeds where there is nothing to
/// remove.
pub fn remove(tool: Tool, table: u32, priority: u32) -> Vec<Command> {
    let mut commands = match tool {
        Tool::Nft => vec![nft::remove()],
        _ => FAMILIES.iter().flat_map(|family| iptables::remove(tool, *family)).collect(),
    };
    commands.extend(route::remove(table, priority));
    commands
}

/// What shows whether any rule of ours is set with this tool.
pub fn leftovers(tool: Tool, table: u32, priority: u32) -> Vec<Listing> {
    let filters = match tool {
        Tool::Nft => vec![nft::listing(None)],
        _ => FAMILIES.map(|family| iptables::listing(tool, family, None)).into(),
    };
    filters.into_iter().chain(route::no_listings(table, priority)).collect()
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nft_shows_both_families_by_one_command() {
        for intercept in [Intercept::Redirect, Intercept::Tproxy] {
            let one = Rules::new(intercept).with_listener("0.0.0.0:5000".parse().unwrap());
            let both = Rules::new(intercept).with_listener("[::]:5000".parse().unwrap());

            for (tool, of_both) in [(Tool::Iptables, 6), (Tool::IptablesLegacy, 6), (Tool::Nft, 5)] {
                assert_eq!(one.own_listings(tool).len(), 3, "{intercept:?} {tool}");
                assert_eq!(both.own_listings(tool).len(), of_both, "{intercept:?} {tool}");
            }
        }
    }
}
