//! Handling rules without running the proxy.

use std::fmt;
use std::io;
use std::io::Write as _;
use std::process::ExitCode;

use meshlib::tproxy::rules::Sysctl;
use meshlib::tproxy::rules::Tool;
use meshlib::tproxy::rules::remove;

use super::args::InterceptArgs;
use super::args::ReplyArg;
use super::args::RulesCommand;
use super::args::ToolArg;
use super::plan;
use super::plan::Plan;
use super::privileges;
use super::rules;
use crate::kit::cli::Failure;

/// The status for rules that differ.
const DIFFERENT: u8 = 1;

pub(super) fn handle(args: &InterceptArgs, command: RulesCommand) -> Result<ExitCode, Failure> {
    match command {
        RulesCommand::Print { remove: true } => {
            print(remove(some_tool(args.rules)?, args.table, args.rule_priority))?;
            if args.reply == ReplyArg::Fwmark {
                print(Sysctl::FWMARK.iter().map(|sysctl| format!("sysctl -w {sysctl}=0")))?;
            }
        }
        RulesCommand::Print { remove: false } => {
            let plan = Plan::new(args)?;
            let tool = some_tool(args.rules)?;
            let sysctls = plan.rules.sysctls();
            print(sysctls.iter().map(|sysctl| format!("sysctl -w {sysctl}=1")))?;
            // What the printed commands switch on is switched off with the rules.
            print(plan.rules.with_switched_on(sysctls).apply(tool))?;
        }
        RulesCommand::Apply => {
            let plan = Plan::new(args)?;
            let tool = some_tool(args.rules)?;
            privileges::for_rules()?;
            // They stay.
            drop(rules::apply(plan.rules, tool)?);
        }
        RulesCommand::Remove => {
            let tool = match args.rules {
                ToolArg::Auto => None,
                arg => Some(some_tool(arg)?),
            };
            privileges::for_rules()?;
            rules::remove(tool, args.table, args.rule_priority)?;
        }
        RulesCommand::Check => {
            let plan = Plan::new(args)?;
            let tool = some_tool(args.rules)?;
            privileges::for_rules()?;
            let differences = rules::check(plan.rules, tool)?;
            print(&differences)?;
            if !differences.is_empty() {
                return Ok(ExitCode::from(DIFFERENT));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for each.
fn print<L: fmt::Display>(lines: impl IntoIterator<Item = L>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let printed =
        lines.into_iter().try_for_each(|line| writeln!(stdout, "{line}")).and_then(|()| stdout.flush());
    match printed {
        // Whoever reads has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(|error| Failure::Runtime(format!("cannot print: {error}"))),
    }
}

fn some_tool(arg: ToolArg) -> Result<Tool, Failure> {
    plan::tool(arg)?.ok_or_else(|| Failure::Usage("--rules none leaves nothing to do".into()))
}
