//! Running the program.

use std::process::ExitCode;

use clap::CommandFactory;
use clap::Parser;
use clap::error::ErrorKind;
use meshlib::tproxy::Intercept;
use tokio::runtime::Builder;
use tracing::Level;

use super::Failure;
use super::args::Args;
use super::args::Command;
use super::args::SourceArg;
use super::commands;
use super::plan;
use super::plan::Plan;
use super::privileges;
use super::serve::serve;
use crate::limits;
use crate::log;
use crate::log::LogOptions;
use crate::log::LogOutput;

const FAILED: u8 = 1;
const MISUSED: u8 = 2;
/// As test programs say that they cannot run here.
const UNPRIVILEGED: u8 = 77;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody is left to be told that this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(MISUSED) } else { ExitCode::SUCCESS };
        }
    };
    // What a subcommand prints is its result.
    let output = if args.command.is_some() { LogOutput::Stderr } else { LogOutput::Stdout };
    let options = LogOptions::new("tproxy_poc").with_output(output).with_level(Level::INFO);
    log::start(&options.with_format(args.log_format));
    let result = match args.command {
        Some(Command::Rules(command)) => commands::handle(&args.intercept, command),
        None => run(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|failure| {
        if let Failure::Usage(text) = &failure {
            // In the form of the other misuses.
            let _ = Args::command().error(ErrorKind::ValueValidation, text).print();
            return ExitCode::from(MISUSED);
        }
        eprintln!("tproxy-poc: {failure}");
        ExitCode::from(if matches!(failure, Failure::Privilege(_)) { UNPRIVILEGED } else { FAILED })
    })
}

fn run(args: &Args) -> Result<(), Failure> {
    let plan = Plan::new(&args.intercept)?;
    let tool = plan::tool(args.intercept.rules)?;
    if tool.is_some() {
        privileges::for_rules()?;
    }
    let is_spoofing = args.source != SourceArg::None;
    if is_spoofing || plan.rules.intercept == Intercept::Tproxy {
        privileges::for_sockets(is_spoofing)?;
    }
    limits::raise_descriptors();
    let failed = |error: std::io::Error| Failure::Runtime(error.to_string());
    let runtime =
        Builder::new_current_thread().enable_all().max_blocking_threads(4).build().map_err(failed)?;
    let result = runtime.block_on(serve(args, plan, tool));
    // After a second signal there are threads that work on; the process ends without them.
    runtime.shutdown_background();
    result
}
