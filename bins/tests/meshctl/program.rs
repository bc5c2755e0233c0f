//! A program that is looked at, and `meshctl` as its caller runs it.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use bins::kit::admin::Admin;
use bins::kit::admin::AdminSocket;
use meshlib::http::admin::Router;
use meshlib::http::admin::json;
use meshlib::http::admin::text;
use tokio::runtime::Runtime;

use crate::child::Ended;
use crate::child::Running;

/// What the program in most tests says of itself.
pub(crate) const STATE: &str = include_str!("golden/state.json");
pub(crate) const HISTORY: &str = include_str!("golden/history.json");

/// An admin server with pages of the test's choice. Gone when dropped.
pub(crate) struct Program {
    addr: SocketAddr,
    admin: Option<Admin>,
    runtime: Option<Runtime>,
}

impl Program {
    /// Serves pages, as a program of ours.
    pub(crate) fn start(pages: Router) -> Self {
        Self::of_others(pages.get("/live", |_| text("live\n")))
    }

    /// Serves pages, and none that programs of ours have.
    pub(crate) fn of_others(pages: Router) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), pages)
    }

    /// Serves pages at an address.
    pub(crate) fn at(addr: SocketAddr, pages: Router) -> Self {
        let runtime = Runtime::new().unwrap();
        let _entered = runtime.enter();
        let socket = AdminSocket::open(addr).unwrap();
        let addr = socket.addr();
        let admin = socket.serve(pages).unwrap();
        Self { addr, admin: Some(admin), runtime: Some(runtime) }
    }

    /// Serves what is in the files beside this one.
    pub(crate) fn usual() -> Self {
        Self::start(usual())
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `meshctl` with these arguments, for this program.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        command(&[&["--admin", &self.addr.to_string()], args].concat())
    }

    /// What comes of `meshctl` with these arguments, for this program.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        Running::spawn(&mut self.command(args)).ended()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.admin.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// The pages with what is in the files beside this one.
pub(crate) fn usual() -> Router {
    Router::new().get("/state.json", |_| json(STATE)).get("/history.json", |_| json(HISTORY))
}

/// `meshctl` with these arguments, and nothing of the environment that would change what it does.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    command.args(args).stdin(Stdio::null()).env_remove("MESHCTL_ADMIN").env_remove("NO_COLOR");
    command
}

/// What comes of `meshctl` with these arguments.
pub(crate) fn run(args: &[&str]) -> Ended {
    Running::spawn(&mut command(args)).ended()
}

/// Compares with a file; with `UPDATE_GOLDEN` set it writes the file instead.
pub(crate) fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/meshctl/golden").join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == text, "{} is out of date: UPDATE_GOLDEN=1 writes it\n{text}", path.display());
}
