//! Tells the programs what they are built from.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Where there is no repository, such as in an archive of the source, whoever builds may say what it is.
    println!("cargo::rerun-if-env-changed=MESHLIB_COMMIT");
    if let Some(head) = said("git", &["rev-parse", "--git-path", "HEAD"]) {
        println!("cargo::rerun-if-changed={head}");
    }
    if let Some(log) = said("git", &["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let commit =
        env::var("MESHLIB_COMMIT").ok().or_else(|| said("git", &["rev-parse", "--short=10", "HEAD"]));
    let rustc = said(&env::var("RUSTC").unwrap_or_default(), &["--version"]);
    let target = env::var("TARGET").ok();
    for (name, value) in [("COMMIT", commit), ("RUSTC", rustc), ("TARGET", target)] {
        println!("cargo::rustc-env=BUILT_{name}={}", value.as_deref().unwrap_or("unknown"));
    }
}

/// What a program prints, if it can be run and does well.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
