use super::Config;
use super::parse;

mod examples;
mod fields;
mod language;
mod misconfigured;
mod print;
mod total;

/// Parses what must be right and free of warnings.
fn good(text: &str) -> Config {
    match parse(text, "f") {
        Ok((config, warnings)) if warnings.is_empty() => config,
        Ok((_, warnings)) => panic!("{}", warnings[0]),
        Err(error) => panic!("{error}"),
    }
}

/// Everything a configuration says except where it says so.
fn without_places(config: &Config) -> String {
    unplaced(&format!("{config:#?}"))
}

/// What is printed for developers, in lines, without the places in it.
fn unplaced(text: &str) -> String {
    let mut out = String::new();
    let mut skipped = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let place = line.trim_start().starts_with("place: ") || line.trim_start() == "Place {";
        if skipped.is_none() && place && line.ends_with(['{', '(']) {
            skipped = Some(indent);
        } else if skipped == Some(indent) {
            skipped = None;
        } else if skipped.is_none() {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
