//! The command line: reading it, and the statuses that programs end with.

use std::ffi::OsStr;
use std::io;
use std::io::Write;
use std::process::ExitCode;

use clap::ArgAction;
use clap::ArgMatches;
use clap::Command;
use clap::Parser;
use clap::error::ErrorKind;
use serde_json::Value;

mod habits;
mod misuse;

pub use misuse::AND;
pub use misuse::matches;

use crate::kit::about;
use crate::kit::load;
use crate::kit::log;

/// A program as its caller sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Tool {
    /// What it is called.
    pub name: &'static str,
    /// The status for misuse, and for a configuration that is no good. For what goes wrong later it is 1.
    pub misused: u8,
    /// The section of the manual that it is in.
    pub section: &'static str,
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

/// The arguments that are in force by their long names, whether they were given, come from a variable or are defaults. Of
/// secrets it says only that they are set.
pub fn given(command: &Command, matches: &ArgMatches) -> Value {
    // What ends at once is not in force.
    const QUESTIONS: [&str; 8] =
        ["help", "version", "verbose", "man", "completions", "check", "print-config", "probe-ready"];
    let named = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    let in_force = named.filter(|(name, _)| !QUESTIONS.contains(name)).filter_map(|(name, arg)| {
        let id = arg.get_id().as_str();
        let values = matches.try_get_raw(id).ok()??;
        let is_secret = arg.is_hide_env_values_set();
        let shown = |value: &OsStr| match is_secret {
            true => Value::from("(set)"),
            false => Value::from(load::blotted(&value.to_string_lossy())),
        };
        let mut values: Vec<Value> = values.map(shown).collect();
        // A flag is a word of its own.
        if let [Value::String(word)] = &values[..]
            && let Ok(flag) = word.parse::<bool>()
        {
            return Some((name.to_owned(), flag.into()));
        }
        let is_list = matches!(arg.get_action(), ArgAction::Append) || arg.get_value_delimiter().is_some();
        let value = if is_list { values.into() } else { values.pop()? };
        Some((name.to_owned(), value))
    });
    Value::Object(in_force.collect())
}

impl Failure {
    /// Something went wrong, with what is behind it.
    pub fn runtime(error: impl std::error::Error) -> Self {
        Self::Runtime(log::chain(&error))
    }
}

impl Tool {
    /// A program of this name that serves, with 2 as the status for misuse.
    pub const fn new(name: &'static str) -> Self {
        Self { name, misused: 2, section: about::DAEMONS }
    }

    /// Sets the section of the manual: 1 for a program that people run by hand.
    #[must_use]
    pub const fn with_section(mut self, section: &'static str) -> Self {
        self.section = section;
        self
    }

    /// Sets the status for misuse.
    #[must_use]
    pub const fn with_misused(mut self, status: u8) -> Self {
        self.misused = status;
        self
    }

    /// Reads the arguments of the process, and gives them with their values as [`given`] has them.
    ///
    /// # Errors
    ///
    /// The status to end with; what there was to say has been printed then. Help and the like end with 0.
    pub fn parse<A: Parser>(&self) -> Result<(A, Value), ExitCode> {
        let mut command = about::with_about(A::command());
        if let Some(answered) = about::answer_in(&command, self.section) {
            return Err(answered);
        }
        let parsed = matches(&mut command, std::env::args_os(), |error, _| error);
        let args = parsed.and_then(|matches| {
            let given = given(&command, &matches);
            Ok((A::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?, given))
        });
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
