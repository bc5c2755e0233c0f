//! Setting, checking and removing rules.

use std::fs;
use std::process;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use meshlib::tproxy::Intercept;
use meshlib::tproxy::rules;
use meshlib::tproxy::rules::Command;
use meshlib::tproxy::rules::Difference;
use meshlib::tproxy::rules::Listing;
use meshlib::tproxy::rules::Rules;
use meshlib::tproxy::rules::Sysctl;
use meshlib::tproxy::rules::Tool;

use super::plan::is_here;
use super::plan::search_path;
use super::privileges::Lent;
use super::run::run_all;
use super::run::seen;
use super::run::shown;
use crate::kit::cli::Failure;

/// Rules that this process has set, until they are removed.
#[derive(Debug)]
pub(super) struct Applied {
    rules: Rules,
    tool: Tool,
    /// What is shown otherwise than it was set, by nobody's doing: the tool has other words for it.
    odd: Mutex<Vec<Difference>>,
}

/// Sets the rules. If that fails, nothing of them remains.
pub(super) fn apply(rules: Rules, tool: Tool) -> Result<Applied, Failure> {
    let _lent = Lent::new();
    let mut rules = guarded(rules);
    warn_of_others();
    if rules.v6.is_none() && has_ipv6() {
        tracing::warn!(
            target: "tproxy_poc",
            "IPv6 connections go past the proxy, which listens for IPv4 only; --addr '[::]:PORT' takes both"
        );
    }
    // Of an earlier run that did not live to switch them off, whatever its mode and tool.
    let mut known = recorded(tool)?;
    for other in other_tools(tool) {
        known.extend(
            recorded(other)?.into_iter().filter(|sysctl| !known.contains(sysctl)).collect::<Vec<_>>(),
        );
    }
    let (needed, needless): (Vec<_>, Vec<_>) =
        known.into_iter().partition(|sysctl| rules.sysctls().contains(sysctl));
    rules.switched_on = switch_on(&rules, needed)?;
    let mut applied = Applied { rules, tool, odd: Mutex::default() };
    let set = set(&applied.rules, tool).and_then(|odd| switch_off(&needless).map(|()| odd));
    match set {
        Ok(odd) => applied.odd = Mutex::new(odd),
        Err(error) => {
            // What would remember the settings may not have been set.
            let removed = applied.remove().and_then(|()| switch_off(&applied.rules.switched_on));
            if let Err(left) = removed {
                tracing::error!(target: "tproxy_poc", error = %left, "rules are left behind");
            }
            return Err(error);
        }
    }
    log(&applied.rules, tool, "rules installed");
    Ok(applied)
}

/// Returns what is shown otherwise than it was set.
fn set(rules: &Rules, tool: Tool) -> Result<Vec<Difference>, Failure> {
    run_all(&rules.apply(tool))?;
    // Of another mode, or of an earlier run with another tool.
    for other in other_tools(tool) {
        run_all(
            &rules::remove(other, rules.table, rules.priority)
                .into_iter()
                .filter(is_filter)
                .collect::<Vec<_>>(),
        )?;
    }
    if !differences(&rules.listings(tool))?.is_empty() {
        run_all(&rules.tidy(tool))?;
    }
    if !differences(&rules.listings(tool))?.is_empty() {
        // Routing rules with another mark.
        let routes = |commands: Vec<Command>| commands.into_iter().filter(|command| !is_filter(command));
        let again = routes(rules::remove(tool, rules.table, rules.priority)).chain(routes(rules.apply(tool)));
        run_all(&again.collect::<Vec<_>>())?;
        let differences = differences(&rules.listings(tool))?;
        for difference in &differences {
            tracing::warn!(target: "tproxy_poc", %difference, "the rules are not shown as they were set");
        }
        if !differences.is_empty() {
            return look(rules, tool);
        }
    }
    Ok(Vec::new())
}

impl Applied {
    /// How the rules that are set differ from those that this process has set. Runs three commands; for both families six
    /// with iptables, and five with nft.
    pub(super) fn look(&self) -> Result<Vec<Difference>, Failure> {
        let _lent = Lent::new();
        let now = look(&self.rules, self.tool)?;
        Ok(since(&self.odd(), now))
    }

