//! Running the program.

use std::process::ExitCode;

use tracing::Level;

use super::args::Settings;
use super::parts::check;
use super::run::run;
use crate::kit::about;
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

const TOOL: Tool = Tool::new("tricot");
/// Outages of Consul: ours are the lines about the services, and what waits for the store has its own.
const RETOLD: &[&str] = &["meshlib_consul::leader"];

/// Runs the program with the arguments and variables of the process.
pub fn main() -> ExitCode {
    if let Some(answered) = about::answer(&Settings::command()) {
        return answered;
    }
    let settings = match Settings::parse() {
        Ok(settings) => settings,
        Err(error) => return TOOL.refused(&error),
    };
    if settings.probe_ready {
        return TOOL.ended(Settings::command(), probe_ready(&settings));
    }
    let options = LogOptions::new("tricot").with_output(LogOutput::Stdout).with_level(Level::INFO);
    let options = options.with_format(settings.log_format).with_retold(RETOLD);
    log::start(&options);
    for warning in &settings.warnings {
        tracing::warn!(target: "tricot", "{warning}");
    }
    TOOL.ended(Settings::command(), run_or_check(settings, &options))
}

fn probe_ready(settings: &Settings) -> Result<(), Failure> {
    let nowhere =
        || Failure::Usage("--probe-ready needs TRICOT_METRICS_BIND_ADDR, where readiness is told".into());
    probe::ready(settings.listen.metrics.ok_or_else(nowhere)?)
}

fn run_or_check(settings: Settings, options: &LogOptions) -> Result<(), Failure> {
    if settings.print_config {
        cli::print(load::yaml(&settings.given).trim_end());
        return Ok(());
    }
    if settings.check {
        check(&settings).map_err(|problems| {
            let lines = problems.iter().map(|problem| format!("tricot: {problem}"));
            Failure::Config(lines.collect::<Vec<_>>().join("\n"))
        })?;
        // They were printed when logging was started.
        if !log::problems(options).is_empty() {
            return Err(Failure::Config("tricot: RUST_LOG is not understood".into()));
        }
        cli::print("the arguments and variables are right");
        return Ok(());
    }
    limits::raise_descriptors();
    control::run(async { run(settings).await.map_err(Failure::Runtime) })
}
