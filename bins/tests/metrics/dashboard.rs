//! `grafana/meshlib.json`: what Grafana needs to load it, and nothing that would stay empty.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::promql::check;
use crate::reference::documented;

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/grafana/meshlib.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// What refers to the variable for the data source.
fn is_from_variable(value: &Value) -> bool {
    value["datasource"]["type"] == "prometheus" && value["datasource"]["uid"] == "${datasource}"
}

/// The names of variables in an expression.
fn variables(expr: &str) -> impl Iterator<Item = &str> {
    expr.split('$').skip(1).map(|rest| {
        let ends = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..ends]
    })
}

#[test]
fn grafana_can_load_it() {
    let dashboard = dashboard();

    assert_eq!((text(&dashboard, "uid"), text(&dashboard, "title")), ("meshlib", "meshlib"));
    // Grafana gives the dashboard an id of its own.
    assert!(dashboard["id"].is_null() && dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    let names: Vec<_> = list(&dashboard["templating"], "list").iter().map(|it| text(it, "name")).collect();
    assert_eq!(names, ["datasource", "tool", "instance", "router"]);
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "panels") {
        let title = text(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{title} is wider than the page");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} overlaps another panel");
        }
        if text(panel, "type") == "row" {
            assert_eq!((w, panel["collapsed"].as_bool(), list(panel, "panels").len()), (24, Some(false), 0));
            continue;
        }
        assert!(is_from_variable(panel) && text(panel, "description").ends_with('.'), "{title}");
        let mut refs = BTreeSet::new();
        for target in list(panel, "targets") {
            assert!(is_from_variable(target) && refs.insert(text(target, "refId")), "{title}");
        }
        assert!(!refs.is_empty() && panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
    }
}

#[test]
fn every_part_has_its_row() {
    let dashboard = dashboard();
    let rows = list(&dashboard, "panels").iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<_> = rows.map(|row| text(row, "title")).collect();

    let expected = [
        "Overview",
        "Endpoints",
        "Latency",
        "Connections",
        "Certificates",
        "Process",
        "Reload",
        "tricot",
        "tproxy-poc",
    ];
    assert_eq!(rows, expected);
}

#[test]
fn expressions_name_what_exists() {
    let (dashboard, known) = (dashboard(), documented());
    let given = ["datasource", "tool", "instance", "router", "__rate_interval"];
    let queries = list(&dashboard["templating"], "list").iter().filter(|it| it["type"] == "query");
    for variable in queries {
        let name = text(variable, "name");
        assert!(is_from_variable(variable), "{name}");
        let query = text(&variable["query"], "query");
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (expr, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("values of a label");
        let labels = check(expr, &known).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        assert!(labels.contains(label), "{name}: {label}");
        assert!(variables(expr).all(|used| given.contains(&used)), "{name}: {expr}");
    }
    for panel in list(&dashboard, "panels").iter().filter(|panel| panel["type"] != "row") {
        let title = text(panel, "title");
        for target in list(panel, "targets") {
            let expr = text(target, "expr");
            let labels = check(expr, &known).unwrap_or_else(|problem| panic!("{title}: {problem}"));
            assert!(expr.contains("instance=~\"$instance\""), "{title} shows other programs as well: {expr}");
            assert!(variables(expr).all(|used| given.contains(&used)), "{title}: {expr}");
            for legend in text(target, "legendFormat").split("{{").skip(1) {
                let label = legend.split("}}").next().unwrap();
                assert!(labels.contains(label), "{title}: no label {label} in {expr}");
            }
        }
    }
}
