//! What the kernel knows about processes and cores.

use std::collections::HashMap;
use std::fs;
use std::io;

use tokio::time::Duration;

/// Whose processor time is measured.
#[derive(Clone, Debug)]
pub enum Measured {
    /// All threads of some processes.
    Processes(Vec<u32>),
    /// One thread of this process.
    Thread(u32),
}

impl Measured {
    /// Processor time used so far, in the scheduler's nanoseconds.
    pub fn cpu(&self) -> io::Result<Duration> {
        match self {
            Self::Processes(pids) => pids.iter().map(|pid| process_cpu(*pid)).sum(),
            Self::Thread(tid) => schedstat(&format!("/proc/self/task/{tid}/schedstat")),
        }
    }
}

/// A process and all its descendants.
pub fn tree(root: u32) -> io::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between the listing and this read.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if let Some(parent) = parent(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        found.extend(children.remove(&found[next]).unwrap_or_default());
        next += 1;
    }
    Ok(found)
}

/// Resident memory in bytes. With more than one process, pages they share count once (the proportional set
/// size), because a master and its worker share most of theirs.
pub fn memory(pids: &[u32]) -> io::Result<u64> {
    let key = if pids.len() > 1 { "Pss:" } else { "Rss:" };
    let mut bytes = 0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        bytes += kilobytes(&text, key)
            .ok_or_else(|| io::Error::other(format!("no {key} of process {pid}")))?
            * 1024;
    }
    Ok(bytes)
}

/// Ticks of one core since boot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CoreTicks {
    busy: u64,
    total: u64,
}

impl CoreTicks {
    /// Reads the ticks of core `core`.
    pub fn read(core: usize) -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/stat")?, core)
            .ok_or_else(|| io::Error::other(format!("no core {core} on this machine")))
    }

    /// The share of the time since `earlier` in which the core was busy, 0 to 1.
    pub fn busy_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total).max(1);
        self.busy.saturating_sub(earlier.busy) as f64 / total as f64
    }

    fn parse(text: &str, core: usize) -> Option<Self> {
        let name = format!("cpu{core}");
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(&name))?;
        // proc(5): user nice system idle iowait irq softirq steal; guest time is part of user.
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).map_while(|n| n.parse().ok()).collect();
        let total = ticks.iter().sum();
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { busy: total - idle, total })
    }
}

fn process_cpu(pid: u32) -> io::Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the read.
        sum += schedstat(&format!("{}/schedstat", task?.path().display())).unwrap_or_default();
    }
    Ok(sum)
}

/// The first field is the time spent on the processor.
fn schedstat(path: &str) -> io::Result<Duration> {
    let text = fs::read_to_string(path)?;
    let nanos = text.split_whitespace().next().and_then(|field| field.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| io::Error::other(format!("{path} has no time")))
}

/// The name in the second field may contain spaces and brackets; the last bracket ends it.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_survives_odd_names() {
        assert_eq!(parent("12 (a) b (c)) S 7 12 12 0"), Some(7));
    }

    #[test]
    fn idle_and_waiting_are_not_busy() {
        let text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 10 0 20 60 5 0 5 0 0 0\n";

        let ticks = CoreTicks::parse(text, 1).unwrap();

        assert_eq!(ticks, CoreTicks { busy: 35, total: 100 });
        assert!((ticks.busy_since(CoreTicks { busy: 0, total: 50 }) - 0.7).abs() < 1e-9);
    }

    #[test]
    fn own_process_has_time_and_memory() {
        let pid = std::process::id();

        assert!(tree(pid).unwrap().contains(&pid));
        assert!(memory(&[pid]).unwrap() > 0);
        assert!(Measured::Processes(vec![pid]).cpu().is_ok());
    }
}
