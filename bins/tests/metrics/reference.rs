//! The tables of `docs/metrics.md`, which are made of what the programs print.
//!
//! What is between a line `<!-- made of: WHAT -->` and the next `<!-- end -->` is theirs, all else is written by hand.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;

use crate::exposition::Family;
use crate::exposition::Kind;
use crate::programs::Run;
use crate::programs::runs;

/// Labels whose values are few and the same everywhere, so that all of them are listed.
const FIXED: [&str; 8] = ["cause", "direction", "kind", "listener", "result", "stat", "state", "tls"];
/// Of these, ones that have more values than a run can show.
const OPEN: [(&str, &str); 2] =
    [("tricot_acme_orders_total", "result"), ("tricot_backend_errors_total", "kind")];

/// What is documented about a family.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) kind: String,
    /// The labels, with their values where these are listed.
    pub(crate) labels: BTreeMap<String, BTreeSet<String>>,
}

fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../docs/metrics.md"].iter().collect()
}

/// All families that the page knows. The tests below keep it true.
pub(crate) fn documented() -> BTreeMap<String, Entry> {
    let page = fs::read_to_string(path()).unwrap();
    let mut entries = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, _] = cells[..] else { continue };
        let mut entry = Entry { kind: kind.to_owned(), labels: BTreeMap::new() };
        for label in labels.split("; ").filter(|label| !label.is_empty()) {
            let mut words = label.split('`').skip(1).step_by(2).map(str::to_owned);
            let label = words.next().unwrap();
            entry.labels.insert(label, words.collect());
        }
        entries.insert(name.trim_matches('`').to_owned(), entry);
    }
    entries
}

/// The families of a run, but for those that come with a histogram of which the page speaks once for all.
fn families(run: &Run) -> BTreeMap<&str, &Family> {
    let all: BTreeMap<&str, &Family> =
        run.last.text.iter().map(|family| (family.name.as_str(), family)).collect();
    let is_extreme = |name: &str| {
        let of = name.strip_suffix("_min").or_else(|| name.strip_suffix("_max"));
        of.and_then(|of| all.get(of)).is_some_and(|of| of.kind == Kind::Histogram)
    };
    all.iter().filter(|(name, _)| !is_extreme(name)).map(|(name, family)| (*name, *family)).collect()
}

fn row(family: &Family) -> String {
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (key, value) in family.samples.iter().flat_map(|sample| &sample.labels).filter(|(key, _)| key != "le")
    {
        labels.entry(key).or_default().insert(value);
    }
    let label = |(key, values): (&&str, &BTreeSet<&str>)| {
        if !FIXED.contains(key) || OPEN.contains(&(&family.name, key)) {
            return format!("`{key}`");
        }
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        format!("`{key}`: {}", values.join(", "))
    };
    let labels: Vec<String> = labels.iter().map(label).collect();
    let help = family.help.replace('|', "\\|");
    format!("| `{}` | {} | {} | {help} |\n", family.name, family.kind.word(), labels.join("; "))
}

/// The tables by what they are made of. A family that several programs have is in the table of those alone.
fn tables(runs: &[Run]) -> BTreeMap<&'static str, String> {
    let each: Vec<_> = runs.iter().map(families).collect();
    let mut tables = BTreeMap::new();
    for (run, of_run) in runs.iter().zip(&each) {
        for (name, family) in of_run {
            let has = |at: usize| each[at].contains_key(name);
            let table = match (0..each.len()).filter(|at| has(*at)).count() {
                1 => run.name,
                n if n == each.len() => "every program",
                2 if has(0) && has(1) => "linkerd-tcp",
                _ => panic!("{name} is the same in programs that have little in common"),
            };
            let row = row(family);
            let table: &mut BTreeSet<String> = tables.entry(table).or_default();
            assert!(
                !table.iter().any(|other| other.split(" | ").next() == row.split(" | ").next())
                    || table.contains(&row),
                "{name} has two meanings: {row}"
            );
            table.insert(row);
        }
    }
    let text = |rows: BTreeSet<String>| {
        format!(
            "| Metric | Type | Labels | Is |\n|---|---|---|---|\n{}",
            rows.into_iter().collect::<String>()
        )
    };
    tables.into_iter().map(|(table, rows)| (table, text(rows))).collect()
}

/// `UPDATE_DOCS=1` writes the tables anew.
#[test]
fn the_reference_lists_what_the_programs_have() {
    let missing: Vec<_> = runs().iter().filter(|run| !run.is_whole).map(|run| run.name).collect();
    let page = fs::read_to_string(path()).unwrap();
    let mut tables = tables(runs());
    let mut made = String::new();
    let mut rest = page.as_str();
    while let Some((before, after)) = rest.split_once("<!-- made of: ") {
        let (what, after) = after.split_once(" -->\n").expect("the comment ends");
        let (old, after) = after.split_once("<!-- end -->\n").expect("the table ends");
        let table = tables.remove(what).unwrap_or_else(|| panic!("nothing is made of {what}"));
        // What its servers are needed for cannot be seen without them.
        let table = if missing.contains(&what) { lacking(old, &table) } else { table };
        made += &format!("{before}<!-- made of: {what} -->\n{table}<!-- end -->\n");
        rest = after;
    }
    made += rest;
    assert!(tables.is_empty(), "{} has no place for {:?}", path().display(), tables.keys());

    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path(), &made).unwrap();
    }
    let page = fs::read_to_string(path()).unwrap();
    let differs: Vec<_> = made.lines().filter(|line| !page.lines().any(|other| other == *line)).collect();
    assert!(
        made == page,
        "{} is out of date: run this test with UPDATE_DOCS=1; {differs:#?}",
        path().display()
    );
}

/// The old table, if it has all that was found. Values that labels have need not have shown.
fn lacking(old: &str, found: &str) -> String {
    let names = |table: &str| -> BTreeSet<String> {
        table.lines().filter_map(|line| line.split(" | ").next()).map(str::to_owned).collect()
    };
    if names(found).is_subset(&names(old)) { old.to_owned() } else { format!("{old}{found}") }
}

#[test]
fn what_is_documented_can_be_read_again() {
    let documented = documented();
    for run in runs() {
        for (name, family) in families(run) {
            let entry = documented.get(name).unwrap_or_else(|| panic!("{name} is not documented"));
            assert_eq!(entry.kind, family.kind.word(), "{name}");
            for (key, _) in
                family.samples.iter().flat_map(|sample| &sample.labels).filter(|(key, _)| key != "le")
            {
                assert!(entry.labels.contains_key(key), "{name} has an undocumented label {key}");
            }
        }
    }
}
