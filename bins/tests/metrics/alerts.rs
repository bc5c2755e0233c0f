//! `prometheus/alerts.yml`: alerts that can fire, each with what a person needs who is woken by it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::optional::is_there;
use crate::promql::check;
use crate::reference::documented;

/// The page for bad nights, by which every alert is explained.
const PAGE: &str = "docs/bad-night.md#";
const ANCHORS: [&str; 13] = [
    "no-endpoint",
    "ejected-endpoint",
    "slow-endpoint",
    "success",
    "certificate",
    "reload",
    "restarts",
    "consul",
    "discovery",
    "orders",
    "descriptors",
    "loops",
    "rules",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus")
}

fn read(file: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(folder().join(file)).unwrap()).unwrap()
}

fn alerts() -> Vec<Value> {
    let file = read("alerts.yml");
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn text<'a>(alert: &'a Value, path: &str) -> &'a str {
    alert.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("no {path} in {alert}"))
}

#[test]
fn alerts_are_complete_and_name_what_exists() {
    let (known, mut names, mut anchors) = (documented(), BTreeSet::new(), BTreeSet::new());
    for alert in &alerts() {
        let name = text(alert, "/alert");
        assert!(names.insert(name.to_owned()), "{name} twice");
        let labels =
            check(text(alert, "/expr"), &known).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        assert!(["critical", "warning"].contains(&text(alert, "/labels/severity")), "{name}");
        let (summary, description) =
            (text(alert, "/annotations/summary"), text(alert, "/annotations/description"));
        assert!(summary.len() < 120 && !summary.contains('\n'), "{name}: {summary}");
        let (_, anchor) = description.split_once(PAGE).unwrap_or_else(|| panic!("{name} leads nowhere"));
        let ends = anchor.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(anchor.len());
        anchors.insert(anchor[..ends].to_owned());
        for used in [summary, description].iter().flat_map(|text| text.split("$labels.").skip(1)) {
            let ends = used.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(used.len());
            assert!(labels.contains(&used[..ends]), "{name} has no label {}", &used[..ends]);
        }
    }
    assert_eq!(anchors, ANCHORS.map(str::to_owned).into());
}

#[test]
fn every_alert_is_seen_to_fire_in_the_tests_of_rules() {
    let tests = read("alerts-test.yml");
    let steps = tests["tests"].as_array().unwrap().iter();
    let steps = steps.flat_map(|test| test["promql_expr_test"].as_array().unwrap());
    let samples = steps.filter_map(|step| step["exp_samples"].as_array()).flatten();
    let name =
        |sample| text(sample, "/labels").split_once("alertname=\"").unwrap().1.split('"').next().unwrap();
    let fired: BTreeSet<&str> = samples.map(name).collect();

    let alerts = alerts();
    let missing: Vec<_> =
        alerts.iter().map(|alert| text(alert, "/alert")).filter(|name| !fired.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn promtool_has_nothing_against_them() {
    if !is_there("promtool") {
        return;
    }
    for args in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts-test.yml"]] {
        let output = Command::new("promtool").args(args).current_dir(folder()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
}
