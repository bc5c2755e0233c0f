//! The machine as the measurement wants it: cores, priorities and a network of its own.
//!
//! Everything here but pinning is optional. Without the rights for it the run goes on and the report says so.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, gettid, sched_setaffinity};

/// Where load and backend run.
pub(crate) const LOAD_CORE: usize = 0;
/// Where the proxy runs, alone.
pub(crate) const PROXY_CORE: usize = 1;
/// Marks the process that already has a network of its own.
pub(crate) const INSIDE: &str = "--inside-namespace";

/// How threads are scheduled during a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Highest nice value: a closed loop takes all it can get.
    Throughput,
    /// Real time: other work on the machine must not show up as latency.
    Latency,
}

/// Starts this program again in a network namespace of its own and does not return if that works.
/// Otherwise the reason is returned, and the run goes on in the network there is.
pub(crate) fn enter_namespace(args: &[String]) -> String {
    let can =
        Command::new("unshare").args(["-n", "ip", "link", "set", "lo", "up"]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        return "no network namespace (needs root, unshare and ip)".into();
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return format!("no network namespace ({error})"),
    };
    let error = Command::new("unshare").arg("-n").arg(program).args(args).arg(INSIDE).exec();
    format!("no network namespace ({error})")
}

/// Prepares the new namespace. Returns what could not be set.
pub(crate) fn prepare_namespace() -> io::Result<Vec<String>> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    if !up.success() {
        return Err(io::Error::other("loopback could not be brought up"));
    }
    // A congestion control that paces would measure its timers. The wide range keeps connect loops from
    // running out of ports; listeners stay below it.
    let settings = [("tcp_congestion_control", "reno"), ("ip_local_port_range", "20000 65000")];
    let failed = settings.iter().filter_map(|(name, value)| {
        let error = fs::write(format!("/proc/sys/net/ipv4/{name}"), value).err()?;
        Some(format!("{name} not set: {error}"))
    });
    Ok(failed.collect())
}

/// Whether priorities can be raised here.
pub(crate) fn can_prioritise() -> bool {
    rustix::process::geteuid().is_root() && setpriority_process(None, 0).is_ok()
}

/// Pins the calling thread, and with it what it starts, to one core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Gives the calling thread, and with it what it starts, the highest nice value, also within the group of its
/// session. Does nothing without the right to.
pub(crate) fn be_urgent() {
    let _ = setpriority_process(None, -20);
    let _ = fs::write("/proc/self/autogroup", "-20");
}

/// The id of the calling thread.
pub(crate) fn thread_id() -> u32 {
    gettid().as_raw_nonzero().get().unsigned_abs()
}

/// Schedules one thread of this process by `policy`. Does nothing without the right to.
pub(crate) fn schedule(tid: u32, policy: Policy) {
    let args = match policy {
        Policy::Throughput => ["--other", "--pid", "0"],
        Policy::Latency => ["--rr", "--pid", "1"],
    };
    let _ = Command::new("chrt")
        .args(args)
        .arg(tid.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// The command that starts `program` under `policy`.
pub(crate) fn command(program: &std::path::Path, policy: Policy) -> Command {
    let real_time = policy == Policy::Latency
        && Command::new("chrt")
            .args(["--rr", "1", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    if real_time {
        let mut command = Command::new("chrt");
        command.args(["--rr", "1"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}
