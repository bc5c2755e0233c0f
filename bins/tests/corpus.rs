//! Replays what the fuzzers have found worth keeping, without a fuzzer.
//!
//! The targets under `fuzz/` run the same functions on inputs of their own making.

#[path = "corpus/config_yaml.rs"]
mod config_yaml;
#[cfg(feature = "tricot")]
#[path = "corpus/tricot_tags.rs"]
mod tricot_tags;

use std::fs;
use std::path::Path;

#[test]
fn config_yaml_corpus_holds() {
    replay("config_yaml", config_yaml::check);
}

#[cfg(feature = "tricot")]
#[test]
fn tricot_tags_corpus_holds() {
    replay("tricot_tags", tricot_tags::check);
}

/// Runs `check` on every file in the target's corpus and among its finds.
fn replay(target: &str, check: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut replayed = 0;
    for kind in ["corpus", "artifacts"] {
        let Ok(files) = fs::read_dir(fuzz.join(kind).join(target)) else {
            continue;
        };
        for file in files {
            let file = file.expect("the directory can be listed").path();
            // Shown by the test harness only if the check fails.
            println!("{}", file.display());
            check(&fs::read(&file).expect("the file can be read"));
            replayed += 1;
        }
    }

    assert!(replayed > 0, "no seeds for {target}");
}
