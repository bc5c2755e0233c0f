#![no_main]

// The property lives with the library's tests, where a plain test replays the corpus.
#[path = "../../meshlib-namerd/tests/corpus/namerd_json.rs"]
mod namerd_json;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| namerd_json::check(bytes));
