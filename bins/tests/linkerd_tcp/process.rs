//! The program as a child process, and other programs.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::Deref;
use std::ops::DerefMut;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;

use tempfile::TempDir;

pub(crate) use crate::child::Ended;
pub(crate) use crate::child::LOOK;
use crate::child::Running;
use crate::child::eventually;
pub(crate) use crate::lines::SOON;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_linkerd-tcp");

/// A running `linkerd-tcp`. Killed when dropped; what it logged is shown if the test fails.
pub(crate) struct Program {
    running: Running,
    /// Where it was started, with its configuration and whatever files the test wrote.
    pub(crate) dir: Arc<TempDir>,
}

impl Program {
    /// Starts it with a configuration and waits until it listens.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config, &[])
    }

    /// Starts it in a directory that holds files already, with more arguments, and waits until it listens.
    pub(crate) fn start_in(dir: TempDir, config: &str, args: &[&str]) -> Self {
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("config.yml").args(args).stdin(Stdio::null());
        Self::spawn(dir, command)
    }

    /// Starts this command in a directory and waits until it listens.
    pub(crate) fn spawn(dir: TempDir, mut command: Command) -> Self {
        command.args(["--log-format", "json"]).env("RUST_LOG", "linkerd_tcp=info").current_dir(dir.path());
        let program = Self { running: Running::spawn(&mut command), dir: Arc::new(dir) };
        // The line about the admin address comes last; every socket is bound by then.
        program.stderr().wait_for("its admin address", |line| {
            line.contains(r#""message":"listening for admin requests""#)
        });
        program
    }

    /// Where its servers listen, in the order of the configuration. A client connects to the loopback address.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        self.addrs("listening")
    }

    /// Where its only server listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        let servers = self.servers();
        assert_eq!(servers.len(), 1);
        servers[0]
    }

    /// Where it answers admin requests.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.addrs("listening for admin requests")[0]
    }

    fn addrs(&self, message: &str) -> Vec<SocketAddr> {
        let message = format!(r#""message":"{message}""#);
        let lines = self.stderr().all();
        let lines = lines.iter().filter(|line| line.contains(&message));
        let addr = |line: &String| line.split_once(r#""addr":""#)?.1.split_once('"')?.0.parse().ok();
        lines.map(|line| addr(line).unwrap()).map(reachable).collect()
    }

    /// Ends it and returns its directory.
    pub(crate) fn into_dir(self) -> TempDir {
        let dir = Arc::clone(&self.dir);
        drop(self);
        Arc::into_inner(dir).unwrap()
    }
}

impl Deref for Program {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl DerefMut for Program {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
}

/// An address as a client uses it: what listens everywhere listens at the loopback address, too.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip([127, 0, 0, 1].into());
    }
    addr
}

/// Runs a command to its end, with this input. Kills it and fails if it does not end soon. Blocks the thread.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Ended {
    let mut running = Running::spawn(command.stdin(Stdio::piped()));
    let (mut stdin, input) = (running.input(), input.to_vec());
    thread::spawn(move || {
        // The program need not read it all.
        let _ = stdin.write_all(&input);
    });
    running.ended()
}

/// Starts a command, says a line, and ends its input once the line has come back. Blocks the thread.
pub(crate) fn converse(command: &mut Command, line: &str) -> Ended {
    let mut running = Running::spawn(command.stdin(Stdio::piped()));
    let mut input = running.input();
    // It may have ended already.
    let _ = input.write_all(format!("{line}\n").as_bytes());
    eventually("the line comes back, or it ends", || running.stdout().count(line) > 0 || !running.is_alive());
    drop(input);
    running.ended()
}

/// Runs `linkerd-tcp` to its end in a directory. Blocks the thread.
pub(crate) fn program(dir: &Path, args: &[&str], input: &str) -> Ended {
    run(Command::new(PROGRAM).args(args).current_dir(dir).env_remove("RUST_LOG"), input.as_bytes())
}

/// Whether a program can be started; says so if not.
pub(crate) fn has(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|dir| dir.join(name).is_file()));
    if !found {
        eprintln!("skipped: no {name} on PATH");
    }
    found
}

/// The directory with the documented configurations.
pub(crate) fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/linkerd-tcp")
}
