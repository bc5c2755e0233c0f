#![no_main]

// The property lives with the library's tests, where a plain test replays the corpus.
#[path = "../../meshlib/tests/corpus/path.rs"]
mod path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| path::check(bytes));
