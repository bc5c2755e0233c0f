//! Rules for iptables and ip6tables.
//!
//! Written as `iptables-save` shows them, so that what is set and what is there can be compared line by line. Each family
//! is set in one transaction, except that what leads into our chains is added when they are complete.

use super::Command;
use super::Family;
use super::Listing;
use super::Rules;
use super::Run;
use super::Tool;
use super::Topology;
use super::sysctl;
use crate::tproxy::Intercept;

/// A chain of ours.
struct Chain {
    table: &'static str,
    /// The chain of the kernel's that leads to it, if one does.
    hook: Option<&'static str>,
    name: &'static str,
}

impl Chain {
    const fn new(table: &'static str, hook: Option<&'static str>, name: &'static str) -> Self {
        Self { table, hook, name }
    }

    /// The arguments behind `-A`, `-C` or `-D`.
    fn jump(&self, hook: &str) -> String {
        let protocol = if self.name == GUARD { "" } else { "-p tcp " };
        format!("{hook} {protocol}-j {}", self.name)
    }
}

const PRE: &str = "MESHLIB_PRE";
/// For all protocols: what `route_localnet` opens is open to all of them.
const GUARD: &str = "MESHLIB_GUARD";

/// Every chain that any rules of ours have, in the order that the kernel looks at them. One that others jump to comes
/// behind them.
const CHAINS: [Chain; 7] = [
    Chain::new("mangle", Some("PREROUTING"), GUARD),
    Chain::new("nat", Some("PREROUTING"), PRE),
    Chain::new("mangle", Some("PREROUTING"), PRE),
    Chain::new("mangle", Some("OUTPUT"), "MESHLIB_OUT"),
    Chain::new("mangle", None, "MESHLIB_DIVERT"),
    Chain::new("raw", Some("PREROUTING"), "MESHLIB_PREROUTING"),
    Chain::new("raw", Some("OUTPUT"), "MESHLIB_OUTPUT"),
];

/// The order of tables in a transaction.
const TABLES: [&str; 3] = ["raw", "mangle", "nat"];

pub(super) fn apply(rules: &Rules, tool: Tool, family: Family) -> Vec<Command> {
    let chains: Vec<_> = chains(rules, family).collect();
    let mut input = String::new();
    for table in TABLES {
        let own: Vec<_> = chains.iter().filter(|(chain, _)| chain.table == table).collect();
        if own.is_empty() {
            continue;
        }
        input.push_str(&format!("*{table}\n"));
        // Declaring a chain empties it.
        own.iter().for_each(|(chain, _)| input.push_str(&format!(":{} - [0:0]\n", chain.name)));
        for (chain, lines) in own {
            lines.iter().for_each(|line| input.push_str(&format!("-A {} {line}\n", chain.name)));
        }
        input.push_str("COMMIT\n");
    }
    let programs = Programs::of(tool, family);
    let restore = Command::words(programs.restore, "-w 5 --noflush").reading(input);
    // What brings connections to the listener comes last, when the answers have their way.
    let (last, first): (Vec<_>, Vec<_>) = chains.iter().partition(|(chain, _)| chain.name == PRE);
    let jumps = first.into_iter().chain(last).filter_map(|(chain, _)| {
        let jump = chain.jump(chain.hook?);
        let check = words(chain, &format!("-C {jump}"));
        // What is dropped must not be taken before, by a listener or a rule that an earlier run has left.
        let verb = if chain.name == GUARD { "-I" } else { "-A" };
        Some(Command::new(programs.iptables, words(chain, &format!("{verb} {jump}"))).run(Run::Unless(check)))
    });
    [restore].into_iter().chain(jumps).collect()
}

/// Removes the chains that these rules do not have.
pub(super) fn tidy(rules: &Rules, tool: Tool, family: Family) -> Vec<Command> {
    let listens = rules.listener(family).is_some();
    let kept: Vec<_> = chains(rules, family).filter(|_| listens).map(|(chain, _)| id(chain)).collect();
    unset(tool, family, |chain| !kept.contains(&id(chain)))
}

pub(super) fn release(rules: &Rules, tool: Tool, family: Family) -> Vec<Command> {
    let programs = Programs::of(tool, family);
    chains(rules, family)
        .filter(|(chain, _)| chain.name == PRE)
        .filter_map(|(chain, _)| Some(no_jump(programs.iptables, chain, chain.hook?)))
        .collect()
}

