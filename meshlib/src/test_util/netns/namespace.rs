//! A network namespace that belongs to a thread.

use std::fs;
use std::io;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::thread::JoinHandle;

use nix::sched;
use nix::sched::CloneFlags;

use super::command::NamespaceCommand;

use crate::test_util::Unavailable;
use crate::test_util::require_programs;

/// A network namespace. It ends, with the programs started in it, when it is dropped or when the process ends.
///
/// A socket stays in the namespace it was created in, whoever uses it later, and keeps that namespace alive.
#[derive(Debug)]
#[must_use = "dropping it ends the namespace and its programs"]
pub struct Namespace {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

type Job = Box<dyn FnOnce() + Send>;

/// One job runs and one waits: whoever has a job waits for its result.
const JOBS: usize = 1;

impl Namespace {
    /// Makes an empty namespace whose loopback interface is up.
    ///
    /// IPv6 addresses are usable at once in it: duplicate address detection is off.
    ///
    /// # Errors
    ///
    /// [`Unavailable`], if this process must not make one, or if a program is missing.
    pub fn new() -> Result<Self, Unavailable> {
        require_programs(&["ip", "setpriv", "sh"])?;
        let (jobs, received) = mpsc::sync_channel(JOBS);
        let (started, path) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn(move || live(&started, &received))
            .map_err(Unavailable::Unshare)?;
        let path = path.recv().expect("the thread says whether it has a namespace")?;
        let namespace = Self { jobs: Some(jobs), thread: Some(thread), path };
        namespace.try_sh("ip link set lo up")?;
        Ok(namespace)
    }

    /// Runs a function inside and returns what it returned. Blocks the thread.
    ///
    /// Functions run one after the other. A thread started by one, and so a runtime, is inside as well.
    ///
    /// # Panics
    ///
    /// If the function does, with its panic.
    pub fn run<T: Send + 'static>(&self, function: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::sync_channel(1);
        let job = move || {
            // A test that no longer waits has ended.
            let _ = done.send(panic::catch_unwind(AssertUnwindSafe(function)));
        };
        let jobs = self.jobs.as_ref().expect("only drop takes the sender");
        jobs.send(Box::new(job)).expect("the thread lives as long as the namespace");
        match result.recv().expect("the thread does each job") {
            Ok(value) => value,
            Err(cause) => panic::resume_unwind(cause),
        }
    }

    /// A program to run inside.
    pub fn command(&self, program: &str) -> NamespaceCommand<'_> {
        self.command_with(&[], program)
    }

    /// A program to run inside, with these options of `setpriv`, for example to take away capabilities.
    pub fn command_with(&self, setpriv: &[&str], program: &str) -> NamespaceCommand<'_> {
        NamespaceCommand::new(self, setpriv, program)
    }

    /// Runs a shell script inside, up to the first command that fails, and returns what it printed. Blocks the thread.
    ///
    /// # Panics
    ///
    /// If a command fails.
    pub fn sh(&self, script: &str) -> String {
        self.try_sh(script).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a shell script as [`sh`](Self::sh) does.
    ///
    /// # Errors
    ///
    /// [`Unavailable::Script`], if a command fails.
    pub fn try_sh(&self, script: &str) -> Result<String, Unavailable> {
        let failed = |reason| Unavailable::Script { script: script.into(), reason };
        let output = self.command("sh").args(["-ec", script]).output();
        let output = output.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("{}: {}", output.status, stderr.trim_end())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The value of a sysctl, for example `net.ipv4.ip_forward`.
    ///
    /// # Panics
    ///
    /// If there is none of this name.
    pub fn sysctl(&self, key: &str) -> String {
        let path = sysctl_path(key);
        let value = self.run(move || fs::read_to_string(path));
        value.unwrap_or_else(|error| panic!("{key}: {error}")).trim_end().into()
    }

    /// Sets a sysctl.
    ///
    /// # Panics
    ///
    /// If there is none of this name, or if the value is refused.
    pub fn set_sysctl(&self, key: &str, value: &str) {
        let (path, text) = (sysctl_path(key), value.to_owned());
        self.run(move || fs::write(path, text)).unwrap_or_else(|error| panic!("{key}={value}: {error}"));
    }

    /// The file of the namespace, which `ip link set eth0 netns` and `nsenter --net=` take.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It does not panic: jobs are caught.
            let _ = thread.join();
        }
    }
}

/// Ends when the namespace is dropped.
fn live(started: &SyncSender<Result<PathBuf, Unavailable>>, jobs: &Receiver<Job>) {
    let entered = enter().map_err(Unavailable::Unshare);
    let failed = entered.is_err();
    // Whoever asked for the namespace waits for this.
    let _ = started.send(entered);
    if !failed {
        jobs.iter().for_each(|job| job());
    }
}

/// Gives the calling thread a namespace of its own and returns the file of it.
fn enter() -> io::Result<PathBuf> {
    sched::unshare(CloneFlags::CLONE_NEWNET)?;
    for scope in ["all", "default"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0")?;
    }
    // Of the form PID/task/TID.
    let thread = fs::read_link("/proc/thread-self")?;
    Ok(Path::new("/proc").join(thread).join("ns/net"))
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::net::TcpStream;
    use std::process::Stdio;

    use super::*;
    use crate::test_util::or_skip;

    #[test]
    fn it_holds_nothing_but_its_own_loopback_interface() {
        let Some(namespace) = or_skip(Namespace::new()) else { return };

        let links = namespace.sh("ip -o link");

        assert_eq!(links.lines().count(), 1, "{links}");
        assert!(links.contains("lo: <LOOPBACK,UP"), "{links}");
    }

    #[test]
    fn two_have_ports_and_sysctls_of_their_own() {
        let (Some(a), Some(b)) = (or_skip(Namespace::new()), or_skip(Namespace::new())) else { return };
        let bind = || TcpListener::bind("127.0.0.1:3000").unwrap();

        let listeners = (a.run(bind), b.run(bind));
        a.set_sysctl("net.ipv4.ip_forward", "1");

        assert_eq!(a.sysctl("net.ipv4.ip_forward"), "1");
        assert_eq!(b.sysctl("net.ipv4.ip_forward"), "0");
        drop(listeners.0);
        let connect = || TcpStream::connect("127.0.0.1:3000").is_ok();
        assert!(!a.run(connect));
        assert!(b.run(connect));
    }

    #[test]
    fn a_panic_inside_is_the_caller_s_and_the_namespace_goes_on() {
        let Some(namespace) = or_skip(Namespace::new()) else { return };

        let caught = panic::catch_unwind(AssertUnwindSafe(|| namespace.run(|| panic!("inside"))));

        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"inside"));
        assert_eq!(namespace.run(|| 1 + 1), 2);
    }

    #[test]
    fn a_failing_command_ends_the_script_and_says_why() {
        let Some(namespace) = or_skip(Namespace::new()) else { return };

        let failed = namespace.try_sh("ip link show nowhere; echo not reached").unwrap_err();

        assert!(failed.to_string().contains(r#""nowhere" does not exist"#), "{failed}");
    }

    #[test]
    fn programs_end_with_it() {
        let Some(namespace) = or_skip(Namespace::new()) else { return };
        let mut child = namespace.command("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();

        drop(namespace);

        // Waits for as long as it takes; nextest ends a test that hangs.
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    }

    #[test]
    fn programs_can_run_without_privilege() {
        let Some(namespace) = or_skip(Namespace::new()) else { return };
        let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];

        let output =
            namespace.command_with(&nobody, "ip").args(["link", "set", "lo", "down"]).output().unwrap();

        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("not permitted"), "{output:?}");
    }
}
