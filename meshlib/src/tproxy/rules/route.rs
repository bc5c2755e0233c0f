//! Routing rules and routes.
//!
//! The table has one route, by which every address is on this machine; the rules say which packets look there.

use super::Command;
use super::FAMILIES;
use super::Family;
use super::Listing;
use super::Reply;
use super::Rules;
use super::Run;
use super::Topology;

pub(super) fn apply(rules: &Rules) -> Vec<Command> {
    let mut commands = Vec::new();
    for family in rules.families() {
        commands
            .push(ip(family, &format!("route replace local {} dev lo table {}", any(family), rules.table)));
        for selector in selectors(rules, family) {
            let args = format!("rule add pref {} {selector} lookup {}", rules.priority, rules.table);
            commands.push(ip(family, &args).run(Run::Tolerating("File exists")));
        }
    }
    commands
}

/// Removes rules of kinds that these do not have, and what a family that is left alone has.
pub(super) fn tidy(rules: &Rules) -> Vec<Command> {
    let mut commands = Vec::new();
    for family in FAMILIES {
        let listens = rules.listener(family).is_some();
        let wanted = if listens { selectors(rules, family) } else { Vec::new() };
        for selector in [marked(rules), from_loopback(family)] {
            if !wanted.contains(&selector) {
                let args = format!("rule del pref {} {selector} lookup {}", rules.priority, rules.table);
                commands.push(ip(family, &args).run(Run::May));
            }
        }
        if !listens {
            commands.push(no_route(family, rules.table));
        }
    }
    commands
}

pub(super) fn remove(table: u32, priority: u32) -> Vec<Command> {
    let of = |family| {
        [ip(family, &format!("rule del pref {priority}")).run(Run::UntilFailure), no_route(family, table)]
    };
    FAMILIES.into_iter().flat_map(of).collect()
}

pub(super) fn listings(rules: &Rules) -> Vec<Listing> {
    let of = |family: Family| {
        let listens = rules.listener(family).is_some();
        let selectors = if listens { selectors(rules, family) } else { Vec::new() };
        let shown = |selector: &String| match selector.strip_prefix("iif lo ") {
            // As ip shows it: the source first, and one address without its length.
            Some(from) => format!("{} iif lo lookup {}", from.trim_end_matches("/128"), rules.table),
            None => format!("from all {selector} lookup {}", rules.table),
        };
        let wanted = selectors.iter().map(shown).collect();
        let route = listens.then(|| LOCAL_ROUTE.to_owned()).into_iter().collect();
        show(family, rules.table, rules.priority, wanted, route)
    };
    FAMILIES.into_iter().flat_map(of).collect()
}

pub(super) fn no_listings(table: u32, priority: u32) -> Vec<Listing> {
    FAMILIES.into_iter().flat_map(|family| show(family, table, priority, Vec::new(), Vec::new())).collect()
}

fn show(family: Family, table: u32, priority: u32, rules: Vec<String>, route: Vec<String>) -> [Listing; 2] {
    let rule = ip(family, &format!("rule show pref {priority}"));
    let rule = if rules.is_empty() { rule.run(family.unwanted()) } else { rule };
    let routes = ip(family, &format!("route show table {table}")).run(Run::May);
    [Listing::of_ip_rules(rule, rules), Listing::of_routes(routes, route)]
}

/// As ip shows it, without what differs between families.
const LOCAL_ROUTE: &str = "local default dev lo";

fn selectors(rules: &Rules, family: Family) -> Vec<String> {
    match (rules.topology, rules.reply) {
        (Topology::Gateway, _) | (Topology::Pod, Reply::Fwmark) => vec![marked(rules)],
        // An answer from a loopback address meets a local route before the kernel can find that such an address must
        // not leave the machine.
        (Topology::Pod, Reply::Connmark) => vec![marked(rules), from_loopback(family)],
        (Topology::Pod, Reply::SourceRule) => vec![from_loopback(family)],
    }
}

fn marked(rules: &Rules) -> String {
    format!("fwmark {0:#x}/{0:#x}", rules.mark)
}

fn from_loopback(family: Family) -> String {
    match family {
        Family::V4 => "iif lo from 127.0.0.0/8".into(),
        Family::V6 => "iif lo from ::1/128".into(),
    }
}

fn any(family: Family) -> &'static str {
    match family {
        Family::V4 => "0.0.0.0/0",
        Family::V6 => "::/0",
    }
}

fn no_route(family: Family, table: u32) -> Command {
    ip(family, &format!("route del local {} dev lo table {table}", any(family))).run(Run::May)
}

fn ip(family: Family, args: &str) -> Command {
    let option = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    Command::words("ip", &format!("{option} {args}"))
}
