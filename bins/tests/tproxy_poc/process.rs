//! The program in a namespace.

use std::fs;
use std::ops::Deref;
use std::ops::DerefMut;
use std::process::Stdio;

use meshlib::test_util::netns::Namespace;
use meshlib::test_util::netns::NamespaceCommand;
use rustix::process::Signal;

pub(crate) use crate::child::Ended;
use crate::child::Running;
pub(crate) use crate::child::eventually;
use crate::lines::Lines;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tproxy-poc");

/// A running `tproxy-poc`. Killed when dropped; what it logged is shown if the test fails.
pub(crate) struct Proxy {
    running: Running,
}

impl Proxy {
    /// Starts it with these arguments, separated by spaces, and waits until it serves.
    pub(crate) fn start(namespace: &Namespace, args: &str) -> Self {
        Self::start_with(namespace, &[], PROGRAM, args)
    }

    /// Starts a copy of it, with these options of `setpriv`, and waits until it serves.
    pub(crate) fn start_with(namespace: &Namespace, setpriv: &[&str], program: &str, args: &str) -> Self {
        let command = namespace.command_with(setpriv, program).env("RUST_LOG", "tproxy_poc=info");
        let proxy = Self { running: spawn(command.args(args.split_whitespace())) };
        // It says this last, when the sockets listen and the rules are set.
        proxy.stdout().wait_for("its capabilities", |line| line.contains("capabilities control="));
        proxy
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> &Lines {
        self.stdout()
    }

    /// How many ends of pipes it has open.
    pub(crate) fn pipes(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let targets = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
    }

    /// Asks it to end, and waits until it has. It must have gone well. Returns how many connections it was given.
    pub(crate) fn stop(mut self) -> usize {
        self.signal(Signal::TERM);
        assert_eq!(self.wait().code(), Some(0));
        self.stdout().rest().matches("Handling connection").count()
    }

    /// Kills it as the kernel does when memory runs out.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }
}

impl Deref for Proxy {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl DerefMut for Proxy {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
}

/// Runs it to its end with these arguments, separated by spaces.
pub(crate) fn run(namespace: &Namespace, args: &str) -> Ended {
    run_with(namespace, &[], PROGRAM, args)
}

/// Runs a copy of it to its end, with these options of `setpriv`.
pub(crate) fn run_with(namespace: &Namespace, setpriv: &[&str], program: &str, args: &str) -> Ended {
    spawn(namespace.command_with(setpriv, program).args(args.split_whitespace())).ended()
}

fn spawn(command: NamespaceCommand<'_>) -> Running {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    Running::follow(child.unwrap())
}

/// Runs it with arguments it must succeed with. Returns its standard output.
pub(crate) fn succeed(namespace: &Namespace, args: &str) -> String {
    let ended = run(namespace, args);
    assert_eq!(ended.code, Some(0), "{args}: {ended:#?}");
    ended.stdout
}
