//! Log lines on stderr or stdout, chosen by `RUST_LOG`.

use std::env;
use std::ffi::OsString;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::kit::load::in_one_line;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[non_exhaustive]
pub enum LogFormat {
    /// For people; coloured on a terminal, or where `CLICOLOR_FORCE` is set, unless `NO_COLOR` is.
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
    /// Modules whose warnings the tool says in its own words: they are shown where it logs at debug. Default: none.
    pub retold: &'static [&'static str],
}

impl LogOptions {
    /// The defaults for a tool.
    pub fn new(tool: &'static str) -> Self {
        let (format, output) = (LogFormat::default(), LogOutput::default());
        Self { tool, format, output, level: Level::ERROR, retold: &[] }
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

    /// Sets whose warnings the tool says in its own words.
    #[must_use]
    pub fn with_retold(mut self, retold: &'static [&'static str]) -> Self {
        self.retold = retold;
        self
    }
}

/// Starts logging for the whole process, once.
///
/// `RUST_LOG` is a comma list of `target=level`, `target` or `level`. The target named after the tool stands for
/// everything that works on the tool's behalf: `linkerd_tcp=info` shows the library's lines too. An empty one is as good as
/// none. What cannot be understood in it is said on stderr and left out; if nothing else there is about the tool, what
/// the tool logs is as if it were unset.
pub fn start(options: &LogOptions) {
    let chosen = Chosen::from_variable(options);
    for problem in &chosen.problems {
        // Not a line of the log: what is wrong may be what would show it.
        eprintln!("{problem}");
    }
    let (writer, terminal) = match options.output {
        LogOutput::Stderr => (BoxMakeWriter::new(|| OneLine(io::stderr())), io::stderr().is_terminal()),
        LogOutput::Stdout => (BoxMakeWriter::new(|| OneLine(io::stdout())), io::stdout().is_terminal()),
    };
    let builder = fmt().with_env_filter(chosen.filter).with_writer(writer);
    let (started, set): (_, Box<Set>) = match options.format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_ansi(false).with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
        LogFormat::Text => {
            let builder =
                builder.with_ansi(has_colour(terminal, |name| env::var_os(name))).with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
    };
    // A process that logs already keeps its way of doing so.
    if started.is_ok() {
        let filter = Mutex::new(chosen.spec);
        let _ = CURRENT.set(Current { options: options.clone(), filter, set });
    }
}

/// What the usual variables say about colour (no-color.org, bixense.com/clicolors). Set to nothing they say nothing.
fn has_colour(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_set = |name| variable(name).filter(|value| !value.is_empty());
    let forced = is_set("CLICOLOR_FORCE").is_some_and(|value| value != "0");
    is_set("NO_COLOR").is_none() && (is_terminal || forced)
}

