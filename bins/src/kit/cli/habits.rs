//! Flags that other programs have, and what they are called here.

use clap::Command;
use clap::error::ContextKind;
use clap::error::ContextValue;
use clap::error::ErrorKind;

/// How others are told which file to read.
const FILE: [&str; 7] = ["-f", "-c", "-C", "--config", "--conf", "--config-file", "--configfile"];
/// How others are told to look at it only.
const CHECK: [&str; 7] =
    ["-t", "-T", "--test", "--validate", "--configtest", "--check-config", "--validate-only"];

/// Adds to the error of a flag that nobody knows here what was probably meant.
pub(super) fn tip(mut error: clap::Error, command: &Command) -> clap::Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let is_of = |flags: &[&str]| flags.contains(&flag.as_str());
    let has_check = command.get_arguments().any(|arg| arg.get_long() == Some("check"));
    let file = command.get_positionals().find_map(|arg| Some(arg.get_value_names()?.first()?.as_str()));
    let tip = match file {
        Some(file) if is_of(&FILE) => format!("{file} is given without a flag"),
        _ if has_check && is_of(&CHECK) => "a similar argument exists: '--check'".to_owned(),
        _ => return error,
    };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}

#[cfg(test)]
mod tests {
    use clap::Arg;
    use clap::ArgAction;

    use super::*;

    fn said(command: Command, args: &[&str]) -> String {
        let args = ["program"].into_iter().chain(args.iter().copied());
        let error = command.clone().try_get_matches_from(args).unwrap_err();
        tip(error, &command).to_string()
    }

    #[test]
    fn flags_of_others_are_translated() {
        let check = Arg::new("check").long("check").action(ArgAction::SetTrue);
        let reads = Command::new("program").arg(Arg::new("file").value_name("PATH")).arg(check);

        for flag in FILE {
            let said = said(reads.clone(), &[flag, "x.yml"]);
            assert!(
                said.contains("tip: PATH is given without a flag\n") && !said.contains("as a value"),
                "{said}"
            );
        }
        for flag in CHECK {
            let said = said(reads.clone(), &[flag, "x.yml"]);
            assert!(said.contains("tip: a similar argument exists: '--check'\n"), "{said}");
        }
        assert!(!said(reads, &["--quiet"]).contains("PATH is given"));
        assert!(!said(Command::new("program"), &["-f", "x.yml"]).contains("tip: "), "it reads no file");
    }
}
