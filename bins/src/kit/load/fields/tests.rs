use super::super::tree;
use super::scalars::LONGEST;
use super::*;
use crate::kit::load::language::Field;
use crate::kit::load::language::Takes;

const fn field(name: &'static str) -> Field {
    Field::new(name, Takes::Text("a text"), "")
}

const A: Table = Table::new("a", "", &[&[field("a")]]);
const A_AND_B: Table = Table::new("a and b", "", &[&[field("a")], &[field("b")]]);
const CERTS: Table = Table::new("certs", "", &[&[field("certs").also(&["certPaths"])]]);

/// Walks a text with a decoder and gives what it read, or what is wrong.
fn walk<T>(text: &str, decode: impl FnOnce(&mut Reader<'_>, &Item<'_>) -> Option<T>) -> Result<T, String> {
    let source = Source::new("f", text);
    let root = tree::parse(&source).unwrap();
    let mut reader = Reader::new(&source);
    let decoded = decode(&mut reader, &Item::root(&root));
    reader.finish(decoded).map(|(value, _)| value).map_err(|error| error.to_string())
}

#[test]
fn a_field_is_found_under_each_of_its_names() {
    for text in ["certs: 1", "certPaths: 1"] {
        let read = walk(text, |reader, item| {
            let fields = reader.fields(item, &CERTS)?;
            assert!(fields.has("certs"));
            reader.integer(fields.get("certs")?, 0..=1)
        });
        assert_eq!(read, Ok(1));
    }
}

#[test]
fn null_is_written_and_absent() {
    let read = walk("a: ~", |reader, item| {
        let fields = reader.fields(item, &A_AND_B)?;
        Some((fields.has("a"), fields.get("a").is_some(), fields.has("b")))
    });
    assert_eq!(read, Ok((true, false, false)));
}

#[test]
fn a_recorded_problem_spoils_the_result() {
    let read = walk("a: x", |reader, item| {
        let fields = reader.fields(item, &A)?;
        Some(reader.integer(fields.get("a")?, 0..=1).unwrap_or(7))
    });
    let expected = "f:1:4: a: found the string \"x\"; expected an integer from 0 to 1\n  | a: x\n  |    ^";
    assert_eq!(read, Err(expected.into()));
}

#[test]
fn a_decoder_that_gives_up_in_silence_is_an_error() {
    let read = walk("a: x", |_, _| None::<()>);
    assert_eq!(read, Err("f: is not a valid configuration".into()));
}

#[test]
fn strange_keys_are_quoted_in_paths() {
    let read = walk("'a b': 1\n'': 2", |reader, item| reader.fields(item, &A).map(drop));
    let error = read.unwrap_err();
    assert!(error.starts_with("f:1:1: [\"a b\"]: unknown field `a b`;"), "{error}");
    assert!(error.contains("f:2:1: [\"\"]: unknown field ``;"), "{error}");
}

#[test]
fn a_long_text_is_shortened() {
    let read = walk(&format!("a: {}", "x".repeat(500)), |reader, item| {
        let fields = reader.fields(item, &A)?;
        reader.boolean(fields.get("a")?)
    });
    let shown = format!("found the string \"{}...\"; expected true or false", "x".repeat(60));
    assert!(read.unwrap_err().contains(&shown));
}

#[test]
fn times_are_cut_to_what_a_clock_can_add() {
    let read = walk("a: 18446744073709551615", |reader, item| {
        let fields = reader.fields(item, &A)?;
        Some((reader.secs(fields.get("a")?, 1)?, reader.millis(fields.get("a")?, 1)?))
    });
    assert_eq!(read, Ok((LONGEST, LONGEST)));
}

#[test]
fn a_file_with_a_zero_byte_in_its_name_is_refused() {
    let read = walk("a: \"b\\0\"", |reader, item| {
        let fields = reader.fields(item, &A)?;
        reader.file(fields.get("a")?)
    });
    assert!(read.unwrap_err().contains("contains a zero byte"));
}
