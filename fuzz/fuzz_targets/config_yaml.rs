#![no_main]

// The property lives with the tool's tests, where a plain test replays the corpus.
#[path = "../../bins/tests/corpus/config_yaml.rs"]
mod config_yaml;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| config_yaml::check(bytes));
