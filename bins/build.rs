//! Tells the programs what they are built from.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Where there is no repository, such as in an archive of the source, whoever builds may say what it is.
    println!("cargo::rerun-if-env-changed=MESHLIB_COMMIT");
    let commit = env::var("MESHLIB_COMMIT").ok().filter(|commit| !commit.is_empty()).or_else(commit);
    let rustc = said(&env::var("RUSTC").unwrap_or_default(), &["--version"]);
    let target = env::var("TARGET").ok();
    for (name, value) in [("COMMIT", commit), ("RUSTC", rustc), ("TARGET", target)] {
        println!("cargo::rustc-env=BUILT_{name}={}", value.as_deref().unwrap_or("unknown"));
    }
}

/// The commit of a build that is to be shipped. Others are not told: each commit would have them built again.
fn commit() -> Option<String> {
    if env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return None;
    }
    // In an archive of the source the next repository above is somebody else's.
    said("git", &["ls-files", "--error-unmatch", "build.rs"])?;
    for changes in ["HEAD", "logs/HEAD"] {
        let path = said("git", &["rev-parse", "--git-path", changes]);
        // A file that is not there would count as one that has changed.
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    said("git", &["describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"])
}

/// What a program prints, if it can be run and does well.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
