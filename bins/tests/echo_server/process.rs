//! The program as a child process.

use std::cell::Cell;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::ops::Deref;
use std::ops::DerefMut;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use crate::child::Running;
use crate::child::eventually;
pub(crate) use crate::lines::SOON;

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    program(args).output().unwrap()
}

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echo-server"));
    command.args(args).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// A running `echo-server`.
pub(crate) struct Program {
    running: Running,
    /// How many lines of its log have been asked for.
    seen: Cell<usize>,
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
        let mut program = Self { running: Running::spawn(command), seen: Cell::new(0), addrs: Vec::new() };
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
    pub(crate) fn line_with(&self, text: &str) -> String {
        let mut found = None;
        eventually(&format!("a line has {text:?} in it"), || {
            let lines = self.running.stdout().all().into_iter().enumerate();
            found = lines.skip(self.seen.get()).find(|(_, line)| line.contains(text));
            found.is_some()
        });
        let (number, line) = found.unwrap();
        self.seen.set(number + 1);
        line
    }

    /// Waits for its end and returns its exit status.
    pub(crate) fn exit(&mut self) -> Option<i32> {
        self.running.wait().code()
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

/// A client that is told when nothing comes.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.set_write_timeout(Some(SOON)).unwrap();
    client
}
