#![no_main]

// The property lives with the tool's tests, where a plain test replays the corpus.
#[path = "../../bins/tests/corpus/tricot_tags.rs"]
mod tricot_tags;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tricot_tags::check(bytes));