    /// Sets them again, when somebody else has changed them or another version of the tool shows them in other words.
    /// Where that fails, what is there stays.
    pub(super) fn set_again(&self) -> Result<(), Failure> {
        let _lent = Lent::new();
        self.rules.sysctls().into_iter().filter(|sysctl| !is_on(*sysctl)).try_for_each(turn_on)?;
        let odd = set(&self.rules, self.tool)?;
        // Somebody may have changed them as soon as they were set.
        if is_wording(&odd) {
            *self.odd() = odd;
        }
        log(&self.rules, self.tool, "rules set again");
        Ok(())
    }

    fn odd(&self) -> MutexGuard<'_, Vec<Difference>> {
        self.odd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets new connections go past the proxy.
    pub(super) fn release(&self) -> Result<(), Failure> {
        let _lent = Lent::new();
        run_all(&self.rules.release(self.tool))
    }

    /// Removes them.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        let _lent = Lent::new();
        remove_of(self.tool, self.rules.table, self.rules.priority)?;
        log(&self.rules, self.tool, "rules removed");
        Ok(())
    }
}

/// Removes every rule of ours, set by one tool or by any.
pub(super) fn remove(tool: Option<Tool>, table: u32, priority: u32) -> Result<(), Failure> {
    let _lent = Lent::new();
    let tools = tool.map_or_else(all_tools, |tool| vec![tool]);
    // Where one tool fails, the rules of the others go nevertheless.
    let results: Vec<_> = tools.into_iter().map(|tool| remove_of(tool, table, priority)).collect();
    results.into_iter().collect::<Result<(), _>>()?;
    let tool = tool.map(tracing::field::display);
    tracing::info!(target: "tproxy_poc", tool, table, "rules removed");
    Ok(())
}

fn remove_of(tool: Tool, table: u32, priority: u32) -> Result<(), Failure> {
    let switched_on = recorded(tool)?;
    run_all(&rules::remove(tool, table, priority))?;
    if let Some(difference) = differences(&rules::leftovers(tool, table, priority))?.first() {
        return Err(Failure::Runtime(format!("this rule cannot be removed: {difference}")));
    }
    switch_off(&switched_on)
}

/// How the rules that are set differ from those that are wanted.
pub(super) fn check(rules: Rules, tool: Tool) -> Result<Vec<Difference>, Failure> {
    compare(guarded(rules), tool)
}

fn compare(mut rules: Rules, tool: Tool) -> Result<Vec<Difference>, Failure> {
    let _lent = Lent::new();
    probe(&rules, tool)?;
    rules.switched_on = recorded(tool)?;
    let mut found = differences(&rules.listings(tool))?;
    for other in other_tools(tool) {
        let filters = rules::leftovers(other, rules.table, rules.priority);
        let filters: Vec<_> = filters.into_iter().filter(|listing| is_filter(&listing.command)).collect();
        found.extend(differences(&filters)?);
    }
    found.extend(off(&rules));
    Ok(found)
}

/// Settings of the kernel that the rules need, and that are off.
fn off(rules: &Rules) -> impl Iterator<Item = Difference> {
    let off = rules.sysctls().into_iter().filter(|sysctl| !is_on(*sysctl));
    off.map(|sysctl| Difference::Missing(format!("{sysctl} = 1")))
}

/// How the rules that are set differ from those that are wanted, by the fewest commands: what is too much elsewhere is not
/// looked for. Fails unless it could look.
fn look(rules: &Rules, tool: Tool) -> Result<Vec<Difference>, Failure> {
    let mut found = Vec::new();
    for listing in rules.own_listings(tool) {
        found.extend(listing.compare(&seen(&listing.command)?));
    }
    found.extend(off(rules));
    Ok(found)
}

/// What has changed from one comparison to the next.
fn since(before: &[Difference], now: Vec<Difference>) -> Vec<Difference> {
    let gone = before.iter().filter(|difference| !now.contains(difference));
    let mut changed: Vec<_> = gone
        .filter_map(|difference| match difference {
            Difference::Unexpected(line) => Some(Difference::Missing(line.clone())),
            // It is shown as it was set after all.
            _ => None,
        })
        .collect();
    changed.extend(now.into_iter().filter(|difference| !before.contains(difference)));
    changed
}

