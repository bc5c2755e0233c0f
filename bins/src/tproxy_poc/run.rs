//! Running the commands that the library writes.

use std::io;
use std::io::Write;
use std::process;
use std::process::Child;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use meshlib::tproxy::rules::Command;
use meshlib::tproxy::rules::Run;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;
use rustix::process::pidfd_open;
use rustix::process::pidfd_send_signal;

use super::plan::is_here;
use super::plan::search_path;
use crate::kit::cli::Failure;

/// More rules of one kind than anybody sets: what is removed until there is no more ends here.
const MOST: usize = 1000;

/// How long a command may take. It waits up to 5 s for others that change rules, and works for milliseconds.
const LIMIT: Duration = Duration::from_secs(30);

/// What a command shows; nothing, if it may fail and does.
pub(super) fn shown(command: &Command) -> Result<String, Failure> {
    if command.run == Run::May && !is_here(command.program) {
        return Ok(String::new());
    }
    let output = once(command, &command.args)?;
    if !output.status.success() && command.run == Run::Must {
        return Err(failed(command, &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a command shows, for whoever must know whether it has looked. Nothing, if what it is to show does not exist.
pub(super) fn seen(command: &Command) -> Result<String, Failure> {
    // Each about a table. From others it is a failure: the first may be about a program that a script wants to run.
    let nothing = match command.program {
        "nft" => Some("No such file or directory"),
        "ip" => Some("table does not exist"),
        _ => None,
    };
    let output = once(command, &command.args)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && !nothing.is_some_and(|text| said.contains(text)) {
        return Err(failed(command, &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs commands in order, up to the first that fails.
pub(super) fn run_all(commands: &[Command]) -> Result<(), Failure> {
    commands.iter().try_for_each(run)
}

fn run(command: &Command) -> Result<(), Failure> {
    // What has no program has no rules.
    if matches!(command.run, Run::May | Run::UntilFailure) && !is_here(command.program) {
        return Ok(());
    }
    tracing::debug!(target: "tproxy_poc", %command, "running");
    if let Run::Unless(check) = &command.run
        && once(command, check)?.status.success()
    {
        return Ok(());
    }
    let output = once(command, &command.args)?;
    let success = output.status.success();
    match &command.run {
        Run::UntilFailure => {
            let mut more = success;
            for _ in 0..MOST {
                if !more {
                    break;
                }
                more = once(command, &command.args)?.status.success();
            }
            Ok(())
        }
        Run::May => Ok(()),
        Run::Tolerating(text) if String::from_utf8_lossy(&output.stderr).contains(text) => Ok(()),
        _ if success => Ok(()),
        _ => Err(failed(command, &output)),
    }
}

fn failed(command: &Command, output: &process::Output) -> Failure {
    let said = String::from_utf8_lossy(&output.stderr);
    Failure::Runtime(format!("`{command}` failed ({}): {}{}", output.status, said.trim(), hint(&said)))
}

/// Kills a program that takes too long, unless it is dropped before.
struct Deadline {
    ended: Option<mpsc::Sender<()>>,
    watch: Option<JoinHandle<()>>,
}

impl Deadline {
    fn within(child: &Child, limit: Duration) -> io::Result<Self> {
        // Stays its own, whoever gets its number when it has ended.
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        let (ended, end) = mpsc::channel();
        let watch = thread::Builder::new().spawn(move || {
            if end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                // It may have ended just now.
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
        })?;
        Ok(Self { ended: Some(ended), watch: Some(watch) })
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.ended = None;
        if let Some(watch) = self.watch.take() {
            // It does not panic.
            let _ = watch.join();
        }
    }
}

/// What may be missing when a tool says that it does not know something.
fn hint(said: &str) -> String {
    const MODULES: [(&str, &str); 6] = [
        ("TPROXY", "xt_TPROXY (nft: nft_tproxy)"),
        ("match `socket'", "xt_socket"),
        ("socket", "xt_socket (nft: nft_socket)"),
        ("conntrack", "nf_conntrack and xt_conntrack"),
        ("CONNMARK", "xt_connmark"),
        ("REDIRECT", "xt_REDIRECT and nf_nat"),
    ];
    let missing = ["No such file", "Extension", "not supported", "Couldn't load", "No chain/target/match"];
    if !missing.iter().any(|text| said.contains(text)) {
        return String::new();
    }
    let module = MODULES
        .iter()
        .find(|(word, _)| said.contains(word))
        .map_or("a module of netfilter", |(_, module)| module);
    format!(" (does this kernel lack {module}?)")
}

fn once(command: &Command, args: &[String]) -> Result<process::Output, Failure> {
    let start = || -> io::Result<process::Output> {
        let mut child = process::Command::new(command.program)
            .args(args)
            .env("PATH", search_path())
            .env("LC_ALL", "C")
            .stdin(if command.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // Before Linux 5.3 there is none.
        let _deadline = Deadline::within(&child, LIMIT).ok();
        if let (Some(input), Some(mut stdin)) = (&command.input, child.stdin.take())
            && let Err(error) = stdin.write_all(input.as_bytes())
            // It has ended without reading all, and says why.
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error);
        }
        child.wait_with_output()
    };
    start().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Runtime(format!("`{}` is not on PATH", command.program)),
        _ => Failure::Runtime(format!("cannot run `{}`: {error}", command.program)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        use std::os::unix::process::ExitStatusExt;

        let mut child = process::Command::new("sleep").arg("1000").spawn().unwrap();

        let deadline = Deadline::within(&child, Duration::from_millis(1)).unwrap();

        assert_eq!(child.wait().unwrap().signal(), Some(9));
        drop(deadline);
    }

    #[test]
    fn one_that_ends_is_left_alone() {
        let mut child = process::Command::new("true").spawn().unwrap();

        let deadline = Deadline::within(&child, LIMIT).unwrap();

        assert!(child.wait().unwrap().success());
        drop(deadline);
    }
}
