//! The pages and the files that `tricot` comes with: what they name must be there.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const FILES: [&str; 8] = [
    "docs/tricot.md",
    "README.md",
    "bins/packaging/tricot/Dockerfile",
    "bins/packaging/tricot/tricot.service",
    "bins/packaging/tricot/tricot-http.socket",
    "bins/packaging/tricot/tricot-https.socket",
    "bins/packaging/tricot/tricot.nomad.hcl",
    "bins/packaging/tricot/try",
];

fn project() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), ".."].iter().collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(project().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The words of a text that begin with `prefix` and go on with characters that pass.
fn words(text: &str, prefix: &str, passes: impl Fn(char) -> bool) -> BTreeSet<String> {
    let found = text.match_indices(prefix).map(|(at, _)| {
        let word: String = text[at..].chars().take_while(|c| passes(*c)).collect();
        word
    });
    found.collect()
}

#[test]
fn every_variable_that_is_named_is_one() {
    let output = Command::new(env!("CARGO_BIN_EXE_tricot")).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let is_of_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let known = words(&help, "TRICOT_", is_of_name);
    assert!(known.len() >= 40, "{known:?}");

    for file in FILES {
        for named in words(&read(file), "TRICOT_", is_of_name) {
            assert!(known.contains(&named), "{file} names {named}");
        }
    }
}

#[test]
fn every_metric_that_is_named_is_in_the_source() {
    let folder = project().join("bins/src/tricot");
    let sources =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let source: String = sources.map(|path| fs::read_to_string(path).unwrap()).collect();
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';

    for named in words(&read("docs/tricot.md"), "tricot_", is_of_name) {
        assert!(source.contains(&format!("\"{named}\"")), "{named}");
    }
}

#[test]
fn the_service_gets_no_capability_but_the_one_it_needs() {
    let unit = read("bins/packaging/tricot/tricot.service");
    let of = |key: &str| {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };

    assert_eq!(of("CapabilityBoundingSet"), ["CAP_NET_BIND_SERVICE"]);
    assert_eq!(of("AmbientCapabilities"), ["CAP_NET_BIND_SERVICE"]);
    assert_eq!(of("Type"), ["notify"]);
    for name in ["http", "https"] {
        let socket = read(&format!("bins/packaging/tricot/tricot-{name}.socket"));
        assert!(socket.contains(&format!("FileDescriptorName={name}\n")), "{name}");
    }
}
