//! The reference of a language, as a page of the documentation and as one of the manual.

use std::fmt::Write;

use super::Table;
use super::Takes;
use crate::kit::about;

/// The tables that files of a language lead to, the file first, in Markdown, with headings of this level. Those in `seen`
/// are left out, and the others added there.
pub fn reference(file: &'static Table, level: usize, seen: &mut Vec<&'static str>) -> String {
    let mut page = String::new();
    for table in unseen(file, seen) {
        // Memory is written to, here and below.
        let _ = write!(page, "{} {}\n\n{}\n\n", "#".repeat(level), heading(table.name), table.about);
        page.push_str("| Field | Takes | Default | Is |\n|---|---|---|---|\n");
        for field in table.fields() {
            let names: Vec<String> = field.names().map(|name| format!("`{name}`")).collect();
            let default = if field.is_required { "required" } else { field.default };
            let takes = takes(&field.takes, &link);
            let _ = writeln!(page, "| {} | {takes} | {default} | {} |", names.join(" or "), field.about);
        }
        page.push('\n');
    }
    page
}

/// The same as sections of a page of the manual, for troff.
pub fn manual(file: &'static Table, seen: &mut Vec<&'static str>) -> String {
    let mut page = String::new();
    for table in unseen(file, seen) {
        let _ = write!(
            page,
            ".SH {}\n{}\n",
            about::escaped(&table.name.to_uppercase()),
            about::escaped(table.about)
        );
        for field in table.fields() {
            let names: Vec<_> =
                field.names().map(|name| format!("\\fB{}\\fR", about::escaped(name))).collect();
            let takes = takes(&field.takes, &|table| table.name.to_uppercase());
            let _ = write!(page, ".TP\n{}\n", names.join(" or "));
            let _ = writeln!(page, "{}", about::escaped(&plain(field.about)));
            let default = match (field.is_required, field.default) {
                (true, _) => " Required.".to_owned(),
                (false, "") => String::new(),
                (false, default) => format!(" Default: {}.", plain(default)),
            };
            let _ = writeln!(page, "{}", about::escaped(&format!("Takes {}.{default}", plain(&takes))));
        }
    }
    page
}

fn unseen(file: &'static Table, seen: &mut Vec<&'static str>) -> Vec<&'static Table> {
    let tables = file.reachable().into_iter();
    let tables: Vec<_> = tables.filter(|table| !seen.contains(&table.name)).collect();
    seen.extend(tables.iter().map(|table| table.name));
    tables
}

/// Text without the marks of Markdown.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

fn heading(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn link(table: &Table) -> String {
    format!("[{}](#{})", table.name, table.name.replace(' ', "-"))
}

fn takes(what: &Takes, name: &impl Fn(&Table) -> String) -> String {
    let quoted = |choices: &[&str]| {
        let quoted: Vec<_> = choices.iter().map(|choice| format!("`{choice}`")).collect();
        quoted.join(" or ")
    };
    match what {
        Takes::Text(text) => (*text).to_owned(),
        Takes::File => "a path".to_owned(),
        Takes::Integer(least, u64::MAX) => format!("an integer from {least}"),
        Takes::Integer(least, most) => format!("an integer from {least} to {most}"),
        Takes::Number => "a number from 0".to_owned(),
        Takes::Flag => "`true` or `false`".to_owned(),
        Takes::Choice(choices) | Takes::Version(choices) => quoted(choices),
        Takes::Refused(_) => String::new(),
        Takes::One(table) => name(table),
        Takes::Either(tables) => tables.iter().map(|table| name(table)).collect::<Vec<_>>().join(" or "),
        Takes::Many(_, inner) => format!("a list, each {}", takes(inner, name)),
        Takes::Map(keys, inner) => format!("a mapping from {keys} to {}", takes(inner, name)),
    }
}
