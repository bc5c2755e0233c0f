//! The program as a child process.

use std::io::BufRead;
use std::io::BufReader;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;

/// What must happen at all must happen within this, on a machine that is busy with other things.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    program(args).output().unwrap()
}

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echo-server"));
    command.args(args).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// A running `echo-server`. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    /// Where it listens, in the order of its arguments.
    pub(crate) addrs: Vec<SocketAddr>,
}

impl Program {
    /// Starts it and waits until it listens at this many addresses.
    pub(crate) fn start(args: &[&str], listeners: usize) -> Self {
        Self::start_with(program(args).env("RUST_LOG", "echo_server=debug"), listeners)
    }

    /// The same, while `RUST_LOG` is unset.
    pub(crate) fn start_unset(args: &[&str]) -> Self {
        Self::start_with(&mut program(args), 1)
    }

    fn start_with(command: &mut Command, listeners: usize) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tx, lines) = mpsc::channel();
        // Ends with the pipe, which ends with the process; nobody may want the lines any more.
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tx.send(line)));
        let mut program = Self { child, lines, addrs: Vec::new() };
        for _ in 0..listeners {
            let line = program.line_with("Listening on ");
            let addr = line.split_once("Listening on ").unwrap().1;
            let addr = addr.split('"').next().unwrap();
            program.addrs.push(addr.parse().unwrap());
        }
        program
    }

    /// Where a client on this machine reaches its first listener.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// A client that is told when nothing comes.
    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.addr())
    }

    /// Waits for a line of its log that has this in it, and leaves out those before.
    #[track_caller]
    pub(crate) fn line_with(&self, text: &str) -> String {
        let mut before = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(SOON) {
            if line.contains(text) {
                return line;
            }
            before.push(line);
        }
        panic!("no line has {text:?} in it: {before:#?}");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Whether it runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end and returns its exit status.
    #[track_caller]
    pub(crate) fn exit(&mut self) -> Option<i32> {
        // The pipe ends with the process.
        loop {
            match self.lines.recv_timeout(SOON) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap().code(),
                Err(RecvTimeoutError::Timeout) => panic!("it still runs"),
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that is told when nothing comes.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.set_write_timeout(Some(SOON)).unwrap();
    client
}
