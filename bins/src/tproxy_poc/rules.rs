//! Setting, checking and removing rules: runs the commands that the library writes.

use std::fs;
use std::io;
use std::io::Write;
use std::process;
use std::process::Stdio;

use meshlib::tproxy::Intercept;
use meshlib::tproxy::rules;
use meshlib::tproxy::rules::Command;
use meshlib::tproxy::rules::Difference;
use meshlib::tproxy::rules::Listing;
use meshlib::tproxy::rules::Rules;
use meshlib::tproxy::rules::Run;
use meshlib::tproxy::rules::Sysctl;
use meshlib::tproxy::rules::Tool;

use super::Failure;
use super::plan::is_here;
use super::plan::search_path;
use super::privileges::Lent;

/// More rules of one kind than anybody sets: what is removed until there is no more ends here.
const MOST: usize = 1000;

/// Rules that this process has set, until they are removed.
#[derive(Debug)]
pub(super) struct Applied {
    rules: Rules,
    tool: Tool,
}

/// Sets the rules. If that fails, nothing of them remains.
pub(super) fn apply(rules: Rules, tool: Tool) -> Result<Applied, Failure> {
    let _lent = Lent::new();
    let mut rules = guarded(rules);
    rules.switched_on = switch_on(&rules, tool)?;
    let mut applied = Applied { rules, tool };
    if let Err(error) = set(&mut applied) {
        if let Err(left) = remove(Some(tool), applied.rules.table, applied.rules.priority) {
            tracing::error!(target: "tproxy_poc", error = %left, "rules are left behind");
        }
        return Err(error);
    }
    log_installed(&applied.rules, tool);
    Ok(applied)
}

fn set(applied: &mut Applied) -> Result<(), Failure> {
    let Applied { rules, tool } = applied;
    run_all(&rules.apply(*tool))?;
    // Of another mode, or of an earlier run with another tool.
    let others = all_tools().into_iter().filter(|other| is_other(*other, *tool));
    for other in others {
        run_all(
            &rules::remove(other, rules.table, rules.priority)
                .into_iter()
                .filter(is_filter)
                .collect::<Vec<_>>(),
        )?;
    }
    if !differences(&rules.listings(*tool))?.is_empty() {
        run_all(&rules.tidy(*tool))?;
        for difference in differences(&rules.listings(*tool))? {
            tracing::warn!(target: "tproxy_poc", %difference, "the rules are not shown as they were set");
        }
    }
    Ok(())
}

impl Applied {
    /// Lets new connections go past the proxy.
    pub(super) fn release(&self) -> Result<(), Failure> {
        let _lent = Lent::new();
        run_all(&self.rules.release(self.tool))
    }

    /// Removes them.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        remove(Some(self.tool), self.rules.table, self.rules.priority)
    }
}

/// Removes every rule of ours, set by one tool or by any.
pub(super) fn remove(tool: Option<Tool>, table: u32, priority: u32) -> Result<(), Failure> {
    let _lent = Lent::new();
    let tools = tool.map_or_else(all_tools, |tool| vec![tool]);
    let mut switched_on = Vec::new();
    for tool in tools {
        switched_on.extend(recorded(tool)?);
        run_all(&rules::remove(tool, table, priority))?;
        if let Some(difference) = differences(&rules::leftovers(tool, table, priority))?.first() {
            return Err(Failure::Runtime(format!("this rule cannot be removed: {difference}")));
        }
    }
    for sysctl in switched_on {
        fs::write(sysctl.path(), "0\n")
            .map_err(|error| Failure::Runtime(format!("cannot switch off {sysctl}: {error}")))?;
    }
    tracing::info!(target: "tproxy_poc", "rules removed");
    Ok(())
}

/// How the rules that are set differ from those that are wanted.
pub(super) fn check(rules: Rules, tool: Tool) -> Result<Vec<Difference>, Failure> {
    let _lent = Lent::new();
    let mut rules = guarded(rules);
    rules.switched_on = recorded(tool)?;
    let mut found = differences(&rules.listings(tool))?;
    for other in all_tools().into_iter().filter(|other| is_other(*other, tool)) {
        let filters = rules::leftovers(other, rules.table, rules.priority);
        let filters: Vec<_> = filters.into_iter().filter(|listing| is_filter(&listing.command)).collect();
        found.extend(differences(&filters)?);
    }
    for sysctl in rules.sysctls() {
        if !is_on(sysctl) {
            found.push(Difference::Missing(format!("{sysctl} = 1")));
        }
    }
    Ok(found)
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

fn log_installed(rules: &Rules, tool: Tool) {
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
        ?tool,
        reply = ?rules.reply,
        mark,
        table,
        "rules installed"
    );
}

