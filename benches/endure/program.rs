//! The program under test as a child process.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::net::SocketAddr;
use std::process::Child;
use std::process::ChildStderr;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use benches::procfs;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use serde_json::Value;
use tokio::time;
use tokio::time::Instant;

use crate::setup::Setup;

/// A running `linkerd-tcp`. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    /// Where its servers listen, in the order of the configuration, as a client on this machine reaches them.
    pub(crate) servers: Vec<SocketAddr>,
    /// The end of what it logged.
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Program {
    /// Starts it and waits until it listens.
    pub(crate) fn start(setup: &Setup, config: &Value) -> io::Result<Self> {
        let file = setup.dir.path().join("linkerd-tcp.yml");
        fs::write(&file, format!("{config:#}\n"))?;
        let mut child = Command::new(&setup.program)
            .arg(file)
            .args(["--log-format", "json"])
            .env("RUST_LOG", "linkerd_tcp=info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", setup.program.display())))?;
        let stderr = child.stderr.take();
        let mut program = Self { child, servers: Vec::new(), log: Arc::default() };
        let (ready, listening) = mpsc::channel();
        let log = Arc::clone(&program.log);
        // Ends with the pipe, which ends with the program.
        thread::spawn(move || {
            if let Some(stderr) = stderr {
                follow(stderr, &log, &ready);
            }
        });
        program.servers = listening
            .recv_timeout(START_WITHIN)
            .map_err(|_| io::Error::other(format!("the program did not start: {}", program.last_words())))?;
        Ok(program)
    }

    /// Where the only server listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.servers[0]
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> io::Result<usize> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        Ok(open.map_err(|error| self.gone(&error))?.count())
    }

    /// How many descriptors it has open without connections. Some workers open theirs a little later than it listens.
    pub(crate) async fn idle_descriptors(&self) -> io::Result<usize> {
        let (mut idle, mut same) = (0, 0);
        while same < 10 {
            time::sleep(Duration::from_millis(50)).await;
            let now = self.descriptors()?;
            same = if now == idle { same + 1 } else { 0 };
            idle = now;
        }
        Ok(idle)
    }

    /// Its resident memory in bytes.
    pub(crate) fn memory(&self) -> io::Result<u64> {
        procfs::memory(&[self.child.id()]).map_err(|error| self.gone(&error))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.ok_or(io::ErrorKind::NotFound)?, signal)?)
    }

    /// Waits until it has ended.
    pub(crate) async fn exit(&mut self, within: Duration) -> io::Result<ExitStatus> {
        let late = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > late {
                return Err(io::Error::other(format!("it still runs after {:.1} s", within.as_secs_f64())));
            }
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The kernel has nothing to say about it any more.
    fn gone(&self, error: &io::Error) -> io::Error {
        io::Error::other(format!("the program is gone ({error}): {}", self.last_words()))
    }

    /// The end of what it logged, on one line.
    fn last_words(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.is_empty() {
            "it said nothing".into()
        } else {
            Vec::from_iter(log.iter().cloned()).join(" | ")
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

/// Reads the log to its end, keeps the last lines, and reports the servers once all listen.
fn follow(stderr: ChildStderr, log: &Mutex<VecDeque<String>>, ready: &mpsc::Sender<Vec<SocketAddr>>) {
    let mut servers = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let addr = || line.split_once(r#""addr":""#)?.1.split_once('"')?.0.parse::<SocketAddr>().ok();
        if line.contains(r#""message":"listening""#) {
            servers.extend(addr().map(|addr| SocketAddr::from(([127, 0, 0, 1], addr.port()))));
        } else if line.contains(r#""message":"listening for admin requests""#) {
            // This line comes last; every socket is bound by then. Nobody may wait for it any more.
            let _ = ready.send(std::mem::take(&mut servers));
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_back(line);
        if log.len() > KEPT_LINES {
            log.pop_front();
        }
    }
}

const START_WITHIN: Duration = Duration::from_secs(10);
const KEPT_LINES: usize = 3;
