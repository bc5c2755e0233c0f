//! References and schemas in the documentation are those of the programs. `UPDATE_DOCS=1` writes them anew.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use bins::kit::load::language::pretty;
use bins::linkerd_tcp::config;

#[track_caller]
fn is_up_to_date(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/{file} is out of date: run this test with UPDATE_DOCS=1");
}

#[test]
fn the_reference_of_the_configuration_is_that_of_the_program() {
    is_up_to_date("linkerd-tcp-config.md", &config::reference());
    is_up_to_date("man/linkerd-tcp.yml.5", &config::manual());
    is_up_to_date("schema/linkerd-tcp.json", &pretty(&config::schema()));
}

#[test]
fn every_link_of_the_reference_leads_to_a_heading() {
    let page = config::reference();
    let headings: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    assert!(headings.len() > 20, "{headings:?}");
    for (at, _) in page.match_indices("](#") {
        let name = page[at + 3..].split(')').next().unwrap();
        assert!(headings.iter().any(|heading| heading == name), "{name}");
    }
}

#[test]
fn the_page_of_the_manual_renders_without_a_warning() {
    let mut groff = Command::new("groff");
    groff.args(["-man", "-Tascii", "-ww", "-Wbreak"]);
    let groff = groff.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut groff = groff.expect("groff is there");
    let mut stdin = groff.stdin.take().unwrap();
    let page = config::manual();
    std::thread::spawn(move || stdin.write_all(page.as_bytes()));

    let output = groff.wait_with_output().unwrap();

    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8_lossy(&output.stdout);
    // Names are printed over each other for bold.
    assert!(text.contains("linkerd-tcp(8)") && text.len() > 10_000, "{text}");
}

/// `docs/pictures/chart` draws it anew.
#[test]
fn the_picture_of_the_comparison_shows_the_figures_that_were_measured() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures");
    // Where there is no Python nobody can draw it.
    let Ok(drawn) = Command::new("python3").arg(docs.join("chart")).arg("--print").output() else { return };

    assert!(drawn.status.success(), "{drawn:?}");
    let written = fs::read_to_string(docs.join("comparison.svg")).unwrap();
    assert!(String::from_utf8_lossy(&drawn.stdout) == written, "run docs/pictures/chart");
}
