//! Rules for nft: one table for both families, replaced in one transaction.
//!
//! Written as `nft list` shows them, so that what is set and what is there can be compared line by line.

use std::fmt::Write as _;

use super::Command;
use super::FAMILIES;
use super::Family;
use super::Listing;
use super::Rules;
use super::Run;
use super::Topology;
use super::sysctl;
use crate::tproxy::Intercept;

const TABLE: &str = "inet meshlib_tproxy";

pub(super) fn apply(rules: &Rules) -> Command {
    let mut input = format!("table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    for (name, lines) in chains(rules) {
        let _ = writeln!(input, "  chain {name} {{");
        lines.iter().for_each(|line| {
            let _ = writeln!(input, "    {line}");
        });
        input.push_str("  }\n");
    }
    input.push_str("}\n");
    Command::words("nft", "-f -").reading(input)
}

pub(super) fn release() -> Command {
    // The rule that redirects stays: without any, the kernel stops translating the connections that live.
    Command::words("nft", &format!("insert rule {TABLE} pre return")).run(Run::May)
}

pub(super) fn remove() -> Command {
    Command::words("nft", &format!("delete table {TABLE}")).run(Run::May)
}

/// What is there of ours, compared with what the rules want; without rules, with nothing.
pub(super) fn listing(rules: Option<&Rules>) -> Listing {
    let mut wanted = Vec::new();
    for (name, lines) in rules.into_iter().flat_map(chains) {
        wanted.push(format!("chain {name} {{"));
        wanted.extend(lines);
        wanted.push("}".into());
    }
    Listing::of_nft(Command::words("nft", &format!("list table {TABLE}")).run(Run::May), wanted)
}

/// How [`listing`] shows a table.
pub(super) fn is_frame(line: &str) -> bool {
    line.is_empty() || line == format!("table {TABLE} {{")
}

fn chains(rules: &Rules) -> Vec<(&'static str, Vec<String>)> {
    let mark = format!("{:#010x}", rules.mark);
    let marked = format!("meta l4proto tcp meta mark & {mark} == {mark}");
    let mut chains = Vec::new();
    if rules.guard_loopback {
        let guard = "iifname != \"lo\" ip daddr 127.0.0.0/8 drop".to_owned();
        chains.push(("guard", vec![hook("filter", "prerouting", "mangle"), guard]));
    }
    if rules.saves_marks() {
        // Only a chain of this type has packets routed again when their mark has changed.
        let mut out = vec![hook("route", "output", "mangle")];
        out.extend(other_family(rules));
        out.push(format!("{marked} ct mark set ct mark | {mark}"));
        out.push(format!("meta l4proto tcp ct mark & {mark} == {mark} meta mark set meta mark | {mark}"));
        chains.push(("out", out));
    }
    if rules.bypasses_tracking() {
        for (name, at) in [("raw_out", "output"), ("raw_pre", "prerouting")] {
            let comment = sysctl::record(&rules.switched_on).filter(|_| at == "output");
            let comment = comment.map(|text| format!(" comment \"{text}\"")).unwrap_or_default();
            let mut lines = vec![hook("filter", at, "raw")];
            lines.extend(other_family(rules));
            lines.push(format!("{marked} notrack{comment}"));
            chains.push((name, lines));
        }
    }
    chains.push(("pre", pre(rules, &mark)));
    chains
}

/// What brings connections to the listener.
fn pre(rules: &Rules, mark: &str) -> Vec<String> {
    let mut lines = vec![match rules.intercept {
        Intercept::Redirect => hook("nat", "prerouting", "dstnat"),
        Intercept::Tproxy => hook("filter", "prerouting", "mangle"),
    }];
    lines.extend(other_family(rules));
    lines.push("iifname \"lo\" return".into());
    let elsewhere = rules.interface.as_ref().map(|name| format!("iifname != \"{name}\" return"));
    match (rules.intercept, rules.topology) {
        (Intercept::Redirect, _) => lines.extend(elsewhere),
        (Intercept::Tproxy, Topology::Pod) => {
            lines.extend(elsewhere);
            lines.push("fib daddr type != local return".into());
            // Answers to connections that were opened from here.
            lines.push(if rules.saves_marks() {
                "meta l4proto tcp ct direction reply accept".into()
            } else {
                format!("{NOT_SYN} socket wildcard 0 accept")
            });
        }
        (Intercept::Tproxy, Topology::Gateway) => {
            lines.push(format!("{NOT_SYN} socket transparent 1 meta mark set meta mark | {mark} accept"));
            lines.push("fib daddr type local return".into());
            lines.extend(elsewhere);
        }
    }
    for family in FAMILIES {
        let subnets: Vec<_> = rules.skipped(family).map(shown).collect();
        let subnets = match subnets.as_slice() {
            [] => continue,
            [one] => one.clone(),
            _ => format!("{{ {} }}", subnets.join(", ")),
        };
        lines.push(format!("{} saddr {subnets} return", word(family)));
    }
    lines.extend(rules.skip_ports.iter().map(|ports| format!("tcp dport {} return", ports.nft())));
    let ports = rules
        .ports
        .as_ref()
        .map_or_else(|| "meta l4proto tcp".into(), |ports| format!("tcp dport {}", ports.nft()));
    for family in rules.families() {
        let Some(listener) = rules.listener(family) else { continue };
        let of_family = format!("meta nfproto {}", nfproto(family));
        let target = match rules.intercept {
            // It means the first address of the interface that a packet comes in by.
            Intercept::Redirect if listener.ip().is_unspecified() => {
                format!("redirect to :{}", listener.port())
            }
            Intercept::Redirect => format!("dnat {} to {listener}", word(family)),
            Intercept::Tproxy => {
                let set = rules.marks_inbound().then(|| format!("meta mark set meta mark | {mark} "));
                let to = if listener.ip().is_unspecified() {
                    format!(":{}", listener.port())
                } else {
                    listener.to_string()
                };
                format!("{}tproxy {} to {to} accept", set.unwrap_or_default(), word(family))
            }
        };
        lines.push(format!("{of_family} {ports} {target}"));
    }
    lines
}

const NOT_SYN: &str = "tcp flags != syn / fin,syn,rst,ack";

fn hook(kind: &str, at: &str, priority: &str) -> String {
    format!("type {kind} hook {at} priority {priority}; policy accept;")
}

/// What leaves the family alone that nobody listens for.
fn other_family(rules: &Rules) -> Option<String> {
    let families: Vec<_> = rules.families().collect();
    match families.as_slice() {
        [one] => Some(format!("meta nfproto != {} return", nfproto(*one))),
        _ => None,
    }
}

/// A subnet as nft shows it: one address without its length.
fn shown(subnet: &super::Subnet) -> String {
    let text = subnet.to_string();
    let whole = if subnet.is_v4() { "/32" } else { "/128" };
    text.strip_suffix(whole).map_or_else(|| text.clone(), str::to_owned)
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn nfproto(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}
