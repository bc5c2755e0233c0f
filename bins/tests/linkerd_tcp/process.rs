//! The program as a child process, and other programs.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tempfile::TempDir;
use tokio::time::Instant;

pub(crate) use crate::lines::Lines;
pub(crate) use crate::lines::SOON;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_linkerd-tcp");

/// How often a condition is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// A running `linkerd-tcp`. Killed when dropped; what it logged is shown if the test fails.
pub(crate) struct Program {
    child: Child,
    stdout: Lines,
    stderr: Lines,
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
        command
            .args(["--log-format", "json"])
            .env("RUST_LOG", "linkerd_tcp=info")
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Lines::follow(child.stdout.take().unwrap());
        let stderr = Lines::follow(child.stderr.take().unwrap());
        let program = Self { child, stdout, stderr, dir: Arc::new(dir) };
        // The line about the admin address comes last; every socket is bound by then.
        program.stderr.wait_for("its admin address", |line| {
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
        let lines = self.stderr.all();
        let lines = lines.iter().filter(|line| line.contains(&message));
        let addr = |line: &String| line.split_once(r#""addr":""#)?.1.split_once('"')?.0.parse().ok();
        lines.map(|line| addr(line).unwrap()).map(reachable).collect()
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
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) async fn exit(&mut self, within: Duration) -> ExitStatus {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the program still runs after {within:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it and returns its directory.
    pub(crate) fn into_dir(self) -> TempDir {
        let dir = Arc::clone(&self.dir);
        drop(self);
        Arc::into_inner(dir).unwrap()
    }

    /// Processor time that its threads have used so far, as the scheduler has measured it: `/proc/PID/stat` counts ticks of
    /// the clock, of which few fall into what is short.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let used = threads.map(|thread| {
            let path = thread.unwrap().path().join("schedstat");
            // It may have ended meanwhile.
            let stat = fs::read_to_string(path).unwrap_or_default();
            stat.split_whitespace().next().map_or(0, |nanos| nanos.parse::<u64>().unwrap())
        });
        Duration::from_nanos(used.sum())
    }

    /// Resident anonymous memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("stdout: {:#?}\nstderr: {:#?}", self.stdout.all(), self.stderr.all());
        }
    }
}

/// An address as a client uses it: what listens everywhere listens at the loopback address, too.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip([127, 0, 0, 1].into());
    }
    addr
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

/// Runs a command to its end, with this input. Kills it and fails if it does not end soon. Blocks the thread.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Ended {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    thread::spawn(move || {
        // The program need not read it all.
        let _ = std::io::Write::write_all(&mut stdin, &input);
    });
    let read = |mut pipe: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = read(Box::new(child.stdout.take().unwrap()));
    let stderr = read(Box::new(child.stderr.take().unwrap()));
    let until = Instant::now() + SOON;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not end: {:?} {:?}", stdout.join(), stderr.join());
        }
        thread::sleep(LOOK);
    };
    Ended { code: status.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Starts a command, says a line, and ends its input once the line has come back. Blocks the thread.
pub(crate) fn converse(command: &mut Command, line: &str) -> Ended {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) =
        (Lines::follow(child.stdout.take().unwrap()), Lines::follow(child.stderr.take().unwrap()));
    let mut input = child.stdin.take();
    if let Some(input) = &mut input {
        // It may have ended already.
        let _ = std::io::Write::write_all(input, format!("{line}\n").as_bytes());
    }
    let until = Instant::now() + SOON;
    let status = loop {
        if stdout.count(line) > 0 {
            input = None;
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not end: {:?} {:?}", stdout.all(), stderr.all());
        }
        thread::sleep(LOOK);
    };
    drop(input);
    Ended { code: status.code(), stdout: stdout.rest(), stderr: stderr.rest() }
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
