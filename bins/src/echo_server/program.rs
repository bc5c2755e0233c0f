//! The command line.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use futures::future::try_join_all;
use meshlib::Drain;
use meshlib::ListenOptions;
use meshlib::Listener;
use meshlib::Server;
use tokio::runtime::Builder;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::Semaphore;
use tower::service_fn;
use tracing::Level;

use super::exchange::exchange;
use crate::limits;
use crate::log;
use crate::log::LogFormat;
use crate::log::LogOptions;
use crate::log::LogOutput;

/// The status for misuse; for what goes wrong later it is 1.
const MISUSED: u8 = 2;

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
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:3000")]
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
  TERM, INT  stop accepting, let connections end within 10 s, exit 0; a second one exits at once with 1

Environment:
  RUST_LOG   what to log to stdout, such as echo_server=debug, which shows what clients say [default: echo_server=info]
  NO_COLOR   if set, log lines have no colour

Exit status:
  0 ended by a signal, 1 failed, 2 misused

Example:
  echo-server --addr '[::]:3000'";

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody is left to be told that this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(MISUSED) } else { ExitCode::SUCCESS };
        }
    };
    let options = LogOptions::new("echo_server").with_output(LogOutput::Stdout).with_level(Level::INFO);
    log::start(&options.with_format(args.log_format));
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", log::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    limits::raise_descriptors();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    // Before anybody can connect, so that no signal ends the process in the midst of an exchange.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let drain = Drain::new();
    let limit = usize::try_from(args.max_connections)?.min(Semaphore::MAX_PERMITS);
    let limit = Arc::new(Semaphore::new(limit));
    let mut servers = Vec::new();
    for addr in &args.addr {
        let listener = Listener::open(*addr, &ListenOptions::default()).and_then(Listener::from_std);
        let listener = listener.map_err(|error| format!("cannot listen on {addr}: {error}"))?;
        let server = Server::from_listener(listener).share_limit(Arc::clone(&limit));
        tracing::info!(target: "echo_server", "Listening on {}", server.local_addr());
        servers.push(server.serve(service_fn(exchange), drain.clone()));
    }

    let serving = try_join_all(servers);
    let mut serving = std::pin::pin!(serving);
    let mut is_ending = false;
    loop {
        tokio::select! {
            result = &mut serving => return Ok(result.map(drop)?),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if is_ending {
            return Err("a second signal: exiting at once".into());
        }
        is_ending = true;
        tracing::info!(target: "echo_server", grace = ?GRACE, "Draining");
        let drain = drain.clone();
        tokio::spawn(async move { drain.finish(GRACE).await });
    }
}