/// Whether these may be the same rules in other words: each line that is missing has one in its place, and none is added.
fn is_wording(differences: &[Difference]) -> bool {
    let missing =
        differences.iter().filter(|difference| matches!(difference, Difference::Missing(_))).count();
    missing * 2 == differences.len()
}

/// Whether the kernel knows all that the rules are made of. Sets nothing.
fn probe(rules: &Rules, tool: Tool) -> Result<(), Failure> {
    let only_try = if tool == Tool::Nft { "--check" } else { "--test" };
    let mut tries: Vec<_> = rules.apply(tool).into_iter().filter(|command| command.input.is_some()).collect();
    tries.iter_mut().for_each(|command| command.args.insert(0, only_try.into()));
    run_all(&tries)
}

/// How the rules that are set differ from those that are wanted, whichever tool has set them: the one that comes closest.
pub(super) fn check_any(rules: Rules) -> Result<Vec<Difference>, Failure> {
    let rules = guarded(rules);
    let none = Err(Failure::Runtime("neither iptables nor nft is on PATH".into()));
    all_tools().into_iter().map(|tool| compare(rules.clone(), tool)).fold(none, |closest, found| {
        match (closest, found) {
            (Ok(closest), Ok(found)) if closest.len() <= found.len() => Ok(closest),
            (closest, Err(_)) if closest.is_ok() => closest,
            (_, found) => found,
        }
    })
}

/// Guards what listens on loopback addresses, if the kernel does not.
fn guarded(rules: Rules) -> Rules {
    let all = fs::read_dir("/proc/sys/net/ipv4/conf").into_iter().flatten().flatten();
    let mut open = all.filter(|interface| interface.file_name() != "lo").filter(|interface| {
        fs::read_to_string(interface.path().join("route_localnet")).is_ok_and(|value| value.trim() == "1")
    });
    let Some(interface) = open.next() else { return rules };
    tracing::warn!(
        target: "tproxy_poc",
        interface = ?interface.file_name(),
        "route_localnet is on: what comes from outside for 127.0.0.0/8 is dropped"
    );
    rules.with_guard_loopback(true)
}

/// Whether IPv6 clients may come from beyond the link.
fn has_ipv6() -> bool {
    // proc(5): address, index, length, scope (00 is global), flags, interface.
    let addresses = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    addresses.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        matches!(fields.as_slice(), [_, _, _, "00", _, interface] if *interface != "lo")
    })
}

/// Others may take connections before they come here. That they cannot be looked at is no reason not to begin.
fn warn_of_others() {
    for tool in all_tools().into_iter().filter(|tool| *tool != Tool::Nft) {
        for listing in rules::leftovers(tool, 0, 0).iter().filter(|listing| is_filter(&listing.command)) {
            for rule in rules::competing(&shown(&listing.command).unwrap_or_default()) {
                tracing::warn!(target: "tproxy_poc", rule, "a rule of somebody else takes connections, too");
            }
        }
    }
}

/// Says what became of the rules, with all that tells them from others.
fn log(rules: &Rules, tool: Tool, what: &str) {
    let mode = if rules.intercept == Intercept::Redirect { "nat" } else { "tproxy" };
    let families: Vec<_> = [("ipv4", rules.v4), ("ipv6", rules.v6)]
        .into_iter()
        .filter(|(_, listener)| listener.is_some())
        .map(|(name, _)| name)
        .collect();
    let (mark, table) = (rules.mark, rules.table);
    tracing::info!(
        target: "tproxy_poc",
        mode,
        families = families.join(","),
        %tool,
        reply = %rules.reply,
        mark,
        table,
        "{what}"
    );
}

/// The tools that are here and have rules of their own. The old tables are looked at only where somebody uses them: looking
/// brings them into being.
fn all_tools() -> Vec<Tool> {
    let known = [("iptables", Tool::Iptables), ("iptables-legacy", Tool::IptablesLegacy), ("nft", Tool::Nft)];
    let has_rules = |tool| tool != Tool::IptablesLegacy || (has_old_tables() && !are_same());
    let here = known.into_iter().filter(|(program, tool)| is_here(program) && has_rules(*tool));
    here.map(|(_, tool)| tool).collect()
}

