//! Running the program.

use std::process::ExitCode;

use tokio::runtime::Builder;
use tracing::Level;

use super::args::Settings;
use super::parts::check;
use super::run::run;
use crate::limits;
use crate::log;
use crate::log::LogOptions;
use crate::log::LogOutput;

const FAILED: u8 = 1;
const MISUSED: u8 = 2;
/// Outages of Consul: ours are the lines about the services, and what waits for the store has its own.
const RETOLD: &[&str] = &["meshlib_consul::leader"];

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
    let options = options.with_format(settings.log_format).with_retold(RETOLD);
    log::start(&options);
    for warning in &settings.warnings {
        tracing::warn!(target: "tricot", "{warning}");
    }
    if settings.check {
        return checked(&settings, &options);
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

/// Ends with what there is to say about settings that are only to be checked.
fn checked(settings: &Settings, options: &LogOptions) -> ExitCode {
    if let Err(error) = check(settings) {
        eprintln!("tricot: {error}");
        return ExitCode::from(MISUSED);
    }
    // They were printed when logging was started.
    if !log::problems(options).is_empty() {
        return ExitCode::from(MISUSED);
    }
    println!("the arguments and variables are right");
    ExitCode::SUCCESS
}
