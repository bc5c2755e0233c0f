//! The command line.

use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use http::Method;
use http::StatusCode;

use super::address::AdminAddr;
use super::ask::Answer;
use super::ask::AskError;
use super::ask::Client;
use super::pretty;
use super::stat;
use super::stat::Detail;
#[cfg(feature = "tui")]
use super::top;
use super::watch;
use crate::kit::cli;
use crate::kit::cli::Failure;
use crate::kit::cli::Tool;
use crate::kit::control;
use crate::kit::state::State;
use crate::kit::units::some_time;

const TOOL: Tool = Tool::new("meshctl").with_section("1");

/// Looks at a running linkerd-tcp, tproxy-poc or tricot through its admin address.
///
/// Shows what goes through the program and how its endpoints do, says whether it is ready, and changes what it logs.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
struct Args {
    /// Where the program serves admin requests: IP:PORT, HOST:PORT or http://HOST:PORT
    #[arg(long, global = true, value_name = "ADDR", env = "MESHCTL_ADMIN", default_value = "127.0.0.1:9989")]
    admin: AdminAddr,

    /// How long the program may take for an answer, such as 2, 2s or 500ms
    #[arg(long, global = true, value_name = "TIME", default_value = "2s", value_parser = some_time)]
    timeout: Duration,

    /// What to do.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what goes through the program, and its endpoints
    #[command(after_help = STAT_HELP)]
    Stat(StatArgs),
    /// Watch it live
    #[cfg(feature = "tui")]
    #[command(after_help = top::HELP)]
    Top(top::TopArgs),
    /// Say whether the program wants traffic: print `ready` and exit 0, or print why not and exit 1
    #[command(after_help = READY_HELP)]
    Ready,
    /// Show what the program logs, or change it until it ends
    #[command(after_help = LOG_LEVEL_HELP)]
    LogLevel {
        /// What to log from now on, as in RUST_LOG: target=level, target or level, with commas between
        #[arg(value_parser = filter)]
        filter: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct StatArgs {
    /// Look again every so often, until INT: in place on a terminal, else block after block [default: 2]
    #[arg(
        long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
        value_parser = some_time
    )]
    watch: Option<Duration>,

    /// What to print
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A line about the program, and one for each endpoint.
    #[default]
    Table,
    /// More columns, and the certificates.
    Wide,
    /// The document that the program gives.
    Json,
}

const AFTER_HELP: &str = "\
Exit status:
  0  all is well
  1  no answer, not ready, or refused by the program
  2  misused

Environment:
  MESHCTL_ADMIN  where the program serves admin requests, if --admin does not say so
  NO_COLOR       if set, nothing has colour

Examples:
  meshctl stat                                  what 127.0.0.1:9989 does
  meshctl --admin 10.0.0.7:9989 stat -o wide    more of another one
  meshctl stat --watch=5                        again every 5 s
  meshctl stat -o json | jq .traffic            for scripts
  meshctl ready --timeout 1s                    for probes, no shell needed
  meshctl log-level linkerd_tcp=debug           until the program ends";

const STAT_HELP: &str = "\
Columns:
  STATE    ready, cooling_down, ejected, probation or unused, and for how long; without endpoints
           what discovery has said: pending, neg or bound
  RPS      how often it was picked per second, in the last 5 s
  LATENCY  the time to the first byte of its answers, an average
  -        is not known

Examples:
  meshctl stat
  meshctl stat -o wide
  meshctl stat --watch=5
  meshctl stat -o json | jq '.destinations[].endpoints[].addr'
  meshctl stat | grep -vw ready         what is not well";

const READY_HELP: &str = "\
Examples:
  meshctl ready
  meshctl ready --timeout 500ms && echo go
  HEALTHCHECK CMD [\"/meshctl\", \"ready\"]          in a container without a shell
  readinessProbe: {exec: {command: [/meshctl, ready]}}";

const LOG_LEVEL_HELP: &str = "\
Examples:
  meshctl log-level
  meshctl log-level info
  meshctl log-level linkerd_tcp=debug,process=info";

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let args: Args = match TOOL.parse() {
        Ok((args, _)) => args,
        Err(status) => return status,
    };
    TOOL.ended(Args::command(), control::run(run(args)))
}

async fn run(args: Args) -> Result<(), Failure> {
    let client = Client::new(args.admin, args.timeout);
    match args.command {
        None => Err(Failure::Usage("a command is wanted, such as `meshctl stat`".into())),
        Some(Command::Stat(StatArgs { watch: None, output })) => {
            print(&look(&client, output).await.map_err(Failure::runtime)?);
            Ok(())
        }
        Some(Command::Stat(StatArgs { watch: Some(every), output })) => {
            watch::watch(every, async || look(&client, output).await).await
        }
        #[cfg(feature = "tui")]
        Some(Command::Top(args)) => top::run(&client, &args).await,
        Some(Command::Ready) => ready(&client).await,
        Some(Command::LogLevel { filter }) => log_level(&client, filter.as_deref()).await,
    }
}

async fn look(client: &Client, form: Form) -> Result<Vec<String>, AskError> {
    let page = "/state.json";
    let detail = match form {
        Form::Table => Detail::Usual,
        Form::Wide => Detail::Wide,
        Form::Json => {
            let text = client.text(page).await?;
            let pretty = pretty::pretty(&text).map_err(|error| client.foreign(page, &error))?;
            return Ok(pretty.lines().map(str::to_owned).collect());
        }
    };
    let state: State = client.json(page).await?;
    Ok(stat::lines(&state, detail))
}

async fn ready(client: &Client) -> Result<(), Failure> {
    let page = "/ready";
    let answer = client.ask(Method::GET, page, "").await.map_err(Failure::runtime)?;
    match answer.status {
        StatusCode::OK => {
            client.says(page, "ready", &answer.lines()).map_err(Failure::runtime)?;
            cli::print("ready");
            Ok(())
        }
        StatusCode::SERVICE_UNAVAILABLE if !answer.is_html && !answer.lines().is_empty() => {
            let each = format!("\n{}: not ready: ", TOOL.name);
            Err(Failure::Runtime(format!("not ready: {}", answer.lines().join(&each))))
        }
        _ => Err(Failure::runtime(client.refused(page, &answer))),
    }
}

/// A filter that fits into a URL.
fn filter(text: &str) -> Result<String, String> {
    const LONGEST: usize = 4_096;

    if text.len() <= LONGEST { Ok(text.to_owned()) } else { Err(format!("more than {LONGEST} bytes")) }
}

async fn log_level(client: &Client, filter: Option<&str>) -> Result<(), Failure> {
    let page = "/log-level";
    client.is_ours().await.map_err(Failure::runtime)?;
    let asked = match filter {
        None => client.ask(Method::GET, page, "").await,
        Some(filter) => {
            let encoded: String = form_urlencoded::byte_serialize(filter.as_bytes()).collect();
            client.ask(Method::PUT, page, &format!("?filter={encoded}")).await
        }
    };
    let answer: Answer = asked.map_err(Failure::runtime)?;
    if !answer.status.is_success() || answer.is_html {
        return Err(Failure::runtime(client.refused(page, &answer)));
    }
    print(&answer.lines());
    Ok(())
}

fn print(lines: &[String]) {
    cli::print(&lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }
}
