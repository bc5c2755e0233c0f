//! Running the program.

use std::process::ExitCode;

use clap::CommandFactory;
use meshlib::tproxy::Intercept;
use serde_json::Value;
use tracing::Level;

use super::args::Args;
use super::args::Command;
use super::args::SourceArg;
use super::commands;
use super::plan;
use super::plan::Plan;
use super::privileges;
use super::serve::serve;
use crate::kit::cli;
use crate::kit::cli::Failure;
use crate::kit::cli::Tool;
use crate::kit::control;
use crate::kit::limits;
use crate::kit::load;
use crate::kit::log;
use crate::kit::log::LogOptions;
use crate::kit::log::LogOutput;
use crate::kit::probe;
use crate::kit::sockets::overlap;

const TOOL: Tool = Tool::new("tproxy-poc");

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let (args, given): (Args, _) = match TOOL.parse() {
        Ok(args) => args,
        Err(status) => return status,
    };
    // What a subcommand prints is its result.
    let output = if args.command.is_some() { LogOutput::Stderr } else { LogOutput::Stdout };
    let options = LogOptions::new("tproxy_poc").with_output(output).with_level(Level::INFO);
    log::start(&options.with_format(args.log_format));
    match args.command {
        Some(_) if args.check || args.print_config || args.probe_ready => {
            let text =
                "--check, --print-config and --probe-ready are about the proxy and go with no subcommand";
            TOOL.ended(Args::command(), Err(Failure::Usage(text.into())))
        }
        Some(Command::Rules { command, .. }) => commands::handle(&args.intercept, command)
            .unwrap_or_else(|failure| TOOL.ended(Args::command(), Err(failure))),
        None => TOOL.ended(Args::command(), run(&args, given)),
    }
}

fn run(args: &Args, given: Value) -> Result<(), Failure> {
    if let (true, Some(admin)) = (args.probe_ready, args.proxy.metrics) {
        return probe::ready(admin);
    }
    let plan = Plan::new(&args.intercept)?;
    if let Some(metrics) = args.proxy.metrics
        && let Some(addr) = plan.addrs.iter().find(|addr| {
            // Beside one of IPv4, one of IPv6 takes no IPv4.
            let other_family = addr.is_ipv6() && metrics.is_ipv4() && plan.rules.v4.is_some();
            !other_family && overlap(**addr, metrics)
        })
    {
        let text = format!(
            "--metrics {metrics} and --addr {addr} are the same port of the same address; each needs its own"
        );
        return Err(Failure::Usage(text));
    }
    if args.print_config {
        cli::print(load::yaml(&given).trim_end());
        return Ok(());
    }
    if args.check {
        cli::print("the arguments are right");
        return Ok(());
    }
    let tool = plan::tool(args.intercept.rules)?;
    if tool.is_some() {
        privileges::for_rules()?;
    }
    let is_spoofing = args.proxy.source != SourceArg::None;
    if is_spoofing || plan.rules.intercept == Intercept::Tproxy {
        privileges::for_sockets(is_spoofing)?;
    }
    limits::raise_descriptors();
    control::run(serve(args, given, plan, tool))
}
