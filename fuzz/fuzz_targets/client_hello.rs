#![no_main]

// The property lives with the library's tests, where a plain test replays the corpus.
#[path = "../../meshlib/tests/corpus/client_hello.rs"]
mod client_hello;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| client_hello::check(bytes));
