//! An example that runs as a process of its own.

use std::collections::HashMap;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::process;
use tokio::process::Child;
use tokio::process::ChildStdin;
use tokio::process::ChildStdout;
use tokio::time;

/// A running example. It is killed when this is dropped.
pub(crate) struct Program {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Holds the file of trusted authorities.
    _dir: TempDir,
}

impl Program {
    pub(crate) async fn start(name: &str, args: &[&str]) -> Self {
        Self::start_trusting(name, args, "").await
    }

    /// Starts an example for which the authorities of the operating system are these.
    pub(crate) async fn start_trusting(name: &str, args: &[&str], pem: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let roots = dir.path().join("roots.pem");
        fs::write(&roots, pem).unwrap();
        let mut child = process::Command::new(built(name))
            .args(args)
            .env("SSL_CERT_FILE", &roots)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().expect("it is piped");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, stdin, lines, _dir: dir }
    }

    /// The next line it prints.
    pub(crate) async fn line(&mut self) -> String {
        match bounded(self.lines.next_line()).await.unwrap() {
            Some(line) => line,
            None => panic!("no further line; it complains: {}", self.errors().await),
        }
    }

    /// The address at the end of the next line.
    pub(crate) async fn addr(&mut self) -> SocketAddr {
        let line = self.line().await;
        line.rsplit(' ').next().and_then(|addr| addr.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    }

    /// Types a line.
    pub(crate) async fn say(&mut self, line: &str) {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    pub(crate) async fn ends_well(mut self) {
        let status = bounded(self.child.wait()).await.unwrap();
        assert!(status.success(), "{status}: {}", self.errors().await);
    }

    /// Does what Ctrl-C does and waits for a good end.
    pub(crate) async fn interrupted_ends_well(self) {
        self.interrupt().await;
        self.ends_well().await;
    }

    /// Does what Ctrl-C does.
    pub(crate) async fn interrupt(&self) {
        let pid = self.child.id().expect("it was not waited for").to_string();
        let kill = process::Command::new("sh").args(["-c", "kill -INT \"$0\"", &pid]).status();
        assert!(bounded(kill).await.unwrap().success());
    }

    /// What it complains about when it fails.
    pub(crate) async fn complaint(mut self) -> String {
        let status = bounded(self.child.wait()).await.unwrap();
        assert!(!status.success(), "{status}");
        self.errors().await
    }

    async fn errors(&mut self) -> String {
        let mut text = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            bounded(stderr.read_to_string(&mut text)).await.unwrap();
        }
        text
    }
}

/// Far more than anything here takes, on a busy machine too.
pub(crate) async fn bounded<F: Future>(future: F) -> F::Output {
    time::timeout(Duration::from_secs(60), future).await.expect("it comes within a minute")
}

/// Where an example is.
pub(crate) fn built(name: &str) -> &'static Path {
    &BUILT[name]
}

/// The examples by name. Cargo tells a test where the binaries of its package are but not where the examples are, and
/// builds them only with some of its arguments; asked again it does nothing but answer.
static BUILT: LazyLock<HashMap<String, PathBuf>> = LazyLock::new(|| {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--package", "examples", "--examples", "--message-format", "json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the examples must build");

    let messages = String::from_utf8(output.stdout).unwrap();
    let mut built = HashMap::new();
    for line in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        if let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str())
        {
            built.insert(name.to_owned(), path.into());
        }
    }
    built
});
