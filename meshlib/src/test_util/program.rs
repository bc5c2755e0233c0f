//! Programs of others that run while a test does.

use std::env;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use super::Unavailable;

/// The folder below `target` where `./test servers` puts what it fetches.
const FETCHED: &str = "servers";

/// The path of a server that tests run against: what the environment variable says, else what `./test servers` fetched to
/// `relative` below its folder, else what is on `PATH`. That folder is looked for above the running program and, because
/// documentation examples run elsewhere, above the current folder.
///
/// # Errors
///
/// [`Unavailable::Server`] if it is nowhere.
pub fn locate(program: &'static str, variable: &'static str, relative: &str) -> Result<PathBuf, Unavailable> {
    let named = env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    // A test's own program lies somewhere below the target folder.
    let test = env::current_exe().unwrap_or_default();
    let here = env::current_dir().unwrap_or_default();
    let above = here.ancestors().map(|dir| dir.join("target"));
    let folders = test.ancestors().map(Path::to_path_buf).chain(above);
    let mut fetched = folders.map(|dir| dir.join(FETCHED).join(relative));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut installed = env::split_paths(&path).map(|dir| dir.join(program));
    named
        .or_else(|| fetched.find(|path| path.is_file()))
        .or_else(|| installed.find(|path| path.is_file()))
        .ok_or(Unavailable::Server { program, variable })
}

/// Ports on the loopback address that nobody uses for TCP or UDP at this moment, all different.
///
/// For programs that cannot be told to take any port. Somebody else may take one before they do: such a test tries again.
///
/// # Panics
///
/// If the system has none.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let mut held = Vec::new();
    let ports = std::array::from_fn(|_| {
        for _ in 0..TRIES {
            let port = fastrand::u16(PORTS);
            let bound = (
                TcpListener::bind((Ipv4Addr::LOCALHOST, port)),
                UdpSocket::bind((Ipv4Addr::LOCALHOST, port)),
            );
            if let (Ok(tcp), Ok(udp)) = bound {
                held.push((tcp, udp));
                return port;
            }
        }
        panic!("no free port among {TRIES}");
    });
    drop(held);
    ports
}

/// Below those that Linux gives to whoever asks for any, so that no connection of another test takes one.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
const TRIES: u32 = 1000;

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it. Both its outputs go to the file `log`.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or the file cannot be made.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let errors = output.try_clone()?;
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn()?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal, by the name that `kill` knows: `TERM`, `STOP`, `CONT`.
    ///
    /// # Panics
    ///
    /// If there is no such signal, or the program has ended.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} {}", self.id());
    }

    /// Kills it, and returns when it is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What it has said so far.
    ///
    /// # Panics
    ///
    /// If its log cannot be read.
    pub fn said(&self) -> String {
        let bytes =
            std::fs::read(&self.log).unwrap_or_else(|error| panic!("{}: {error}", self.log.display()));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_ends_with_its_guard() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut sh = Command::new("sh");
        let mut program = Program::start(sh.args(["-c", "echo here; exec sleep 60"]), &log).unwrap();
        while !program.said().contains("here") {
            std::thread::yield_now();
        }
        assert!(program.is_running());
        let proc = PathBuf::from(format!("/proc/{}", program.id()));

        drop(program);

        assert!(!proc.exists());
    }

    #[test]
    fn a_server_that_is_nowhere_says_how_to_get_it() {
        let missing = locate("no-such-server", "NO_SUCH_VARIABLE", "none/bin/none").unwrap_err();

        assert_eq!(
            missing.to_string(),
            "no no-such-server: run ./test servers, or set NO_SUCH_VARIABLE to its path"
        );
    }

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports::<8>().to_vec();
        ports.sort_unstable();
        ports.dedup();

        assert_eq!(ports.len(), 8);
    }
}
