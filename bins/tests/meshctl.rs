//! The built `meshctl`, from outside: against an admin server in the test's own process, on pipes and on terminals.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

#[path = "meshctl/about.rs"]
mod about;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/child.rs"]
mod child;
#[path = "meshctl/hostile.rs"]
mod hostile;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/lines.rs"]
mod lines;
#[path = "meshctl/log_level.rs"]
mod log_level;
#[path = "meshctl/program.rs"]
mod program;
#[path = "meshctl/ready.rs"]
mod ready;
#[cfg(feature = "linkerd-tcp")]
#[path = "meshctl/real.rs"]
mod real;
#[path = "meshctl/stat.rs"]
mod stat;
#[path = "meshctl/terminal.rs"]
mod terminal;
#[cfg(feature = "tui")]
#[path = "meshctl/top.rs"]
mod top;
#[path = "meshctl/watch.rs"]
mod watch;
