//! Log lines on stderr or stdout, chosen by `RUST_LOG`.

use std::env;
use std::io;
use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[non_exhaustive]
pub enum LogFormat {
    /// For people; coloured on a terminal unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Where lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogOutput {
    /// Beside the results, which are on stdout.
    #[default]
    Stderr,
    /// Where a tool prints nothing else.
    Stdout,
}

/// What a tool logs, how and where.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogOptions {
    /// The target named after the tool, which stands for everything that works on the tool's behalf.
    pub tool: &'static str,
    /// How lines look. Default: text.
    pub format: LogFormat,
    /// Where they go. Default: stderr.
    pub output: LogOutput,
    /// What the tool logs while `RUST_LOG` is unset. Default: errors only, as is always so for everything else.
    pub level: Level,
}

impl LogOptions {
    /// The defaults for a tool.
    pub fn new(tool: &'static str) -> Self {
        Self { tool, format: LogFormat::default(), output: LogOutput::default(), level: Level::ERROR }
    }

    /// Sets how lines look.
    #[must_use]
    pub fn with_format(mut self, format: LogFormat) -> Self {
        self.format = format;
        self
    }

    /// Sets where lines go.
    #[must_use]
    pub fn with_output(mut self, output: LogOutput) -> Self {
        self.output = output;
        self
    }

    /// Sets what is logged while `RUST_LOG` is unset.
    #[must_use]
    pub fn with_level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }
}

/// Starts logging for the whole process, once.
///
/// `RUST_LOG` is a comma list of `target=level`, `target` or `level`. The target named after the tool stands for
/// everything that works on the tool's behalf: `linkerd_tcp=info` shows the library's lines too.
pub fn start(options: &LogOptions) {
    let spec = env::var("RUST_LOG").unwrap_or_else(|_| format!("{}={}", options.tool, options.level));
    let (directives, regex) = match spec.split_once('/') {
        Some((directives, regex)) => (directives, Some(regex)),
        None => (spec.as_str(), None),
    };
    let (filter, bad) = filter(directives, options.tool);
    let (writer, terminal) = match options.output {
        LogOutput::Stderr => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
        LogOutput::Stdout => (BoxMakeWriter::new(io::stdout), io::stdout().is_terminal()),
    };
    let builder = fmt().with_env_filter(filter).with_writer(writer);
    let started = match options.format {
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
        LogFormat::Text => {
            let colour = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            builder.with_ansi(colour).try_init()
        }
    };
    // A process that logs already keeps its way of doing so.
    if started.is_ok() {
        if let Some(regex) = regex {
            tracing::warn!(regex, "RUST_LOG: the part behind `/` is ignored");
        }
        for directive in bad {
            tracing::warn!(directive, "RUST_LOG: not `target=level`, `target` or `level`; ignored");
        }
    }
}

/// The crates that work on behalf of a tool.
const CRATES: [&str; 4] = ["meshlib", "meshlib_namerd", "meshlib_consul", "bins"];

/// The filter, and the directives that could not be understood.
fn filter(directives: &str, tool: &str) -> (EnvFilter, Vec<String>) {
    let mut filter =
        EnvFilter::default().add_directive(tracing_subscriber::filter::LevelFilter::ERROR.into());
    let mut bad = Vec::new();
    for directive in directives.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let (target, level) = directive.split_once('=').unwrap_or((directive, "trace"));
        let of_tool = target == tool || target.strip_prefix(tool).is_some_and(|rest| rest.starts_with("::"));
        let names = if of_tool { [target].into_iter().chain(CRATES).collect() } else { vec![target] };
        for name in names {
            // A bare level or target is taken as it is; EnvFilter knows both.
            let text =
                if of_tool || directive.contains('=') { format!("{name}={level}") } else { name.to_owned() };
            match text.parse() {
                Ok(parsed) => filter = filter.add_directive(parsed),
                Err(_) => bad.push(directive.to_owned()),
            }
        }
    }
    (filter, bad)
}

/// An error with what is behind it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_stands_for_the_crates_that_work_for_it() {
        let (filter, bad) = filter("linkerd_tcp=info,hyper=warn", "linkerd_tcp");

        let text = filter.to_string();
        for part in ["meshlib=info", "meshlib_namerd=info", "linkerd_tcp=info", "hyper=warn", "error"] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        assert!(bad.is_empty());
    }

    #[test]
    fn a_bad_directive_is_named_and_the_others_hold() {
        let (filter, bad) = filter("trace,linkerd_tcp=loud", "linkerd_tcp");

        assert!(filter.to_string().contains("trace"));
        assert!(!bad.is_empty());
    }
}
