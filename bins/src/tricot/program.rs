//! Running the program.

use std::process::ExitCode;

use tokio::runtime::Builder;
use tracing::Level;

use super::args::Settings;
use super::run::run;
use crate::limits;
use crate::log;
use crate::log::LogOptions;
use crate::log::LogOutput;

const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// Runs the program with the arguments and variables of the process.
pub fn main() -> ExitCode {
    let settings = match Settings::parse() {
        Ok(settings) => settings,
        Err(error) => {
            // Nobody is left to be told that this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(MISUSED) } else { ExitCode::SUCCESS };
        }
    };
    let options = LogOptions::new("tricot").with_output(LogOutput::Stdout).with_level(Level::INFO);
    log::start(&options.with_format(settings.log_format));
    for warning in &settings.warnings {
        tracing::warn!(target: "tricot", "{warning}");
    }
    if settings.check {
        println!("the arguments and variables are right");
        return ExitCode::SUCCESS;
    }
    limits::raise_descriptors();
    let runtime = match Builder::new_current_thread().enable_all().max_blocking_threads(8).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tricot: cannot start: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let result = runtime.block_on(run(settings));
    // After a second signal there are threads that work on; the process ends without them.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tricot: {error}");
            ExitCode::from(FAILED)
        }
    }
}