pub(super) fn remove(tool: Tool, family: Family) -> Vec<Command> {
    unset(tool, family, |_| true)
}

/// What is there of ours, compared with what the rules want; without rules, with nothing.
pub(super) fn listing(tool: Tool, family: Family, rules: Option<&Rules>) -> Listing {
    let mut wanted = Vec::new();
    let save = Command::words(Programs::of(tool, family).save, "");
    let save = if rules.is_none() { save.run(family.unwanted()) } else { save };
    for (chain, lines) in rules.into_iter().flat_map(|rules| chains(rules, family)) {
        let table = chain.table;
        wanted.push(format!("{table} :{}", chain.name));
        wanted.extend(chain.hook.map(|hook| format!("{table} -A {}", chain.jump(hook))));
        wanted.extend(lines.iter().map(|line| format!("{table} -A {} {line}", chain.name)));
    }
    Listing::of_iptables(save, wanted)
}

/// What is there of ours where these rules have something, compared with what they want. One table is read alone: those of
/// others, which may have very many rules, are left out.
pub(super) fn own_listing(rules: &Rules, tool: Tool, family: Family) -> Listing {
    let mut tables: Vec<_> = chains(rules, family).map(|(chain, _)| chain.table).collect();
    tables.sort_unstable();
    tables.dedup();
    let mut listing = listing(tool, family, Some(rules));
    if let [table] = tables.as_slice() {
        listing.command.args.extend(["-t".to_owned(), (*table).to_owned()]);
    }
    listing
}

fn unset(tool: Tool, family: Family, which: impl Fn(&Chain) -> bool) -> Vec<Command> {
    let programs = Programs::of(tool, family);
    let chosen = || CHAINS.iter().filter(|chain| which(chain));
    let jumps = chosen().filter_map(|chain| Some(no_jump(programs.iptables, chain, chain.hook?)));
    let chains = chosen().flat_map(|chain| {
        ["-F", "-X"].map(|verb| {
            Command::new(programs.iptables, words(chain, &format!("{verb} {}", chain.name))).run(Run::May)
        })
    });
    jumps.chain(chains).collect()
}

fn no_jump(program: &'static str, chain: &Chain, hook: &str) -> Command {
    Command::new(program, words(chain, &format!("-D {}", chain.jump(hook)))).run(Run::UntilFailure)
}

fn words(chain: &Chain, args: &str) -> Vec<String> {
    format!("-w 5 -t {} {args}", chain.table).split_whitespace().map(str::to_owned).collect()
}

fn id(chain: &Chain) -> (&'static str, &'static str) {
    (chain.table, chain.name)
}

/// The chains that rules have, with what is in them.
fn chains(rules: &Rules, family: Family) -> impl Iterator<Item = (&'static Chain, Vec<String>)> {
    CHAINS.iter().filter_map(move |chain| {
        let lines = match id(chain) {
            ("nat", PRE) if rules.intercept == Intercept::Redirect => redirect(rules, family),
            ("mangle", PRE) if rules.intercept == Intercept::Tproxy => tproxy(rules, family),
            (_, GUARD) if rules.guard_loopback && family == Family::V4 => {
                vec!["-d 127.0.0.0/8 ! -i lo -j DROP".into()]
            }
            (_, "MESHLIB_OUT") if rules.saves_marks() => save_and_restore(rules.mark),
            (_, "MESHLIB_DIVERT") if rules.marks_inbound() => {
                vec![format!("-j MARK --set-xmark {0:#x}/{0:#x}", rules.mark), "-j ACCEPT".into()]
            }
            ("raw", name) if rules.bypasses_tracking() => no_tracking(rules, name),
            _ => return None,
        };
        Some((chain, lines))
    })
}

fn redirect(rules: &Rules, family: Family) -> Vec<String> {
    let Some(listener) = rules.listener(family) else { return Vec::new() };
    let mut lines = vec!["-i lo -j RETURN".to_owned()];
    lines.extend(elsewhere(rules));
    lines.extend(skipped(rules, family));
    // REDIRECT means the first address of the interface that a packet comes in by.
    let to = if listener.ip().is_unspecified() {
        format!("-j REDIRECT --to-ports {}", listener.port())
    } else {
        format!("-j DNAT --to-destination {listener}")
    };
    lines.extend(taken(rules, &to));
    lines
}

