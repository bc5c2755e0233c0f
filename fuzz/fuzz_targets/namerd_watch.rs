#![no_main]

// The property lives with the library's tests, where a plain test replays the corpus.
#[path = "../../meshlib-namerd/tests/corpus/namerd_watch.rs"]
mod namerd_watch;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| namerd_watch::check(bytes));
