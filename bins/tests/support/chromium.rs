//! A real browser, where there is one.

use std::net::SocketAddr;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use crate::child::Running;
use crate::optional;

const BROWSER: &str = "chromium-headless-shell";
/// How long it may take to start, load the page and end.
const SOON: Duration = Duration::from_secs(60);

/// Whether there is a browser.
pub(crate) fn is_there() -> bool {
    optional::is_there(BROWSER)
}

/// A page as the browser has it after seven seconds of its own time, and what was said on its console.
pub(crate) struct Seen {
    pub(crate) page: String,
    pub(crate) console: Vec<String>,
}

pub(crate) async fn browse(at: SocketAddr, args: &[&str]) -> Seen {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(BROWSER);
    command.args(["--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--dump-dom"]);
    command.arg("--virtual-time-budget=7000").arg(format!("--user-data-dir={}", dir.path().display()));
    command.args(args).arg(format!("http://{at}/dashboard")).stdin(Stdio::null());
    let mut browser = Running::spawn(&mut command);
    browser.exit(SOON).await;
    let ended = browser.ended();
    let console = ended.stderr.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    Seen { page: ended.stdout, console }
}
