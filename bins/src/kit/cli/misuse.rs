//! Everything that is wrong with arguments, in one run.

use std::ffi::OsStr;
use std::ffi::OsString;

use clap::Arg;
use clap::ArgMatches;
use clap::Command;
use clap::error::ContextKind;
use clap::error::ContextValue;
use clap::error::ErrorKind;

use super::habits;

/// Stands between two mistakes in what is said.
pub const AND: &str = "\n\nerror: ";
/// More mistakes are not looked for: nobody reads them.
const MOST: usize = 50;

/// Reads arguments as clap does, which stops at the first that is wrong: what is wrong is then taken away and the rest read
/// again. What flags of other programs are called here is added, and `explain` may add more.
///
/// # Errors
///
/// One with all that was found, or that help or the version was asked for.
pub fn matches(
    command: &mut Command,
    args: impl IntoIterator<Item: Into<OsString> + Clone>,
    explain: impl Fn(clap::Error, &Command) -> clap::Error,
) -> Result<ArgMatches, clap::Error> {
    let mut args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    // Before it is read with, which sets in stone where its arguments are.
    let mut rest = command.clone();
    let first = match command.try_get_matches_from_mut(&args) {
        Ok(matches) => return Ok(matches),
        Err(error) => error,
    };
    let mut is_gone = take_away(&first, &mut rest, &mut args);
    let first = explain(habits::tip(first, command), command);
    let kind = first.kind();
    let mut texts = vec![text(&first)];
    while is_gone && texts.len() < MOST && first.use_stderr() {
        let Err(error) = rest.clone().try_get_matches_from(&args) else { break };
        if !error.use_stderr() {
            break;
        }
        is_gone = take_away(&error, &mut rest, &mut args);
        let found = text(&explain(habits::tip(error, command), command));
        // What was taken away may be missed elsewhere.
        if !texts.contains(&found) {
            texts.push(found);
        }
    }
    if texts.len() == 1 {
        return Err(first);
    }
    // As those of clap itself: one that was built from a text has no context.
    let kind = if kind == ErrorKind::UnknownArgument { kind } else { ErrorKind::ValueValidation };
    Err(command.error(kind, texts.join(AND)))
}

/// What an error says, without what all of them say.
fn text(error: &clap::Error) -> String {
    let shown = error.render().to_string();
    let shown = shown.strip_prefix("error: ").unwrap_or(&shown);
    let ends = ["\n\nUsage:", "\n\nFor more information"];
    let end = ends.iter().filter_map(|end| shown.find(end)).min().unwrap_or(shown.len());
    shown[..end].trim_end().to_owned()
}

/// Takes what an error is about out of arguments and variables. False if it is about nothing that could be.
fn take_away(error: &clap::Error, command: &mut Command, args: &mut Vec<OsString>) -> bool {
    let shown = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(shown)) => vec![shown.clone()],
        // What is missing.
        Some(ContextValue::Strings(shown)) => shown.clone(),
        _ => return false,
    };
    let mut is_gone = false;
    for shown in shown {
        let name = shown.split([' ', '=', '[', '<']).next().unwrap_or_default().to_owned();
        let known =
            command.get_arguments().find(|arg| names(arg).any(|it| format!("--{it}") == name)).cloned();
        let Some(arg) = known else {
            // One that nobody knows; what may be its value goes with it.
            let has_positionals = command.get_positionals().next().is_some();
            is_gone |= remove(args, &[&name], !has_positionals);
            continue;
        };
        let written: Vec<String> = names(&arg).map(|it| format!("--{it}")).collect();
        let written: Vec<&str> = written.iter().map(String::as_str).collect();
        is_gone |= remove(args, &written, arg.get_action().takes_values());
        let id = arg.get_id().clone();
        is_gone |= arg.get_env().is_some() || arg.is_required_set();
        *command = command.clone().mut_arg(id, |arg| arg.env(None::<&'static str>).required(false));
    }
    is_gone
}

fn names(arg: &Arg) -> impl Iterator<Item = String> + use<'_> {
    let aliases = arg.get_all_aliases().unwrap_or_default();
    arg.get_long().into_iter().chain(aliases).map(str::to_owned)
}

/// Removes arguments of these names, and with them a value behind them if they may have one.
fn remove(args: &mut Vec<OsString>, names: &[&str], has_value: bool) -> bool {
    let before = args.len();
    let mut kept = Vec::new();
    let mut all = std::mem::take(args).into_iter().peekable();
    kept.extend(all.next());
    while let Some(arg) = all.next() {
        let text = arg.to_string_lossy();
        let is_it = |name: &&str| {
            text == **name || text.strip_prefix(*name).is_some_and(|rest| rest.starts_with('='))
        };
        if !names.iter().any(is_it) {
            kept.push(arg);
        } else if has_value && names.iter().any(|name| text == **name) {
            all.next_if(|next| !OsStr::new(next).to_string_lossy().starts_with("--"));
        }
    }
    *args = kept;
    args.len() < before
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Args {
        #[arg(long, value_name = "N")]
        number: Option<u8>,
        #[arg(long, alias = "also", value_name = "N")]
        other: Vec<u16>,
        #[arg(long, required = true)]
        needed: Option<String>,
        #[arg(long)]
        flag: bool,
    }

    fn said(args: &[&str]) -> String {
        let args = ["program"].into_iter().chain(args.iter().copied());
        matches(&mut Args::command(), args, |error, _| error).unwrap_err().to_string()
    }

    #[test]
    fn all_that_is_wrong_is_said() {
        let said = said(&[
            "--number",
            "x",
            "--numbr",
            "7",
            "--also=y",
            "--flag=1",
            "--other",
            "1",
            "--wrong=z",
            "--flag",
        ]);

        for part in ["'x' for '--number <N>'", "'--numbr'", "'y' for '--other <N>'", "'--wrong'", "--needed"]
        {
            assert!(said.contains(part), "{part} is not in {said}");
        }
        assert_eq!(said.matches("error: ").count(), said.matches("\nerror: ").count() + 1, "{said}");
        assert_eq!(said.matches("--help").count(), 1, "{said}");
        assert!(!said.contains("'7'"), "a value of what nobody knows is not another mistake: {said}");
    }

    #[test]
    fn one_mistake_is_said_as_ever() {
        let args = ["program", "--needed", "a", "--number", "x"];
        let expected = Args::command().try_get_matches_from(args).unwrap_err().to_string();

        assert_eq!(said(&args[1..]), expected);
    }

    #[test]
    fn help_is_no_mistake() {
        assert!(said(&["--help"]).contains("Usage:"));
        assert!(said(&["--help", "--number", "x"]).contains("Usage:"));
    }

    #[test]
    fn what_is_right_is_read() {
        let read = matches(&mut Args::command(), ["program", "--needed", "a", "--flag"], |error, _| error);

        assert!(read.unwrap().get_flag("flag"));
    }

    proptest::proptest! {
        #[test]
        fn it_ends(args in proptest::collection::vec("(--(number|other|also|needed|flag|x|help)(=[a-z1]{0,2})?|[a-z1-]{0,3})", 0..12)) {
            let _ = matches(&mut Args::command(), ["program".to_owned()].into_iter().chain(args), |error, _| error);
        }
    }
}