fn tproxy(rules: &Rules, family: Family) -> Vec<String> {
    let Some(listener) = rules.listener(family) else { return Vec::new() };
    let mut lines = vec!["-i lo -j RETURN".to_owned()];
    let mark = match rules.topology {
        Topology::Pod => {
            lines.extend(elsewhere(rules));
            lines.push("-m addrtype ! --dst-type LOCAL -j RETURN".into());
            // Answers to connections that were opened from here: TPROXY would drop them, since their sockets are not
            // transparent.
            lines.push(if rules.saves_marks() {
                "-p tcp -m conntrack --ctdir REPLY -j ACCEPT".into()
            } else {
                format!("{NOT_SYN} -m socket -j ACCEPT")
            });
            0
        }
        Topology::Gateway => {
            lines.push(format!("{NOT_SYN} -m socket --transparent -j MESHLIB_DIVERT"));
            lines.push("-m addrtype --dst-type LOCAL -j RETURN".into());
            lines.extend(elsewhere(rules));
            rules.mark
        }
    };
    lines.extend(skipped(rules, family));
    let to = format!(
        "-j TPROXY --on-port {} --on-ip {} --tproxy-mark {mark:#x}/{mark:#x}",
        listener.port(),
        listener.ip()
    );
    lines.extend(taken(rules, &to));
    lines
}

const NOT_SYN: &str = "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN";

/// Only new connections of the proxy carry the mark on their own; their answers get it from the connection.
fn save_and_restore(mark: u32) -> Vec<String> {
    let masks = format!("--nfmask {mark:#x} --ctmask {mark:#x}");
    vec![
        format!("-p tcp -m mark --mark {mark:#x}/{mark:#x} -j CONNMARK --save-mark {masks}"),
        format!("-p tcp -m connmark --mark {mark:#x}/{mark:#x} -j CONNMARK --restore-mark {masks}"),
    ]
}

fn no_tracking(rules: &Rules, chain: &str) -> Vec<String> {
    let comment = sysctl::record(&rules.switched_on).filter(|_| chain == "MESHLIB_OUTPUT");
    let comment = comment.map(|text| format!(" -m comment --comment \"{text}\"")).unwrap_or_default();
    vec![format!("-p tcp -m mark --mark {0:#x}/{0:#x}{comment} -j CT --notrack", rules.mark)]
}

/// What comes in where no clients are.
fn elsewhere(rules: &Rules) -> Option<String> {
    rules.interface.as_ref().map(|interface| format!("! -i {interface} -j RETURN"))
}

fn skipped(rules: &Rules, family: Family) -> Vec<String> {
    let subnets = rules.skipped(family).map(|subnet| format!("-s {subnet} -j RETURN"));
    let ports = rules.skip_ports.iter().flat_map(|ports| ports.multiport());
    subnets.chain(ports.map(|ports| format!("-p tcp -m multiport --dports {ports} -j RETURN"))).collect()
}

fn taken(rules: &Rules, target: &str) -> Vec<String> {
    match &rules.ports {
        None => vec![format!("-p tcp {target}")],
        Some(ports) => ports
            .multiport()
            .into_iter()
            .map(|ports| format!("-p tcp -m multiport --dports {ports} {target}"))
            .collect(),
    }
}

struct Programs {
    iptables: &'static str,
    restore: &'static str,
    save: &'static str,
}

impl Programs {
    fn of(tool: Tool, family: Family) -> Self {
        let [iptables, restore, save] = match (tool, family) {
            (Tool::IptablesLegacy, Family::V4) => {
                ["iptables-legacy", "iptables-legacy-restore", "iptables-legacy-save"]
            }
            (Tool::IptablesLegacy, Family::V6) => {
                ["ip6tables-legacy", "ip6tables-legacy-restore", "ip6tables-legacy-save"]
            }
            (_, Family::V4) => ["iptables", "iptables-restore", "iptables-save"],
            (_, Family::V6) => ["ip6tables", "ip6tables-restore", "ip6tables-save"],
        };
        Self { iptables, restore, save }
    }
}
