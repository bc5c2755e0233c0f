//! The program as a child process.

use std::net::SocketAddr;
use std::ops::Deref;
use std::ops::DerefMut;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use meshlib::test_util::Consul;
use tokio::time;
use tokio::time::Instant;

pub(crate) use crate::child::LOOK;
use crate::child::Running;
pub(crate) use crate::lines::Lines;
pub(crate) use crate::lines::SOON;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tricot");

/// A running `tricot`. Killed when dropped; what it logged is shown if the test fails.
pub(crate) struct Tricot {
    running: Running,
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
        let running = Running::spawn(command);
        let addr = |what: &str| {
            let message = format!(r#""message":"listening for {what}""#);
            let line = running.stdout().wait_for(&message, |line| line.contains(&message));
            line.split_once(r#""addr":""#).unwrap().1.split_once('"').unwrap().0.parse().unwrap()
        };
        let (http, https, metrics) = (addr("HTTP"), addr("HTTPS"), addr("admin requests"));
        Self { running, http, https, metrics }
    }

    /// Waits until it has read the catalog.
    pub(crate) async fn has_table(&self) {
        until("a first table", async || {
            self.stdout().count(r#""message":"rules""#) > 0
                || self.stdout().count(r#""message":"draining""#) > 0
        })
        .await;
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> &Lines {
        self.stdout()
    }

    /// Waits until it has logged something.
    pub(crate) async fn logs(&self, text: &str) {
        until(text, async || self.stdout().count(text) > 0).await;
    }
}

impl Deref for Tricot {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl DerefMut for Tricot {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
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