/// The tools that are here and have rules of their own.
fn all_tools() -> Vec<Tool> {
    let known = [("iptables", Tool::Iptables), ("iptables-legacy", Tool::IptablesLegacy), ("nft", Tool::Nft)];
    known.into_iter().filter(|(program, _)| is_here(program)).map(|(_, tool)| tool).collect()
}

/// Whether a tool has other rules than the one in use. The old tables are looked at only where somebody uses them: looking
/// brings them into being.
fn is_other(other: Tool, tool: Tool) -> bool {
    other != tool && other != Tool::IptablesLegacy
}

/// Whether a command is about packets rather than routes.
fn is_filter(command: &Command) -> bool {
    command.program != "ip"
}

/// Switches on what the rules need. Returns what is to be switched off with them.
fn switch_on(rules: &Rules, tool: Tool) -> Result<Vec<Sysctl>, Failure> {
    let needed = rules.sysctls();
    if needed.is_empty() {
        return Ok(Vec::new());
    }
    // An earlier run may have done so, and not lived to undo it.
    let mut switched = recorded(tool)?;
    for sysctl in needed {
        if is_on(sysctl) {
            continue;
        }
        if let Err(error) = fs::write(sysctl.path(), "1\n") {
            for done in switched {
                // What can be undone is.
                let _ = fs::write(done.path(), "0\n");
            }
            return Err(Failure::Privilege(format!(
                "cannot set {sysctl} = 1, which --reply fwmark needs: {error}. Set it from outside, or use --reply \
                 connmark or --reply source-rule, which need no sysctl"
            )));
        }
        if !switched.contains(&sysctl) {
            switched.push(sysctl);
        }
    }
    Ok(switched)
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

/// What a command shows; nothing, if it may fail and does.
fn shown(command: &Command) -> Result<String, Failure> {
    let output = once(command, &command.args)?;
    if !output.status.success() && command.run == Run::Must {
        return Err(failed(command, &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run_all(commands: &[Command]) -> Result<(), Failure> {
    commands.iter().try_for_each(run)
}

fn run(command: &Command) -> Result<(), Failure> {
    tracing::debug!(target: "tproxy_poc", %command, "running");
    if let Run::Unless(check) = &command.run
        && once(command, check)?.status.success()
    {
        return Ok(());
    }
    let output = once(command, &command.args)?;
    let success = output.status.success();
    match &command.run {
        Run::UntilFailure => {
            let mut more = success;
            for _ in 0..MOST {
                if !more {
                    break;
                }
                more = once(command, &command.args)?.status.success();
            }
            Ok(())
        }
        Run::May => Ok(()),
        Run::Tolerating(text) if String::from_utf8_lossy(&output.stderr).contains(text) => Ok(()),
        _ if success => Ok(()),
        _ => Err(failed(command, &output)),
    }
}

fn failed(command: &Command, output: &process::Output) -> Failure {
    let said = String::from_utf8_lossy(&output.stderr);
    Failure::Runtime(format!("`{command}` failed ({}): {}{}", output.status, said.trim(), hint(&said)))
}

/// What may be missing when a tool says that it does not know something.
fn hint(said: &str) -> String {
    const MODULES: [(&str, &str); 6] = [
        ("TPROXY", "xt_TPROXY (nft: nft_tproxy)"),
        ("match `socket'", "xt_socket"),
        ("socket", "xt_socket (nft: nft_socket)"),
        ("conntrack", "nf_conntrack and xt_conntrack"),
        ("CONNMARK", "xt_connmark"),
        ("REDIRECT", "xt_REDIRECT and nf_nat"),
    ];
    let missing = ["No such file", "Extension", "not supported", "Couldn't load", "No chain/target/match"];
    if !missing.iter().any(|text| said.contains(text)) {
        return String::new();
    }
    let module = MODULES
        .iter()
        .find(|(word, _)| said.contains(word))
        .map_or("a module of netfilter", |(_, module)| module);
    format!(" (does this kernel lack {module}?)")
}

fn once(command: &Command, args: &[String]) -> Result<process::Output, Failure> {
    let start = || -> io::Result<process::Output> {
        let mut child = process::Command::new(command.program)
            .args(args)
            .env("PATH", search_path())
            .env("LC_ALL", "C")
            .stdin(if command.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let (Some(input), Some(mut stdin)) = (&command.input, child.stdin.take())
            && let Err(error) = stdin.write_all(input.as_bytes())
            // It has ended without reading all, and says why.
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error);
        }
        child.wait_with_output()
    };
    start().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Runtime(format!("`{}` is not on PATH", command.program)),
        _ => Failure::Runtime(format!("cannot run `{}`: {error}", command.program)),
    })
}
