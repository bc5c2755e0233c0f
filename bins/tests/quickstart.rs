//! README's first command: the quickstart runs, and all that it claims is true.

#![cfg(feature = "linkerd-tcp")]

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

/// The built example. Cargo gives tests no path to examples; it builds them beside the tests.
fn quickstart(args: &[&str]) -> Output {
    let test = env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let example: PathBuf = profile.join("examples").join(format!("quickstart{}", env::consts::EXE_SUFFIX));
    assert!(
        example.is_file(),
        "{} is not there: `cargo test -p bins` builds it, but with `--test` it takes \
         `cargo build -p bins --example quickstart`",
        example.display()
    );
    Command::new(&example).args(args).env_remove("RUST_LOG").output().expect("it can be started")
}

#[test]
fn all_that_it_claims_is_true() {
    let output = quickstart(&["--once"]);

    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    assert_eq!(stderr, "", "\n{stdout}");
    for claim in [
        "  ok  every share is within 5 points of the ideal",
        "  ok  not one error reached a client",
        "  ok  b was used again, ",
        "  ok  a new connection reached d ",
        "  ok  the connection to ",
        "  ok  all endpoints are ready",
    ] {
        assert!(stdout.lines().any(|line| line.starts_with(claim)), "no {claim:?} in\n{stdout}");
    }
    assert!(!stdout.contains('\x1b'), "colour although stdout is no terminal\n{stdout}");
    assert!(stdout.contains("l5d:srv:accepts{"), "no metrics in\n{stdout}");
}

#[test]
fn help_is_given_and_other_options_are_refused() {
    let help = quickstart(&["--help"]);
    let other = quickstart(&["--twice"]);

    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("Usage: quickstart [--once]"));
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&other.stderr).contains("\"--twice\" is no option"));
}
