//! A program that is looked at, and `meshctl` as its caller runs it.

use std::net::SocketAddr;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use bins::admin::Admin;
use bins::admin::AdminSocket;
use meshlib::http::admin::Router;
use tokio::runtime::Runtime;

use crate::child::Ended;
use crate::child::Running;

/// An admin server with pages of the test's choice. Gone when dropped.
pub(crate) struct Program {
    addr: SocketAddr,
    admin: Option<Admin>,
    runtime: Option<Runtime>,
}

impl Program {
    /// Serves pages.
    pub(crate) fn start(pages: Router) -> Self {
        let runtime = Runtime::new().unwrap();
        let _entered = runtime.enter();
        let socket = AdminSocket::open(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let addr = socket.addr();
        let admin = socket.serve(pages).unwrap();
        Self { addr, admin: Some(admin), runtime: Some(runtime) }
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

/// `meshctl` with these arguments, and nothing of the environment that would change what it does.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    command.args(args).stdin(Stdio::null()).env_remove("MESHCTL_ADMIN").env_remove("NO_COLOR");
    command
}
