//! A program as a child process.

use std::fs;
use std::io::Write;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tokio::time::Instant;

use crate::lines::Lines;
use crate::lines::SOON;

/// How often a condition is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// A running program. Killed when dropped; what it printed is shown if the test fails.
pub(crate) struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    /// Starts it, with its standard input as the command has it and its output read by us.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self::follow(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Takes one that was started with pipes.
    pub(crate) fn follow(mut child: Child) -> Self {
        let stdout = Lines::follow(child.stdout.take().expect("it is piped"));
        let stderr = Lines::follow(child.stderr.take().expect("it is piped"));
        Self { child, stdout, stderr }
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed on stdout so far.
    pub(crate) fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// What it printed on stderr so far.
    pub(crate) fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("it runs");
    }

    /// Whether it runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.status().is_none()
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits until it has ended.
    pub(crate) async fn exit(&mut self, within: Duration) -> ExitStatus {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.status() {
                return status;
            }
            assert!(Instant::now() < until, "the program still runs after {within:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until it has ended. Blocks the thread.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.status();
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Waits until it has ended, and returns all that it had to say. Blocks the thread.
    pub(crate) fn ended(mut self) -> Ended {
        let status = self.wait();
        Ended { code: status.code(), stdout: self.stdout.rest(), stderr: self.stderr.rest() }
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }

    /// Takes the pipe to its standard input.
    pub(crate) fn input(&mut self) -> impl Write + Send + use<> {
        self.child.stdin.take().expect("it is piped")
    }

    /// Processor time that its threads have used so far, as the scheduler has measured it: `/proc/PID/stat` counts ticks of
    /// the clock, of which few fall into what is short.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
        let used = threads.map(|thread| {
            let path = thread.expect("it runs").path().join("schedstat");
            // It may have ended meanwhile.
            let stat = fs::read_to_string(path).unwrap_or_default();
            stat.split_whitespace().next().map_or(0, |nanos| nanos.parse::<u64>().expect("a number"))
        });
        Duration::from_nanos(used.sum())
    }

    /// Resident anonymous memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("its memory");
        let kilobytes = line.trim().strip_suffix(" kB").and_then(|number| number.trim().parse::<u64>().ok());
        kilobytes.expect("a number") * 1024
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("stdout: {:#?}\nstderr: {:#?}", self.stdout.all(), self.stderr.all());
        }
    }
}

/// What a program that ended had to say.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit status, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// All of its standard output.
    pub(crate) stdout: String,
    /// All of its standard error.
    pub(crate) stderr: String,
}

/// Waits until something holds. Blocks the thread.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < until, "not after {SOON:?}: {what}");
        thread::sleep(LOOK);
    }
}