/// The tools that have other rules than the one in use.
fn other_tools(tool: Tool) -> Vec<Tool> {
    let is_same =
        |other| other == tool || (other == Tool::Iptables && tool == Tool::IptablesLegacy && are_same());
    all_tools().into_iter().filter(|other| !is_same(*other)).collect()
}

/// Whether tables of iptables-legacy exist. Only root may know, and only root may change them.
fn has_old_tables() -> bool {
    ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .iter()
        .any(|names| fs::read_to_string(names).is_ok_and(|names| !names.is_empty()))
}

/// Whether iptables is iptables-legacy under another name.
fn are_same() -> bool {
    let version = process::Command::new("iptables").arg("-V").env("PATH", search_path()).output();
    version.is_ok_and(|version| !String::from_utf8_lossy(&version.stdout).contains("nf_tables"))
}

/// Whether a command is about packets rather than routes.
fn is_filter(command: &Command) -> bool {
    command.program != "ip"
}

/// Switches on what the rules need. Returns what is to be switched off with them: that, and what an earlier run has
/// switched on.
fn switch_on(rules: &Rules, mut switched: Vec<Sysctl>) -> Result<Vec<Sysctl>, Failure> {
    for sysctl in rules.sysctls() {
        if is_on(sysctl) {
            continue;
        }
        if let Err(error) = turn_on(sysctl) {
            for done in switched {
                // What can be undone is.
                let _ = fs::write(done.path(), "0\n");
            }
            return Err(error);
        }
        if !switched.contains(&sysctl) {
            switched.push(sysctl);
        }
    }
    Ok(switched)
}

fn turn_on(sysctl: Sysctl) -> Result<(), Failure> {
    fs::write(sysctl.path(), "1\n").map_err(|error| {
        Failure::Privilege(format!(
            "cannot set {sysctl} = 1, which --reply fwmark needs: {error}. Set it from outside, or use --reply connmark \
             or --reply source-rule, which need no sysctl"
        ))
    })
}

fn switch_off(sysctls: &[Sysctl]) -> Result<(), Failure> {
    sysctls.iter().try_for_each(|sysctl| {
        fs::write(sysctl.path(), "0\n")
            .map_err(|error| Failure::Runtime(format!("cannot switch off {sysctl}: {error}")))
    })
}

fn is_on(sysctl: Sysctl) -> bool {
    fs::read_to_string(sysctl.path()).is_ok_and(|value| value.trim() == "1")
}

/// What the rules that are set remember of settings.
fn recorded(tool: Tool) -> Result<Vec<Sysctl>, Failure> {
    let mut found = Vec::new();
    for listing in rules::leftovers(tool, 0, 0).iter().filter(|listing| is_filter(&listing.command)) {
        let more = rules::recorded_sysctls(&shown(&listing.command)?);
        found.extend(more.into_iter().filter(|sysctl| !found.contains(sysctl)).collect::<Vec<_>>());
    }
    Ok(found)
}

fn differences(listings: &[Listing]) -> Result<Vec<Difference>, Failure> {
    let mut all = Vec::new();
    for listing in listings {
        all.extend(listing.compare(&shown(&listing.command)?));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_odd_from_the_start_is_no_change() {
        let missing = |line: &str| Difference::Missing(line.into());
        let unexpected = |line: &str| Difference::Unexpected(line.into());
        // A version that shows one line in other words.
        let odd = vec![missing("a"), unexpected("A")];

        assert_eq!(since(&odd, odd.clone()), []);
        assert_eq!(since(&odd, vec![missing("a"), missing("b"), unexpected("A")]), [missing("b")]);
        assert_eq!(since(&odd, vec![missing("a"), missing("b")]), [missing("A"), missing("b")]);
        assert_eq!(since(&[], vec![missing("a")]), [missing("a")]);
    }

    #[test]
    fn rules_that_are_gone_or_added_are_not_the_same_in_other_words() {
        let missing = || Difference::Missing("a".into());
        let unexpected = || Difference::Unexpected("A".into());

        assert!(is_wording(&[]));
        assert!(is_wording(&[missing(), unexpected()]));
        assert!(!is_wording(&[missing()]));
        assert!(!is_wording(&[missing(), missing(), unexpected()]));
        assert!(!is_wording(&[unexpected()]));
    }
}
