//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use meshlib::Drain;
use tokio::runtime::Builder;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::watch;

use super::Bound;
use super::Prepared;
use super::config;
use crate::limits;
use crate::load;
use crate::log;
use crate::log::LogFormat;
use crate::log::LogOptions;

/// The status for everything that goes wrong, as the original had it for misuse.
const FAILED: u8 = 1;

/// A TCP and TLS load balancer for the linkerd service mesh, fed by namerd.
///
/// Reads which ports to listen on and which names to look up from a configuration file, in either language of the
/// original: with `proxies` (0.0.x) or with `routers` (0.1.x), as YAML or JSON.
#[derive(Debug, Parser)]
#[command(name = "linkerd-tcp", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
#[non_exhaustive]
pub struct Args {
    /// Config file path; `-` reads stdin
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// Check the configuration and the files it names, then exit: 0 if all is well, 1 if not. Opens no socket
    #[arg(long)]
    pub check: bool,

    /// With --check: warnings count as errors
    #[arg(long, requires = "check")]
    pub strict: bool,

    /// Threads that serve connections [default: `workers` of the file, else one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,

    /// How log lines look
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

const AFTER_HELP: &str = "\
Signals:
  TERM, INT  stop accepting, let streams end within the grace (10 s unless admin.graceSecs says otherwise), exit 0;
             a second one exits at once with 1
  HUP        load certificates and keys again

Environment:
  RUST_LOG   what to log to stderr, such as linkerd_tcp=info or trace [default: errors only]
  NO_COLOR   if set, log lines have no colour

Example:
  RUST_LOG=linkerd_tcp=info linkerd-tcp example.yml";

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody is left to be told that this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS };
        }
    };
    log::start(&LogOptions::new("linkerd_tcp").with_format(args.log_format));
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", log::chain(&*error));
            ExitCode::from(FAILED)
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let source = load::read(&args.path)?;
    let (config, warnings) = config::parse(&source.text, &source.name)?;
    for warning in &warnings {
        eprintln!("{warning}");
    }
    let prepared = Prepared::new(config)?;
    if args.check {
        if args.strict && !warnings.is_empty() {
            return Err(format!("{}: {} warnings", source.name, warnings.len()).into());
        }
        println!("{}: OK, {}", source.name, prepared.summary());
        return Ok(());
    }
    limits::raise_descriptors();
    // The control runtime: discovery, admin, signals. It needs no threads but this one; those that read files end after
    // a while without work.
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let result = runtime.block_on(async {
        let bound = prepared.bind(args.workers.map(usize::from))?;
        if bound.announces_admin() {
            println!("Listening on http://{}.", bound.admin());
        }
        serve(bound).await
    });
    // After a second signal there are threads that work on; the process ends without them.
    runtime.shutdown_background();
    result
}

async fn serve(bound: Bound) -> Result<(), Box<dyn std::error::Error>> {
    let drain = Drain::new();
    let (reload, reloads) = watch::channel(());
    let grace = bound.grace();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let serving = bound.run(drain.clone(), reloads);
    let mut serving = std::pin::pin!(serving);
    let mut ending: Option<tokio::task::JoinHandle<bool>> = None;
    loop {
        let told = tokio::select! {
            result = &mut serving => return Ok(result?),
            _ = terminate.recv() => "TERM",
            _ = interrupt.recv() => "INT",
            _ = hangup.recv() => {
                tracing::info!(target: "linkerd_tcp::app", "loading certificates and keys again");
                reload.send_replace(());
                continue;
            }
        };
        if ending.is_some() {
            return Err(format!("a second signal ({told}): exiting at once").into());
        }
        tracing::info!(target: "linkerd_tcp::app", signal = told, ?grace, "draining");
        let drain = drain.clone();
        ending = Some(tokio::spawn(async move { drain.finish(grace).await }));
    }
}
