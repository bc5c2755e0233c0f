//! The program in a namespace.

use std::fs;
use std::process::Child;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use meshlib::test_util::netns::Namespace;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tokio::time::Instant;

use crate::lines::Lines;
use crate::lines::SOON;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tproxy-poc");

/// How often a condition is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// A running `tproxy-poc`. Killed when dropped; what it logged is shown if the test fails.
pub(crate) struct Proxy {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Proxy {
    /// Starts it with these arguments, separated by spaces, and waits until it serves.
    pub(crate) fn start(namespace: &Namespace, args: &str) -> Self {
        Self::start_with(namespace, &[], PROGRAM, args)
    }

    /// Starts a copy of it, with these options of `setpriv`, and waits until it serves.
    pub(crate) fn start_with(namespace: &Namespace, setpriv: &[&str], program: &str, args: &str) -> Self {
        let mut child = namespace
            .command_with(setpriv, program)
            .args(args.split_whitespace())
            .env("RUST_LOG", "tproxy_poc=info")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Lines::follow(child.stdout.take().unwrap());
        let stderr = Lines::follow(child.stderr.take().unwrap());
        let proxy = Self { child, stdout, stderr };
        // It says this last, when the sockets listen and the rules are set.
        proxy.stdout.wait_for("its capabilities", |line| line.contains("capabilities control="));
        proxy
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> &Lines {
        &self.stdout
    }

    /// How many ends of pipes it has open.
    pub(crate) fn pipes(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let targets = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Asks it to end, and waits until it has. It must have gone well. Returns how many connections it was given.
    pub(crate) fn stop(mut self) -> usize {
        self.signal(Signal::TERM);
        assert_eq!(self.wait().code(), Some(0));
        self.stdout.rest().matches("Handling connection").count()
    }

    /// Kills it as the kernel does when memory runs out.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("stdout: {:#?}\nstderr: {:#?}", self.stdout.all(), self.stderr.all());
        }
    }
}

/// What a run that ended had to say.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit status, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// All of its standard output.
    pub(crate) stdout: String,
    /// All of its standard error.
    pub(crate) stderr: String,
}

/// Runs it to its end with these arguments, separated by spaces.
pub(crate) fn run(namespace: &Namespace, args: &str) -> Ended {
    run_with(namespace, &[], PROGRAM, args)
}

/// Runs a copy of it to its end, with these options of `setpriv`.
pub(crate) fn run_with(namespace: &Namespace, setpriv: &[&str], program: &str, args: &str) -> Ended {
    let command = namespace.command_with(setpriv, program).args(args.split_whitespace());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = Lines::follow(child.stdout.take().unwrap());
    let stderr = Lines::follow(child.stderr.take().unwrap());
    let until = Instant::now() + SOON;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("tproxy-poc {args} does not end: {:#?} {:#?}", stdout.all(), stderr.all());
        }
        thread::sleep(LOOK);
    };
    Ended { code: status.code(), stdout: stdout.rest(), stderr: stderr.rest() }
}

/// Runs it with arguments it must succeed with. Returns its standard output.
pub(crate) fn succeed(namespace: &Namespace, args: &str) -> String {
    let ended = run(namespace, args);
    assert_eq!(ended.code, Some(0), "{args}: {ended:#?}");
    ended.stdout
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < until, "not after {SOON:?}: {what}");
        thread::sleep(LOOK);
    }
}
