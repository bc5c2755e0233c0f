//! What `meshctl` says of itself.

#[cfg(feature = "tui")]
use std::env;
#[cfg(feature = "tui")]
use std::fs;
use std::io::Write;
#[cfg(feature = "tui")]
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use crate::child::Running;
use crate::program;

fn printed(args: &[&str]) -> String {
    // Variables that are set for it have nothing to do with what it says of itself.
    let ended = Running::spawn(program::command(args).env("MESHCTL_ADMIN", "127.0.0.1:1")).ended();
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{args:?}");
    ended.stdout
}

#[test]
fn the_version_is_one_line_and_with_verbose_it_is_all_that_a_report_needs() {
    let line = format!("meshctl {}\n", env!("CARGO_PKG_VERSION"));

    assert_eq!((printed(&["--version"]), printed(&["-V"])), (line.clone(), line.clone()));
    let long = printed(&["--version", "--verbose"]);
    assert!(long.starts_with(&line) && long.contains("features") && long.contains("meshctl"), "{long}");
}

#[test]
fn help_teaches_by_examples() {
    let help = printed(&["--help"]);

    for part in
        ["MESHCTL_ADMIN", "127.0.0.1:9989", "Exit status", "meshctl stat", "meshctl ready", "NO_COLOR"]
    {
        assert!(help.contains(part), "{part}: {help}");
    }
    let top: &[&str] = if cfg!(feature = "tui") { &["top"] } else { &[] };
    for command in ["stat", "ready", "log-level"].iter().chain(top) {
        let help = printed(&[command, "--help"]);
        assert!(help.contains(&format!("Examples:\n  meshctl {command}")), "{help}");
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    }
    assert_eq!(help.contains("top"), cfg!(feature = "tui"), "{help}");
}

#[test]
fn completions_know_commands_and_options() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["--completions", shell]);
        for word in ["stat", "ready", "log-level", "admin", "timeout", "watch", "output"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn the_page_of_the_manual_is_in_the_section_for_commands_and_renders_without_a_warning() {
    let page = printed(&["--man"]);
    assert!(page.contains(".TH meshctl 1 "), "{page}");

    let groff = Command::new("groff")
        .args(["-man", "-Tascii", "-ww", "-Wbreak"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut groff) = groff else {
        eprintln!("skipped: no groff here");
        return;
    };
    groff.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = groff.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let text = text.lines().map(plain).collect::<Vec<_>>().join("\n");
    for part in ["--admin", "MESHCTL_ADMIN", "log-level", "EXAMPLES", "EXIT STATUS"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// What a terminal shows of it: bold letters are printed, stepped back over, and printed again.
fn plain(line: &str) -> String {
    let mut shown = String::new();
    for c in line.chars() {
        if c == '\u{8}' {
            shown.pop();
        } else {
            shown.push(c);
        }
    }
    shown
}

/// `UPDATE_DOCS=1` writes it anew. The page is that of a build with everything.
#[cfg(feature = "tui")]
#[test]
fn the_page_of_the_manual_in_the_documentation_is_that_of_the_program() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/man/meshctl.1");
    let page = printed(&["--man"]);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &page).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "{} is out of date: run this test with UPDATE_DOCS=1", file.display());
}
