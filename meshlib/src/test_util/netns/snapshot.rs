//! What a namespace looks like.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use super::namespace::Namespace;

use crate::test_util::require_programs;

/// Everything that a program can leave behind in a namespace: firewall rules, routing rules and routes, `net` sysctls.
///
/// Programs that are not on `PATH` are not asked. What says nothing is left out: counters, and the tables that `iptables`
/// makes by being called, as long as they are empty.
///
/// # Examples
///
/// ```
/// use meshlib::test_util::{netns::Namespace, or_skip};
///
/// let Some(namespace) = or_skip(Namespace::new()) else { return };
/// let before = namespace.snapshot();
///
/// namespace.sh("ip rule add pref 7089 fwmark 1 lookup 100");
///
/// let after = namespace.snapshot();
/// assert_ne!(before, after);
/// assert_eq!(after.since(&before), ["+ ip -4 rule: 7089:\tfrom all fwmark 0x1 lookup 100"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    lines: Vec<String>,
}

/// What lists rules and routes.
const LISTINGS: [&str; 9] = [
    "iptables-save",
    "ip6tables-save",
    "iptables-legacy-save",
    "ip6tables-legacy-save",
    "nft -s list ruleset",
    "ip -4 rule",
    "ip -6 rule",
    "ip -4 route show table all",
    "ip -6 route show table all",
];

impl Namespace {
    /// All rules, routes and sysctls. Blocks the thread.
    ///
    /// # Panics
    ///
    /// If a program that lists them fails.
    pub fn snapshot(&self) -> Snapshot {
        let mut lines = Vec::new();
        for listing in LISTINGS {
            let program = listing.split(' ').next().expect("a listing names a program");
            if require_programs(&[program]).is_err() {
                continue;
            }
            let text = self.sh(listing);
            let said = match program {
                "nft" => nft_lines(&text),
                "ip" => text.lines().map(|line| line.trim_end().to_owned()).collect(),
                _ => iptables_lines(&text),
            };
            lines.extend(said.into_iter().map(|line| format!("{listing}: {line}")));
        }
        lines.extend(self.run(sysctls).into_iter().map(|(key, value)| format!("{key} = {value}")));
        Snapshot { lines }
    }
}

impl Snapshot {
    /// What came (`+`) and went (`-`) since an earlier one.
    pub fn since(&self, before: &Self) -> Vec<String> {
        let came = difference("+", &self.lines, &before.lines);
        let went = difference("-", &before.lines, &self.lines);
        went.into_iter().chain(came).collect()
    }

    /// The lines, each with the command that said it, or with the sysctl.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// The lines that one has and the other has not, or has fewer of.
fn difference(sign: &str, lines: &[String], other: &[String]) -> Vec<String> {
    let mut left = BTreeMap::<&str, usize>::new();
    for line in other {
        *left.entry(line).or_default() += 1;
    }
    let mut more = Vec::new();
    for line in lines {
        match left.get_mut(line.as_str()) {
            Some(n) if *n > 0 => *n -= 1,
            _ => more.push(format!("{sign} {line}")),
        }
    }
    more
}

/// The chains and rules of `iptables-save`, each with its table. Built-in chains are there anyway, unless they drop.
fn iptables_lines(text: &str) -> Vec<String> {
    let mut table = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = line.split(" [").next().unwrap_or(line);
        match line.chars().next() {
            Some('*') => table = line,
            Some(':') if !line.ends_with(" ACCEPT") => lines.push(format!("{table} {line}")),
            Some('-') => lines.push(format!("{table} {line}")),
            _ => {}
        }
    }
    lines
}

/// The rules of `nft list ruleset`, without the tables that `iptables` manages and lists.
fn nft_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        }
        if !is_of_iptables(table) && !line.trim().is_empty() && !line.starts_with('#') {
            lines.push(line.trim_end().into());
        }
    }
    lines
}

