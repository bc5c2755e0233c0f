//! What is said about files that are wrong, to the letter.

use super::*;

/// Cases start with `=== name`; `--- messages` parts the file from what is said about it.
const CASES: &str = include_str!("../../../../tests/data/linkerd-tcp/misconfigured.txt");

#[test]
fn every_problem_is_told_with_its_place_and_what_is_allowed() {
    let cases: Vec<&str> = CASES.split("=== ").skip(1).collect();
    assert!(cases.len() > 30);
    for case in cases {
        let (name, case) = case.split_once('\n').unwrap();
        let (text, expected) = case.split_once("--- messages\n").unwrap();

        let error = parse(text, "f.yml").unwrap_err();
        assert_eq!(error.to_string(), expected.trim_end(), "{name}");
    }
}
