//! Variables that look like those of the program and are none.

use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::ContextKind;
use clap::error::ContextValue;

use super::Args;

/// One line for each variable that begins as those of the program do and is none of them, in order of their names.
pub(super) fn variables(names: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let command = Args::command();
    let is_known = |name: &str| {
        command.get_arguments().any(|arg| arg.get_env().is_some_and(|env| env.to_str() == Some(name)))
    };
    let mut unknown: Vec<_> = names
        .into_iter()
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with(PREFIX) && !is_known(name))
        .collect();
    unknown.sort();
    let lines = unknown.into_iter().map(|name| match nearest(&name) {
        Some(nearest) => format!("{name} is no variable of tricot and has no effect; is {nearest} meant?"),
        None => format!("{name} is no variable of tricot and has no effect"),
    });
    lines.collect()
}

/// The variable whose argument would be proposed to somebody who gave the name as an argument.
fn nearest(name: &str) -> Option<String> {
    let long = name.strip_prefix(PREFIX)?.to_lowercase().replace('_', "-");
    let error = Args::command().try_get_matches_from(["tricot".to_owned(), format!("--{long}")]).err();
    let proposed = match error.as_ref().and_then(|error| error.get(ContextKind::SuggestedArg)) {
        Some(ContextValue::String(proposed)) => proposed.trim_start_matches('-').to_owned(),
        // It may be another name of an argument.
        _ => long,
    };
    let command = Args::command();
    let named = |arg: &&clap::Arg| {
        arg.get_long_and_visible_aliases().is_some_and(|names| names.contains(&&*proposed))
            || arg.get_all_aliases().is_some_and(|names| names.contains(&&*proposed))
    };
    Some(command.get_arguments().find(named)?.get_env()?.to_str()?.to_owned())
}

const PREFIX: &str = "TRICOT_";

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(names: &[&str]) -> Vec<String> {
        variables(names.iter().map(OsString::from))
    }

    #[test]
    fn a_misspelt_variable_is_named_with_the_nearest() {
        for (name, nearest) in [
            ("TRICOT_METRIC_BIND_ADDR", "TRICOT_METRICS_BIND_ADDR"),
            ("TRICOT_LETSENCRYPT_MAIL", "TRICOT_LETSENCRYPT_EMAIL"),
            ("TRICOT_CONSUL_ADDR", "TRICOT_CONSUL_HOST"),
            ("TRICOT_consul_host", "TRICOT_CONSUL_HOST"),
        ] {
            let expected = format!("{name} is no variable of tricot and has no effect; is {nearest} meant?");
            assert_eq!(lines(&[name]), [expected]);
        }
    }

    #[test]
    fn what_is_like_none_is_named_alone() {
        for name in
            ["TRICOT_", "TRICOT_CHECK", "TRICOT_HELP", "TRICOT_VERSION", "TRICOT_ZZZZZZZZ", "TRICOT_A B"]
        {
            assert_eq!(lines(&[name]), [format!("{name} is no variable of tricot and has no effect")]);
        }
    }

    #[test]
    fn known_variables_and_those_of_others_are_left_alone() {
        assert_eq!(lines(&["TRICOT_CONSUL_HOST", "TRICOT_LOG_FORMAT", "TRICOT", "CONSUL_ADDR", ""]), [""; 0]);
    }
}
