//! A running proxy: started on its core, awaited, killed with all its children.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Duration, Instant};

use crate::host::{self, Policy};
use crate::peer::{Job, Peer};
use crate::procfs;

/// A proxy process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Proxy {
    child: Child,
    log: PathBuf,
}

impl Proxy {
    /// Starts `peer` for `job` and waits until it listens.
    pub(crate) fn start(peer: &Peer, job: &Job<'_>, policy: Policy) -> io::Result<Self> {
        let launch = peer.configure(job)?;
        let log = job.dir.join(format!("{}.log", peer.name));
        let out = File::create(&log)?;
        let mut command = host::command(&peer.program(job.profile), policy);
        command.args(launch.args).envs(launch.env);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).current_dir(job.dir);
        // Core and priority are inherited, so a thread that has them starts the process; no thread of it ever
        // runs elsewhere.
        let child = thread::scope(|scope| {
            let spawn = || {
                host::pin(host::PROXY_CORE)?;
                host::be_urgent();
                command.spawn()
            };
            scope.spawn(spawn).join().map_err(|_| io::Error::other("the starting thread panicked"))?
        })?;
        let mut proxy = Self { child, log };
        proxy.wait_for(job.listen)?;
        Ok(proxy)
    }

    /// All its processes.
    pub(crate) fn pids(&self) -> io::Result<Vec<u32>> {
        procfs::tree(self.child.id())
    }

    /// The end of what it printed, on one line.
    pub(crate) fn last_words(&self) -> String {
        last_lines(&self.log)
    }

    fn wait_for(&mut self, listen: SocketAddr) -> io::Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        while TcpStream::connect(listen).is_err() {
            let failed = if let Some(status) = self.child.try_wait()? {
                format!("ended with {status}")
            } else if Instant::now() > deadline {
                format!("did not listen within {} s", START_WITHIN.as_secs())
            } else {
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            return Err(io::Error::other(format!("{failed}: {}", self.last_words())));
        }
        thread::sleep(SETTLE);
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The tree is listed first: a worker whose master is gone has another parent.
        let pids = self.pids().unwrap_or_default();
        // Asked nicely, a master takes its workers along. A proxy that wants to drain does not get the time.
        signal(self.child.id(), Signal::TERM);
        let deadline = Instant::now() + STOP_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                for pid in pids {
                    signal(pid, Signal::KILL);
                }
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process of the proxy; one that has ended needs none.
fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// An address for a listener, below the range from which the kernel takes ports for connections.
pub(crate) fn free_addr() -> io::Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..PORTS {
        let port = FIRST_PORT + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(addr).is_ok() {
            return Ok(addr);
        }
    }
    Err(io::Error::other("no free port to listen on"))
}

fn last_lines(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        "it printed nothing".into()
    } else {
        lines[lines.len().saturating_sub(3)..].join(" | ")
    }
}

const START_WITHIN: Duration = Duration::from_secs(10);
/// Time between being asked to end and being killed.
const STOP_WITHIN: Duration = Duration::from_millis(500);
/// Time between listening and the first work: some proxies start their workers later than they listen.
const SETTLE: Duration = Duration::from_millis(150);
const FIRST_PORT: u16 = 15_000;
const PORTS: u16 = 4_000;