/// Keeps what is said at once in one line, whatever its fields have in them: the next line is about something else, and the
/// service manager's journal has an entry for each.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, said: &[u8]) -> io::Result<usize> {
        let line = said.strip_suffix(b"\n").unwrap_or(said);
        if line.contains(&b'\n') {
            let line = in_one_line(&String::from_utf8_lossy(line));
            self.0.write_all(format!("{line}\n").as_bytes())?;
        } else {
            self.0.write_all(said)?;
        }
        Ok(said.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Puts another filter in the place of the one in force; false if nothing is logged any more.
type Set = dyn Fn(EnvFilter) -> bool + Send + Sync;

/// How this process logs.
struct Current {
    options: LogOptions,
    /// As it was given.
    filter: Mutex<String>,
    set: Box<Set>,
}

static CURRENT: OnceLock<Current> = OnceLock::new();

/// What is logged, as it was asked for; nothing if this process does not log.
pub fn filter() -> Option<String> {
    let current = CURRENT.get()?;
    Some(current.filter.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Changes what is logged from now on, in the words of `RUST_LOG`. An empty text is what was logged from the start.
///
/// # Errors
///
/// What cannot be understood, or that nothing can be changed; all stays as it was then.
pub fn set_filter(spec: &str) -> Result<(), String> {
    let current = CURRENT.get().ok_or("this process does not log")?;
    let is_start = spec.trim().is_empty();
    let chosen =
        if is_start { Chosen::from_variable(&current.options) } else { Chosen::new(spec, &current.options) };
    // What is wrong with the variable was said at the start.
    if !is_start && !chosen.problems.is_empty() {
        let texts = chosen.problems.iter().map(|text| text.strip_prefix("RUST_LOG: ").unwrap_or(text));
        let texts = texts.map(|text| text.replacen(" is ignored: ", " is not understood: ", 1));
        return Err(texts.collect::<Vec<_>>().join("\n") + "\nnothing is changed");
    }
    let mut filter = current.filter.lock().unwrap_or_else(PoisonError::into_inner);
    if !(current.set)(chosen.filter) {
        return Err("what is logged cannot be changed any more".into());
    }
    *filter = chosen.spec;
    Ok(())
}

/// What [`start`] would say about `RUST_LOG`, one line each; nothing if all of it is understood.
pub fn problems(options: &LogOptions) -> Vec<String> {
    Chosen::from_variable(options).problems
}

/// The target of what is said about the process itself, in all programs: its start, its signals, its end.
pub const PROCESS: &str = "process";

/// The crates that work on behalf of a tool.
const CRATES: [&str; 4] = ["meshlib", "meshlib_namerd", "meshlib_consul", "bins"];

/// Which lines are logged, and what about the choice could not be understood.
struct Chosen {
    filter: EnvFilter,
    /// In the words of `RUST_LOG`.
    spec: String,
    problems: Vec<String>,
}

impl Chosen {
    fn from_variable(options: &LogOptions) -> Self {
        let spec = env::var_os("RUST_LOG").map(|spec| spec.to_string_lossy().into_owned());
        Self::new(spec.as_deref().unwrap_or_default(), options)
    }

    fn new(spec: &str, options: &LogOptions) -> Self {
        let tool = options.tool;
        let floor = EnvFilter::default().add_directive(LevelFilter::ERROR.into());
        let mut chosen = Self { filter: floor, spec: spec.trim().to_owned(), problems: Vec::new() };
        let usual = format!("{tool}={}", options.level.as_str().to_ascii_lowercase());
        if spec.trim().is_empty() {
            chosen.add(&usual, options);
            chosen.spec = usual;
            return chosen;
        }
        let (directives, regex) = match spec.split_once('/') {
            Some((directives, regex)) => (directives, Some(regex)),
            None => (spec, None),
        };
        let mut is_about_tool = false;
        for directive in directives.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            if chosen.add(directive, options) {
                is_about_tool |= is_of(tool, directive) || directive.parse::<LevelFilter>().is_ok();
            } else {
                chosen.problems.push(format!(
                    "RUST_LOG: {directive:?} is ignored: target=level, target or level is wanted, with a level of error, \
                     warn, info, debug, trace or off"
                ));
            }
        }
        if !chosen.problems.is_empty() && !is_about_tool {
            chosen.add(&usual, options);
        }
        if let Some(regex) = regex {
            chosen.problems.push(format!("RUST_LOG: the part behind `/` is ignored: {regex:?}"));
        }
        chosen
    }

    /// Adds what a directive says, unless it says nothing.
    fn add(&mut self, directive: &str, options: &LogOptions) -> bool {
        let tool = options.tool;
        let (target, level) = directive.split_once('=').unwrap_or((directive, "trace"));
        let texts: Vec<_> = if is_of(tool, directive) {
            // A part of the tool is not the process, but for the one that the original ran it with.
            let process = [tool, &format!("{tool}::app")].contains(&target).then_some(PROCESS);
            let named = [target].into_iter().chain(CRATES).chain(process);
            let named = named.map(|name| format!("{name}={level}"));
            let is_terse = level.parse::<LevelFilter>().is_ok_and(|level| level < LevelFilter::DEBUG);
            let retold = options.retold.iter().filter(|_| is_terse && !level.eq_ignore_ascii_case("off"));
            named.chain(retold.map(|name| format!("{name}=error"))).collect()
        } else {
            // A bare level or target is taken as it is; EnvFilter knows both.
            vec![directive.to_owned()]
        };
        let Ok(parsed) = texts.iter().map(|text| text.parse()).collect::<Result<Vec<Directive>, _>>() else {
            return false;
        };
        self.filter = parsed.into_iter().fold(std::mem::take(&mut self.filter), EnvFilter::add_directive);
        true
    }
}

/// Whether a directive is about the target named after the tool.
fn is_of(tool: &str, directive: &str) -> bool {
    let target = directive.split_once('=').map_or(directive, |(target, _)| target);
    target.strip_prefix(tool).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// An error with what is behind it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(spec: &str, tool: &'static str, level: Level) -> (String, Vec<String>) {
        let chosen = Chosen::new(spec, &LogOptions::new(tool).with_level(level));
        (chosen.filter.to_string(), chosen.problems)
    }

    #[test]
    fn what_is_said_at_once_is_one_line() {
        let mut written = OneLine(Vec::new());
        for said in ["INFO a: b\n", "WARN a: c error=f:1:2: k: no\n  | x\n  | ^\nf:3:4: n\r\n\n", "no end"] {
            assert_eq!(written.write(said.as_bytes()).unwrap(), said.len());
        }
        assert_eq!(
            String::from_utf8(written.0).unwrap(),
            "INFO a: b\nWARN a: c error=f:1:2: k: no; f:3:4: n\nno end"
        );
    }

    #[test]
    fn colour_is_as_the_usual_variables_say() {
        let has = |terminal, set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into());
            has_colour(terminal, value)
        };
        assert!(has(true, &[]) && !has(false, &[]));
        assert!(!has(true, &[("NO_COLOR", "1")]) && has(true, &[("NO_COLOR", "")]));
        assert!(has(false, &[("CLICOLOR_FORCE", "1")]) && !has(false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!has(true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    }

    #[test]
    fn the_tool_stands_for_the_crates_that_work_for_it() {
        let (filter, problems) = chosen("linkerd_tcp=info,hyper=warn", "linkerd_tcp", Level::ERROR);

        for part in
            ["meshlib=info", "meshlib_namerd=info", "linkerd_tcp=info", "process=info", "hyper=warn", "error"]
        {
            assert!(filter.contains(part), "{filter} lacks {part}");
        }
        assert!(chosen("linkerd_tcp::app=info", "linkerd_tcp", Level::ERROR).0.contains("process=info"));
        assert!(!chosen("linkerd_tcp::admin=info", "linkerd_tcp", Level::ERROR).0.contains("process"));
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn what_a_tool_says_in_its_own_words_is_shown_where_it_logs_at_debug() {
        let options = LogOptions::new("tricot").with_level(Level::INFO).with_retold(&["meshlib_consul::x"]);

        for spec in ["", "tricot=info", "tricot=warn,hyper=debug"] {
            let filter = Chosen::new(spec, &options).filter.to_string();
            assert!(filter.contains("meshlib_consul::x=error"), "{spec}: {filter}");
        }
        for spec in ["tricot=debug", "tricot", "tricot=off", "info"] {
            let filter = Chosen::new(spec, &options).filter.to_string();
            assert!(!filter.contains("meshlib_consul::x"), "{spec}: {filter}");
        }
    }

    #[test]
    fn a_bad_directive_is_named_once_and_the_others_hold() {
        let (filter, problems) = chosen("trace,linkerd_tcp=loud", "linkerd_tcp", Level::ERROR);

        assert_eq!(filter, "trace");
        assert_eq!(
            problems,
            [
                "RUST_LOG: \"linkerd_tcp=loud\" is ignored: target=level, target or level is wanted, with a level of \
              error, warn, info, debug, trace or off"
            ]
        );
    }

    #[test]
    fn without_a_good_directive_about_the_tool_the_usual_lines_are_logged() {
        for (spec, bad) in
            [("", 0), (" ", 0), ("tricot=inf", 1), ("tricot==x,,", 1), ("hyper=warn,tricot=5x,=", 2)]
        {
            let (filter, problems) = chosen(spec, "tricot", Level::INFO);

            assert!(filter.contains("tricot=info") && filter.contains("meshlib=info"), "{spec}: {filter}");
            assert_eq!(problems.len(), bad, "{spec}: {problems:?}");
        }
        for spec in ["tricot=warn,hyper=loud", "warn,hyper=loud", "hyper=debug"] {
            let (filter, _) = chosen(spec, "tricot", Level::INFO);

            assert!(!filter.contains("info"), "{spec}: {filter}");
        }
    }
}