fn is_of_iptables(table: &str) -> bool {
    let (family, name) = table.split_once(' ').unwrap_or_default();
    matches!(family, "ip" | "ip6") && matches!(name, "raw" | "mangle" | "nat" | "filter" | "security")
}

/// Every sysctl of IPv4 and IPv6 that can be read, in the calling thread's namespace.
fn sysctls() -> BTreeMap<String, String> {
    let root = Path::new("/proc/sys");
    let mut found = BTreeMap::new();
    let mut dirs: Vec<PathBuf> = ["net/ipv4", "net/ipv6"].map(|dir| root.join(dir)).into();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if let Ok(value) = fs::read_to_string(&path) {
                let key = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                found.insert(key.replace('/', "."), value.trim_end().into());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Pod;
    use super::*;
    use crate::test_util::or_skip;

    #[test]
    fn nothing_changes_by_looking_or_by_traffic() {
        let Some(net) = or_skip(Pod::new()) else { return };
        let before = net.pod.snapshot();

        let again = net.pod.snapshot();

        assert!(before.lines().len() > 100, "{before:#?}");
        assert_eq!(again.since(&before), Vec::<String>::new());
        assert_eq!(again, before);
    }

    #[test]
    fn rules_routes_and_sysctls_show_and_vanish() {
        if or_skip(require_programs(&["iptables", "nft"])).is_none() {
            return;
        }
        let Some(net) = or_skip(Pod::new()) else { return };
        let before = net.pod.snapshot();

        net.pod.sh("iptables -w 5 -t mangle -A OUTPUT -p tcp -j ACCEPT
            ip6tables -w 5 -t nat -N MESHLIB_PRE
            nft add table inet meshlib_tproxy
            ip -6 rule add pref 7089 iif lo from ::1 lookup 100
            ip -6 route add local ::/0 dev lo table 100");
        net.pod.set_sysctl("net.ipv4.fwmark_reflect", "1");
        let came = net.pod.snapshot().since(&before);
        net.pod.sh("iptables -w 5 -t mangle -D OUTPUT -p tcp -j ACCEPT
            ip6tables -w 5 -t nat -X MESHLIB_PRE
            nft delete table inet meshlib_tproxy
            ip -6 rule del pref 7089
            ip -6 route flush table 100");
        net.pod.set_sysctl("net.ipv4.fwmark_reflect", "0");

        let expected = [
            "- net.ipv4.fwmark_reflect = 0",
            "+ iptables-save: *mangle -A OUTPUT -p tcp -j ACCEPT",
            "+ ip6tables-save: *nat :MESHLIB_PRE -",
            "+ nft -s list ruleset: table inet meshlib_tproxy {",
            "+ nft -s list ruleset: }",
            "+ ip -6 rule: 7089:\tfrom ::1 iif lo lookup 100",
            "+ ip -6 route show table all: local default dev lo table 100 metric 1024 pref medium",
            "+ net.ipv4.fwmark_reflect = 1",
        ];
        assert_eq!(came, expected);
        assert_eq!(net.pod.snapshot().since(&before), Vec::<String>::new());
    }

    #[test]
    fn counters_and_empty_chains_are_left_out() {
        let text = "# comment\n*mangle\n:PREROUTING ACCEPT [3:180]\n:FORWARD DROP [0:0]\n:OWN - [0:0]\n\
                    -A PREROUTING -p tcp -j OWN\nCOMMIT\n";

        let lines = iptables_lines(text);

        assert_eq!(lines, ["*mangle :FORWARD DROP", "*mangle :OWN -", "*mangle -A PREROUTING -p tcp -j OWN"]);
    }

    #[test]
    fn tables_of_iptables_are_not_listed_twice() {
        let text = "table ip mangle {\n\tchain OUTPUT {\n\t}\n}\ntable inet own {\n\tchain pre {\n\t}\n}\n";

        assert_eq!(nft_lines(text), ["table inet own {", "\tchain pre {", "\t}", "}"]);
    }
}
