//! The command line.

use std::path::PathBuf;

use tokio::time::Duration;

use crate::host;
use crate::workload;

/// What was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    /// Rounds per workload.
    pub(crate) rounds: usize,
    /// The measured window of one sample.
    pub(crate) window: Duration,
    /// Work before the window.
    pub(crate) warm_up: Duration,
    /// Connections of the idle workloads.
    pub(crate) idle_connections: usize,
    /// Workloads by name or family; empty for all.
    pub(crate) workloads: Vec<String>,
    /// Peers by name; empty for all.
    pub(crate) peers: Vec<String>,
    /// Names and folders of our programs.
    pub(crate) ours: Vec<(String, PathBuf)>,
    /// Where the raw results go.
    pub(crate) json: Option<PathBuf>,
    /// Whether this process already has a network of its own.
    pub(crate) inside_namespace: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    /// Measure.
    Run(Options),
    /// Print the workloads and peers.
    List,
    /// Print [`HELP`].
    Help,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 3,
            window: Duration::from_secs(3),
            warm_up: Duration::from_millis(500),
            idle_connections: 10_000,
            workloads: Vec::new(),
            peers: Vec::new(),
            ours: Vec::new(),
            json: None,
            inside_namespace: false,
        }
    }
}

/// Understands the arguments after the program's name.
pub(crate) fn parse(args: &[String]) -> Result<Command, String> {
    let mut options = Options::default();
    if args.iter().any(|arg| arg == "--quick") {
        options.rounds = 1;
        options.window = Duration::from_secs(1);
        options.warm_up = Duration::from_millis(250);
        options.idle_connections = 2000;
    }
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (arg.as_str(), None),
        };
        let mut value =
            || inline.clone().or_else(|| args.next().cloned()).ok_or_else(|| format!("{name} needs a value"));
        match name {
            "--help" | "-h" => return Ok(Command::Help),
            "--list" => return Ok(Command::List),
            "--quick" => {}
            "--rounds" => options.rounds = number(name, &value()?)?,
            "--seconds" => options.window = seconds(name, &value()?)?,
            "--idle" => options.idle_connections = number(name, &value()?)?,
            "--workloads" => options.workloads.extend(list(&value()?)),
            "--peers" => options.peers.extend(list(&value()?)),
            "--ours" => options.ours.push(named_path(&value()?)),
            "--json" => options.json = Some(value()?.into()),
            host::INSIDE => options.inside_namespace = true,
            _ => return Err(format!("unknown argument {arg}; --help shows what there is")),
        }
    }
    if options.ours.is_empty() {
        options.ours.push(named_path("target/release"));
    }
    // Mistyped names should fail now, not after a namespace has been made.
    workload::select(&options.workloads)?;
    Ok(Command::Run(options))
}

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Measures linkerd-tcp and tricot against HAProxy, nginx, Envoy and Caddy on the same loopback work.

Usage: compare [options]

  --workloads A,B   workloads or families of them (tcp, tls, https, idle, ..); default all
  --peers X,Y       peers to compare with; default all that are installed
  --ours [NAME=]D   the folder of our programs; default target/release; may be given more than once
  --rounds N        samples per peer and workload; default 3
  --seconds S       measured window of a sample; default 3
  --idle N          connections of the idle workloads; default 10000, or what `ulimit -n` allows
  --quick           one round of one second, 2000 idle connections: a check, not a measurement
  --json FILE       also write every sample to FILE
  --list            show workloads and peers
  --help            show this

Needs two cores. As root it also makes a network namespace for the run and raises priorities.
";

fn number(name: &str, text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("{name} wants a number above zero, not {text}"))
}

fn seconds(name: &str, text: &str) -> Result<Duration, String> {
    let value = text.parse().ok().filter(|s: &f64| (0.1..=3600.0).contains(s));
    value.map(Duration::from_secs_f64).ok_or_else(|| format!("{name} wants 0.1 to 3600 seconds, not {text}"))
}

fn list(text: &str) -> impl Iterator<Item = String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned)
}

fn named_path(text: &str) -> (String, PathBuf) {
    match text.split_once('=') {
        Some((name, path)) => (name.to_owned(), path.into()),
        None => ("ours".to_owned(), text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Command, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn explicit_options_win_over_quick() {
        let Ok(Command::Run(options)) = run("--rounds 5 --quick --seconds=0.5") else {
            panic!("should parse")
        };

        assert_eq!(options.rounds, 5);
        assert_eq!(options.window, Duration::from_millis(500));
        assert_eq!(options.idle_connections, 2000);
        assert_eq!(options.ours, [("ours".to_owned(), PathBuf::from("target/release"))]);
    }

    #[test]
    fn lists_and_names() {
        let Ok(Command::Run(options)) = run("--workloads tcp,idle --peers nginx --ours before=a --ours b")
        else {
            panic!("should parse")
        };

        assert_eq!(options.workloads, ["tcp", "idle"]);
        assert_eq!(options.peers, ["nginx"]);
        assert_eq!(options.ours, [("before".to_owned(), "a".into()), ("ours".to_owned(), "b".into())]);
    }

    #[test]
    fn mistakes_say_what_is_wrong() {
        for (line, word) in [
            ("--rounds 0", "above zero"),
            ("--seconds soon", "soon"),
            ("--workloads udp", "udp"),
            ("--json", "needs a value"),
            ("--fast", "--fast"),
        ] {
            assert!(run(line).unwrap_err().contains(word), "{line}");
        }
    }
}
