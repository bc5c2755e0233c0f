//! Programs inside a namespace.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use super::namespace::Namespace;

const KILLED_WITH_THREAD: [&str; 2] = ["--pdeathsig", "KILL"];

/// How often a child is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// A program to run inside a [`Namespace`]. It is killed when the namespace ends.
///
/// It is a [`Command`] that can only be started inside. Standard input is empty unless set.
#[derive(Debug)]
#[must_use = "it starts nothing by itself"]
pub struct NamespaceCommand<'a> {
    namespace: &'a Namespace,
    command: Command,
}

impl<'a> NamespaceCommand<'a> {
    pub(super) fn new(namespace: &'a Namespace, setpriv: &[&str], program: &str) -> Self {
        // A child inherits the namespace of the thread that starts it; the kernel sends the signal when that thread
        // ends, which is when the namespace ends, also if this process is killed.
        let mut command = Command::new("setpriv");
        command.args(KILLED_WITH_THREAD).args(setpriv).arg("--").arg(program);
        command.stdin(Stdio::null());
        Self { namespace, command }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item: AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Removes a variable of the environment.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Sets standard input.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// Sets standard output.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout);
        self
    }

    /// Sets standard error.
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.command.stderr(stderr);
        self
    }

    /// Starts it and returns once the program runs. The id of the child is that of the program.
    ///
    /// # Errors
    ///
    /// What the operating system says about `setpriv`. A program that does not exist makes the child end with 127.
    pub fn spawn(self) -> io::Result<Child> {
        let Self { namespace, mut command } = self;
        namespace.run(move || {
            let mut child = command.spawn()?;
            // The thread must not end before the signal is arranged for, which is not long after.
            while !is_program(child.id()) && child.try_wait()?.is_none() {
                thread::sleep(LOOK);
            }
            Ok(child)
        })
    }

    /// Runs it to its end and collects what it printed. Blocks the thread.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    pub fn output(self) -> io::Result<Output> {
        self.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?.wait_with_output()
    }
}

/// Whether a process has become the program that `setpriv` starts.
fn is_program(pid: u32) -> bool {
    let [option, signal] = KILLED_WITH_THREAD;
    let setpriv = format!("setpriv\0{option}\0{signal}\0");
    let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // There are none for a moment while one program replaces another.
    !args.is_empty() && !args.starts_with(setpriv.as_bytes())
}
