//! The command line.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use clap::Parser;
use meshlib::Drain;

use super::Bound;
use super::Prepared;
use super::Reloads;
use super::Sessions;
use super::config;
use super::config::Config;
use crate::kit::cli;
use crate::kit::cli::Failure;
use crate::kit::cli::Tool;
use crate::kit::control;
use crate::kit::ending::Ending;
use crate::kit::limits;
use crate::kit::load;
use crate::kit::load::ConfigError;
use crate::kit::load::Warning;
use crate::kit::log;
use crate::kit::log::LogFormat;
use crate::kit::log::LogOptions;
use crate::kit::probe;
use crate::kit::signals;
use crate::kit::signals::Order;
use crate::kit::signals::Signals;
use crate::kit::sockets::Passed;
use crate::kit::units::grace;
use crate::kit::units::listen;

/// The original had the same status for misuse as for everything else.
const TOOL: Tool = Tool::new("linkerd-tcp").with_misused(1);

/// The path that stands for the standard input.
const STDIN: &str = "-";

/// A TCP and TLS load balancer for the linkerd service mesh, fed by namerd.
///
/// Reads which ports to listen on and which names to look up from a configuration file, in either language of the
/// original: with `proxies` (0.0.x) or with `routers` (0.1.x), as YAML or JSON.
#[derive(Clone, Debug, Parser)]
#[command(name = "linkerd-tcp", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
#[non_exhaustive]
pub struct Args {
    /// Config file path; `-` reads stdin
    #[arg(value_name = "PATH", required_unless_present_all = ["probe_ready", "admin"])]
    pub path: Option<PathBuf>,

    /// Check the configuration and the files it names, then exit: 0 if all is well, 1 if not. Opens no socket
    #[arg(long)]
    pub check: bool,

    /// With --check: warnings count as errors
    #[arg(long, requires = "check")]
    pub strict: bool,

    /// Print the configuration that is in force, with all defaults and what other arguments change, then exit. Opens no
    /// socket
    #[arg(long, conflicts_with = "check")]
    pub print_config: bool,

    /// Ask the program that runs with the same configuration whether it wants traffic, then exit: 0 if it does, 1 if not. For
    /// health checks in containers. With --admin no PATH is needed, and none is read
    #[arg(long, conflicts_with_all = ["check", "print_config"])]
    pub probe_ready: bool,

    /// Threads that serve connections [default: `workers` of the file, else one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,

    /// Where to serve admin requests, to whoever reaches it [default: `admin` of the file, else 0.0.0.0:9989 with `proxies` and
    /// 127.0.0.1:9989 with `routers`]
    #[arg(long, value_name = "IP:PORT", value_parser = listen)]
    pub admin: Option<SocketAddr>,

    /// How long streams may go on when the program is told to end [default: `admin.graceSecs` of the file, else 10s]
    #[arg(long, value_name = "TIME", value_parser = grace)]
    pub drain: Option<Duration>,

    /// How log lines look
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

const AFTER_HELP: &str = "\
Signals:
  TERM, INT, QUIT
             stop accepting, let streams end within --drain, exit 0;
             a second one exits at once with 1
  HUP        load the configuration, certificates and keys again:
             all of it, or nothing if something is wrong
  USR1       nothing

Environment:
  RUST_LOG   what to log to stderr, such as linkerd_tcp=info or trace [default: errors only]
  NO_COLOR   if set, log lines have no colour; CLICOLOR_FORCE gives them some without a terminal

Example:
  RUST_LOG=linkerd_tcp=info linkerd-tcp example.yml";

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let args: Args = match TOOL.parse() {
        Ok((args, _)) => args,
        Err(status) => return status,
    };
    log::start(&LogOptions::new("linkerd_tcp").with_format(args.log_format));
    TOOL.ended(Args::command(), run(&args))
}

