//! The program as a child process.

use std::net::SocketAddr;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use meshlib::test_util::Consul;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tokio::time;
use tokio::time::Instant;

pub(crate) use crate::lines::Lines;
pub(crate) use crate::lines::SOON;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tricot");

/// How often a condition is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// A running `tricot`. Killed when dropped; what it logged is shown if the test fails.
pub(crate) struct Tricot {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    /// Where it listens for HTTP.
    pub(crate) http: SocketAddr,
    /// Where it listens for HTTPS.
    pub(crate) https: SocketAddr,
    /// Where it serves metrics, health and rules.
    pub(crate) metrics: SocketAddr,
}

/// The program with no variables but the usual ones of these tests: ports of its own, and an authority that nobody can
/// reach, so that clients see self-signed certificates.
pub(crate) fn command(consul: SocketAddr) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env_clear()
        .env("RUST_LOG", "tricot=info")
        .env("TRICOT_LETSENCRYPT_EMAIL", "admin@example.com")
        .env("TRICOT_ACME_DIRECTORY", "https://127.0.0.1:1/dir")
        .env("TRICOT_CONSUL_HOST", format!("http://{consul}"))
        .env("TRICOT_HTTP_BIND_ADDR", "127.0.0.1:0")
        .env("TRICOT_HTTPS_BIND_ADDR", "127.0.0.1:0")
        .env("TRICOT_METRICS_BIND_ADDR", "127.0.0.1:0");
    command
}

impl Tricot {
    /// Starts it, and waits until it has a table.
    pub(crate) async fn start(consul: &Consul) -> Self {
        Self::start_with(consul, &[]).await
    }

    /// The same with more variables.
    pub(crate) async fn start_with(consul: &Consul, variables: &[(&str, &str)]) -> Self {
        let tricot = Self::spawn(command(consul.addr()).envs(variables.iter().copied()));
        tricot.has_table().await;
        tricot
    }

    /// Starts a command, and waits until it listens.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        command.args(["--log-format", "json"]).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Lines::follow(child.stdout.take().unwrap());
        let stderr = Lines::follow(child.stderr.take().unwrap());
        let addr = |what: &str| {
            let message = format!(r#""message":"listening for {what}""#);
            let line = stdout.wait_for(&message, |line| line.contains(&message));
            line.split_once(r#""addr":""#).unwrap().1.split_once('"').unwrap().0.parse().unwrap()
        };
        let (http, https, metrics) = (addr("HTTP"), addr("HTTPS"), addr("admin requests"));
        Self { child, stdout, stderr, http, https, metrics }
    }

    /// Waits until it has read the catalog.
    pub(crate) async fn has_table(&self) {
        until("a first table", async || {
            self.stdout.count(r#""message":"rules""#) > 0 || self.stdout.count(r#""message":"draining""#) > 0
        })
        .await;
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> &Lines {
        &self.stdout
    }

    /// What it printed on stderr so far.
    pub(crate) fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// Waits until it has logged something.
    pub(crate) async fn logs(&self, text: &str) {
        until(text, async || self.stdout.count(text) > 0).await;
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended.
    pub(crate) async fn exit(&mut self, within: Duration) -> ExitStatus {
        let late = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < late, "the program still runs after {within:?}");
            time::sleep(LOOK).await;
        }
    }
}

impl Drop for Tricot {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("stdout: {:#?}\nstderr: {:#?}", self.stdout.all(), self.stderr.all());
        }
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    until_within(what, SOON, holds).await;
}

/// Waits until a condition holds, and says how long that took.
pub(crate) async fn until_within(
    what: &str,
    within: Duration,
    mut holds: impl AsyncFnMut() -> bool,
) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        time::sleep(LOOK).await;
    }
    began.elapsed()
}
