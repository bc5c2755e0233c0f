//! The command line.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use clap::Parser;
use meshlib::Drain;
use meshlib::ListenOptions;
use meshlib::Listener;
use meshlib::Server;
use tokio::sync::Semaphore;
use tower::service_fn;
use tracing::Level;

use super::exchange::exchange;
use crate::kit::cli::Failure;
use crate::kit::cli::Tool;
use crate::kit::control;
use crate::kit::ending::Ending;
use crate::kit::limits;
use crate::kit::log;
use crate::kit::log::LogFormat;
use crate::kit::log::LogOptions;
use crate::kit::log::LogOutput;
use crate::kit::signals;
use crate::kit::signals::Signals;
use crate::kit::units::listed;
use crate::kit::units::listen;
use crate::kit::workers::Job;
use crate::kit::workers::Workers;

const TOOL: Tool = Tool::new("echo-server");

/// How long connections may go on after a signal.
const GRACE: Duration = Duration::from_secs(10);

/// A server that greets whoever says something, and logs where it comes from.
///
/// Reads once, up to 2048 bytes, answers `Well, hello!` and closes; it does not echo. What begins like an HTTP/1.x
/// request gets the greeting as a response, with the address of the client in the header `x-peer-addr`. A client that
/// says nothing is told nothing, and is let go after 60 seconds.
#[derive(Debug, Parser)]
#[command(name = "echo-server", version, after_help = AFTER_HELP)]
#[non_exhaustive]
pub struct Args {
    /// Where to listen; may be repeated. `[::]:3000` takes IPv4 as well
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:3000", value_parser = listen)]
    pub addr: Vec<SocketAddr>,

    /// Connections at a time, at all addresses together; those beyond wait
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,

    /// How log lines look
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

const AFTER_HELP: &str = "\
Signals:
  TERM, INT, QUIT
             stop accepting, let connections end within 10 s, exit 0;
             a second one exits at once with 1
  HUP, USR1  nothing

Environment:
  RUST_LOG   what to log to stdout, such as echo_server=debug, which shows what clients say
             [default: echo_server=info]
  NO_COLOR   if set, log lines have no colour; CLICOLOR_FORCE gives them some without a terminal

Exit status:
  0 ended by a signal, 1 failed, 2 misused

Example:
  echo-server --addr '[::]:3000'";

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let args: Args = match TOOL.parse() {
        Ok((args, _)) => args,
        Err(status) => return status,
    };
    let options = LogOptions::new("echo_server").with_output(LogOutput::Stdout).with_level(Level::INFO);
    log::start(&options.with_format(args.log_format));
    limits::raise_descriptors();
    TOOL.ended(Args::command(), control::run(serve(&args)))
}

async fn serve(args: &Args) -> Result<(), Failure> {
    // Before anybody can connect, so that no signal ends the process in the midst of an exchange.
    let mut signals = Signals::install().map_err(Failure::runtime)?;
    let ending = Ending::new(Drain::new(), GRACE);
    let limit = usize::try_from(args.max_connections).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    let limit = Arc::new(Semaphore::new(limit));
    let (mut jobs, mut addrs) = (Vec::new(), Vec::new());
    for addr in &args.addr {
        let listener = Listener::open(*addr, &ListenOptions::default())
            .map_err(|error| Failure::Runtime(format!("cannot listen on {addr}: {error}")))?;
        let local = listener.local_addr().map_err(Failure::runtime)?;
        tracing::info!(target: "echo_server", "Listening on {local}");
        addrs.push(local);
        let (limit, drain) = (Arc::clone(&limit), ending.drain().clone());
        jobs.push(Job::new(format!("the server at {addr}"), async move {
            let server = Server::from_listener(Listener::from_std(listener)?).share_limit(limit);
            server.serve(service_fn(exchange), drain).await
        }));
    }
    let workers = Workers::start(vec![jobs]).map_err(Failure::runtime)?;
    let status = format!("serving at {}", listed(addrs));
    let served = ending.serve(workers.until_ended(&ending), &status, &mut signals, signals::nothing_to_do);
    served.await.map_err(Failure::runtime)?.map_err(Failure::runtime)
}