fn run(args: &Args) -> Result<(), Failure> {
    if let (true, Some(admin)) = (args.probe_ready, args.admin) {
        return probe::ready(admin);
    }
    let Loaded { source, config, mut warnings } = Loaded::new(args)?;
    if args.print_config {
        tell(&warnings);
        cli::print(load::yaml(&config.to_value()).trim_end());
        return Ok(());
    }
    if args.probe_ready {
        return probe::ready(config.admin.addr);
    }
    let prepared = Prepared::new(config).map_err(|error| {
        tell(&warnings);
        wrong(error)
    })?;
    warnings.extend(prepared.warnings());
    tell(&warnings);
    if args.check {
        if args.strict && !warnings.is_empty() {
            return Err(Failure::Config(format!("{source}: {} warnings", warnings.len())));
        }
        cli::print(&format!("{source}: OK, {}", prepared.summary()));
        return Ok(());
    }
    limits::raise_descriptors();
    control::run(async {
        // Before anybody can connect, so that no signal ends the process in the midst of a connection.
        let signals = Signals::install().map_err(Failure::runtime)?;
        let status = format!("serving {}", prepared.summary());
        let sessions = prepared.sessions();
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(target: log::PROCESS, version, file = &*source, "starting");
        let passed = Passed::take("linkerd-tcp", &[]).map_err(|error| {
            Failure::Runtime(format!("the sockets that were passed are of no use: {error}"))
        })?;
        let bound = prepared.bind_with(args.workers.map(usize::from), passed).map_err(wrong)?;
        if bound.announces_admin() {
            cli::print(&format!("Listening on http://{}.", bound.admin()));
        }
        serve(bound, source, args.clone(), sessions, &status, signals).await
    })
}

fn tell(warnings: &[Warning]) {
    for warning in warnings {
        eprintln!("{warning}");
    }
}

fn wrong(error: ConfigError) -> Failure {
    Failure::Config(error.to_string())
}

/// A configuration as it is in its file and changed by arguments.
struct Loaded {
    source: Arc<str>,
    config: Config,
    warnings: Vec<Warning>,
}

impl Loaded {
    fn new(args: &Args) -> Result<Self, Failure> {
        let path = args.path.as_deref().unwrap_or_else(|| Path::new(STDIN));
        let source = load::read(path).map_err(|error| Failure::Config(log::chain(&error)))?;
        let (mut config, warnings) = config::parse(&source.text, &source.name).map_err(wrong)?;
        if let Some(addr) = args.admin {
            config.move_admin(addr).map_err(Failure::Usage)?;
        }
        if let Some(grace) = args.drain {
            config.admin.grace = grace;
        }
        if let Some(workers) = args.workers {
            config.workers = Some(workers.into());
        }
        Ok(Self { source: source.name, config, warnings })
    }

    /// While the program runs: what is worth a word is logged.
    fn again(args: &Args, sessions: &Sessions) -> Result<Prepared, String> {
        if args.path.as_deref() == Some(Path::new(STDIN)) {
            return Err("stdin can be read but once: certificates and keys are looked at".into());
        }
        let Self { config, warnings, .. } = Self::new(args).map_err(|failure| failure.to_string())?;
        let prepared = sessions.prepare(config).map_err(|error| error.to_string())?;
        for warning in warnings.into_iter().chain(prepared.warnings()) {
            tracing::warn!(target: "linkerd_tcp::app", "{}", load::in_one_line(&warning.to_string()));
        }
        Ok(prepared)
    }
}

async fn serve(
    bound: Bound,
    source: Arc<str>,
    args: Args,
    sessions: Sessions,
    status: &str,
    mut signals: Signals,
) -> Result<(), Failure> {
    let (ask, reloads) = Reloads::new(&*source, move || Loaded::again(&args, &sessions));
    let ending = Ending::new(Drain::new(), bound.grace());
    let serving = bound.run(ending.clone(), reloads);
    let served = ending.serve(serving, status, &mut signals, |order| match order {
        Order::Reload => {
            tracing::info!(target: "linkerd_tcp::app", "HUP: loading the configuration again");
            ask.ask();
        }
        order => signals::nothing_to_do(order),
    });
    served.await.map_err(Failure::runtime)?.map_err(Failure::runtime)
}
