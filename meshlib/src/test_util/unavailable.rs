//! What a test needs and does not have, and what it does then.

use std::env;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::path::Path;
use std::thread;

/// Why a test cannot have what it needs: a program, a network namespace, a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// A program is not on `PATH`.
    #[error("no {0} on PATH")]
    Program(String),
    /// The kernel refuses a namespace: this is not root, or a container without `CAP_SYS_ADMIN`, or there is no IPv6.
    #[error("cannot make a network namespace: {0}")]
    Unshare(io::Error),
    /// A script that sets up the namespace fails.
    #[error("`{script}` fails in the namespace: {reason}")]
    Script {
        /// The script.
        script: String,
        /// The exit status, and what was said on standard error.
        reason: String,
    },
    /// A server that tests run against is not installed.
    #[error("no {program}: run ./test servers, or set {variable} to its path")]
    Server {
        /// The program.
        program: &'static str,
        /// The environment variable that may name it.
        variable: &'static str,
    },
}

impl Unavailable {
    /// The environment variable that makes a test fail for this instead of being skipped.
    fn requirement(&self) -> &'static str {
        match self {
            Self::Server { .. } => "MESHLIB_REQUIRE_SERVERS",
            _ => "MESHLIB_REQUIRE_NETNS",
        }
    }
}

/// Checks that each of these programs is on `PATH`.
///
/// # Errors
///
/// [`Unavailable::Program`] names the first that is not.
pub fn require_programs(names: &[&str]) -> Result<(), Unavailable> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = |name: &str| env::split_paths(&path).any(|dir| dir.join(name).is_file());
    match names.iter().find(|name| !found(name)) {
        Some(name) => Err(Unavailable::Program((*name).into())),
        None => Ok(()),
    }
}

/// What was asked for, or nothing after saying why the test is skipped.
///
/// It prints `skipped: TEST: reason`, and appends `TEST: reason` to the file that the environment variable
/// `MESHLIB_SKIPPED` names, if it is set.
///
/// # Panics
///
/// Instead of skipping, if the environment variable `MESHLIB_REQUIRE_NETNS` is `1`, or `MESHLIB_REQUIRE_SERVERS` for a
/// missing server.
pub fn or_skip<T>(result: Result<T, Unavailable>) -> Option<T> {
    let reason = match result {
        Ok(value) => return Some(value),
        Err(reason) => reason,
    };
    assert!(env::var_os(reason.requirement()).is_none_or(|value| value != "1"), "{reason}");
    // The test harness names the thread after the test.
    let thread = thread::current();
    let line = format!("{}: {reason}", thread.name().unwrap_or("a test"));
    eprintln!("skipped: {line}");
    if let Some(file) = env::var_os("MESHLIB_SKIPPED") {
        note(Path::new(&file), &line)
            .unwrap_or_else(|error| panic!("{}: {error}", Path::new(&file).display()));
    }
    None
}

/// Appends a line in one write, so that tests at the same time do not mix.
fn note(file: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_missing_program_is_named() {
        let missing = require_programs(&["sh", "no-such-program"]).unwrap_err();

        assert_eq!(missing.to_string(), "no no-such-program on PATH");
    }

    #[test]
    fn what_is_there_is_not_skipped() {
        assert_eq!(or_skip(Ok(3)), Some(3));
    }

    #[test]
    fn each_skipped_test_is_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skipped");

        note(&file, "one: no ip on PATH").unwrap();
        note(&file, "two: no nft on PATH").unwrap();

        assert_eq!(fs::read_to_string(file).unwrap(), "one: no ip on PATH\ntwo: no nft on PATH\n");
    }
}
