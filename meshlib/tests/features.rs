//! What the crates' pages say about features is what their manifests say.
#![expect(clippy::unwrap_used, reason = "what helps a test fails like a test")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;

/// Every feature with what it turns on, as its manifest has them.
type Features = BTreeMap<String, Vec<String>>;

const CRATES: [&str; 3] = ["meshlib", "meshlib-consul", "meshlib-namerd"];

#[test]
fn every_feature_has_a_row_and_every_row_a_feature() {
    for name in CRATES {
        let (features, rows) = (features(name), rows(name));

        let rows: BTreeSet<_> = rows.keys().collect();
        let features: BTreeSet<_> = features.keys().filter(|feature| *feature != "default").collect();

        assert_eq!(rows, features, "{name}");
    }
}

#[test]
fn rows_say_which_features_are_default() {
    for name in CRATES {
        let default = &features(name)["default"];

        for (feature, row) in rows(name) {
            assert_eq!(row.default, default.contains(&feature), "{name}: {feature}");
        }
    }
}

/// A feature of a dependency (`rustls/ring`) adds no crate of ours.
#[test]
fn rows_say_what_features_draw_in() {
    for name in CRATES {
        let features = features(name);

        for (feature, row) in rows(name).into_iter().filter(|(feature, _)| feature != "full") {
            let drawn = features[&feature].iter().filter(|item| !item.contains('/'));
            let drawn: BTreeSet<_> = drawn.map(|item| item.trim_start_matches("dep:").to_owned()).collect();

            assert_eq!(row.draws_in, drawn, "{name}: {feature}");
        }
    }
}

#[test]
fn full_is_all_but_ring_and_test_util() {
    let features = features("meshlib");

    let full: BTreeSet<_> = features["full"].iter().collect();
    let others = ["default", "full", "ring", "test-util"];
    let rest: BTreeSet<_> = features.keys().filter(|name| !others.contains(&name.as_str())).collect();

    assert_eq!(full, rest);
}

/// What a page says of a feature.
struct Row {
    default: bool,
    /// What is in backquotes in the last column.
    draws_in: BTreeSet<String>,
}

fn rows(name: &str) -> BTreeMap<String, Row> {
    let page = read(name, "src/lib.rs");
    let table = page.split("| Feature | Default | Adds | Draws in |\n").nth(1).expect("there is a table");
    let lines = table.lines().skip(1).map_while(|line| line.strip_prefix("//! |"));
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let draws_in = quoted(cells[3]).map(str::to_owned).collect();
        (quoted(cells[0]).next().unwrap().to_owned(), Row { default: cells[1] == "yes", draws_in })
    };
    lines.map(row).collect()
}

fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Each feature is a line of its manifest.
fn features(name: &str) -> Features {
    let manifest = read(name, "Cargo.toml");
    let section = manifest.split("[features]\n").nth(1).expect("there are features");
    let lines =
        section.lines().take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once(" = "));
    lines
        .map(|(feature, items)| {
            (feature.to_owned(), items.split('"').skip(1).step_by(2).map(str::to_owned).collect())
        })
        .collect()
}

fn read(name: &str, file: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    fs::read_to_string(format!("{root}/../{name}/{file}")).unwrap()
}
