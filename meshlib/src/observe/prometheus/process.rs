//! Metrics of the process itself, named as the Prometheus conventions name them.

use std::fs;
use std::path::Path;

use super::Registry;

/// Registers `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`,
/// `process_open_fds`, `process_max_fds` and `process_start_time_seconds`.
///
/// They are read from `/proc` at each rendering, which takes some tens of microseconds and never waits for
/// a disk. What cannot be read is left out; away from Linux nothing is registered.
pub fn process_metrics(registry: &Registry) {
    if !cfg!(target_os = "linux") {
        return;
    }
    registry.counter_fn(
        "process_cpu_seconds_total",
        "CPU time used, user and system, in seconds.",
        &[],
        || shown(read("/proc/self/stat").and_then(|stat| cpu_seconds(&stat))),
    );
    registry.gauge_fn("process_resident_memory_bytes", "Memory in RAM, in bytes.", &[], || {
        shown(read("/proc/self/status").and_then(|status| status_bytes(&status, "VmRSS:")))
    });
    registry.gauge_fn("process_virtual_memory_bytes", "Address space in use, in bytes.", &[], || {
        shown(read("/proc/self/status").and_then(|status| status_bytes(&status, "VmSize:")))
    });
    registry.gauge_fn("process_open_fds", "Open file descriptors.", &[], || shown(open_fds()));
    registry.gauge_fn("process_max_fds", "Limit of open file descriptors.", &[], || {
        shown(read("/proc/self/limits").and_then(|limits| max_fds(&limits)))
    });
    // Read once: the kernel's idea of the boot time moves with corrections of the clock, and a start time
    // that moves looks like a restart.
    let start = read("/proc/stat").zip(read("/proc/self/stat"));
    if let Some(start) = start.and_then(|(system, process)| start_seconds(&system, &process)) {
        let help = "When the process started, in seconds since the Unix epoch.";
        registry.gauge_fn("process_start_time_seconds", help, &[], move || start);
    }
}

/// Registers `build_info` with the value 1 and a label `version`, plus `more` labels such as `commit` and
/// `rustc`.
///
/// ```
/// # let registry = meshlib::observe::prometheus::Registry::new();
/// meshlib::observe::prometheus::build_info(&registry, "0.1.0", &[("rustc", "1.95.0")]);
/// # let text = registry.render(Default::default());
/// # assert!(text.contains("build_info{rustc=\"1.95.0\", version=\"0.1.0\"} 1\n"));
/// ```
pub fn build_info(registry: &Registry, version: &str, more: &[(&str, &str)]) {
    let labels: Vec<_> = [("version", version)].into_iter().chain(more.iter().copied()).collect();
    registry.gauge("build_info", "What this program was built from; always 1.", &labels).set(1);
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The registry leaves out what is not a number.
fn shown(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NAN)
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_seconds(system: &str, process: &str) -> Option<f64> {
    let boot: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat_field(process, 22)? / TICKS_PER_SECOND)
}

/// A field of `/proc/PID/stat`, counted from one as proc_pid_stat(5) does; only those behind the name.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    // The second field is the name in parentheses and may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn status_bytes(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn open_fds() -> Option<f64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is the directory being read.
    Some(entries.saturating_sub(1) as f64)
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        soft => soft.parse().ok(),
    }
}

/// The unit of times in `/proc` (`USER_HZ`): part of the kernel's interface and 100 on every architecture
/// that Rust has a Linux target for.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 123456 1000 200";

    #[test]
    fn stat_is_read_behind_the_name() {
        assert_eq!(cpu_seconds(STAT), Some(3.0));
        assert_eq!(start_seconds("cpu 1 2\nbtime 1700000000\n", STAT), Some(1_700_001_234.56));
    }

    #[test]
    fn other_files_are_read_by_their_keys() {
        assert_eq!(status_bytes("VmSize:\t  10 kB\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2_097_152.0));
        assert_eq!(
            max_fds("Max open files            1024                 4096       files\n"),
            Some(1024.0)
        );
        assert_eq!(
            max_fds("Max open files            unlimited            unlimited  files\n"),
            Some(f64::INFINITY)
        );
    }

    #[test]
    fn files_of_another_shape_give_nothing() {
        for text in ["", ")", "1 (x) S", "VmRSS:", "VmRSS: many kB", "Max open files", "btime x"] {
            assert_eq!(cpu_seconds(text), None);
            assert_eq!(start_seconds(text, text), None);
            assert_eq!(status_bytes(text, "VmRSS:"), None);
            assert_eq!(max_fds(text), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_them() {
        let registry = Registry::new();

        process_metrics(&registry);

        let text = registry.render(super::super::Format::Text004);
        let samples: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(' '))
            .collect();
        assert_eq!(samples.len(), 6, "{text}");
        for (name, value) in samples {
            assert!(value.parse::<f64>().unwrap() > 0.0 || name.contains("cpu"), "{name} {value}");
        }
    }
}
