//! The command line: reading it, and the statuses that programs end with.

use std::io;
use std::io::Write;
use std::process::ExitCode;

use clap::Command;
use clap::Parser;
use clap::error::ErrorKind;

use crate::about;
use crate::log;

/// A program as its caller sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Tool {
    /// What it is called.
    pub name: &'static str,
    /// The status for misuse, and for a configuration that is no good. For what goes wrong later it is 1.
    pub misused: u8,
}

/// The status for what goes wrong when a program runs.
const FAILED: u8 = 1;
/// As test programs say that they cannot run here.
const UNPRIVILEGED: u8 = 77;

/// Why a program ends without having done what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It was asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// What it was told to read is no good. The text names the place, and may have several lines.
    #[error("{0}")]
    Config(String),
    /// It lacks a privilege.
    #[error("{0}")]
    Privilege(String),
    /// Something went wrong.
    #[error("{0}")]
    Runtime(String),
}

/// Prints a result on stdout. Nobody is left to be told if that cannot be done.
pub fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

impl Failure {
    /// Something went wrong, with what is behind it.
    pub fn runtime(error: impl std::error::Error) -> Self {
        Self::Runtime(log::chain(&error))
    }
}

impl Tool {
    /// A program of this name, with 2 as the status for misuse.
    pub const fn new(name: &'static str) -> Self {
        Self { name, misused: 2 }
    }

    /// Sets the status for misuse.
    #[must_use]
    pub const fn with_misused(mut self, status: u8) -> Self {
        self.misused = status;
        self
    }

    /// Reads the arguments of the process.
    ///
    /// # Errors
    ///
    /// The status to end with; what there was to say has been printed then. Help and the like end with 0.
    pub fn parse<A: Parser>(&self) -> Result<A, ExitCode> {
        let mut command = about::with_about(A::command());
        if let Some(answered) = about::answer(&command) {
            return Err(answered);
        }
        let parsed = command.try_get_matches_from_mut(std::env::args_os());
        let args =
            parsed.and_then(|matches| A::from_arg_matches(&matches).map_err(|e| e.format(&mut command)));
        args.map_err(|error| self.refused(&error))
    }

    /// Prints what is wrong with arguments, or what they asked for instead of running, and returns the status.
    pub fn refused(&self, error: &clap::Error) -> ExitCode {
        // Nobody is left to be told that this cannot be printed.
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(self.misused) } else { ExitCode::SUCCESS }
    }

    /// Says how a program with this command line has ended, and returns the status.
    pub fn ended(&self, mut command: Command, result: Result<(), Failure>) -> ExitCode {
        let failure = match result {
            Ok(()) => return ExitCode::SUCCESS,
            Err(failure) => failure,
        };
        // Nobody is left to be told that this cannot be printed.
        let _ = match &failure {
            Failure::Usage(text) => {
                return self.refused(&command.error(ErrorKind::ValueValidation, text));
            }
            // It says where; what stands before that would hide it from editors.
            Failure::Config(text) => writeln!(io::stderr(), "{text}"),
            Failure::Privilege(text) | Failure::Runtime(text) => {
                writeln!(io::stderr(), "{}: {text}", self.name)
            }
        };
        ExitCode::from(match failure {
            Failure::Usage(_) | Failure::Config(_) => self.misused,
            Failure::Privilege(_) => UNPRIVILEGED,
            Failure::Runtime(_) => FAILED,
        })
    }
}
