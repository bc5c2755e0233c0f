use super::*;

fn tree(text: &str) -> Node {
    parse(&Source::new("f", text)).unwrap_or_else(|problem| panic!("{problem}"))
}

fn problem(text: &str) -> String {
    parse(&Source::new("f", text)).unwrap_err().to_string()
}

/// The value of a key at the top.
fn value(text: &str) -> Value {
    let Value::Map(mut entries) = tree(text).value else { panic!("no mapping") };
    entries.remove(0).1.value
}

#[test]
fn scalars_keep_their_kind() {
    for (text, expected) in [
        ("1", Value::Int(1)),
        ("-3", Value::Int(-3)),
        ("0x10", Value::Int(16)),
        ("18446744073709551615", Value::Int(u64::MAX.into())),
        ("1.5", Value::Float(1.5)),
        ("1e3", Value::Float(1000.0)),
        ("true", Value::Bool(true)),
        ("yes", Value::Str("yes".into())),
        ("on", Value::Str("on".into())),
        ("012", Value::Str("012".into())),
        ("1_000", Value::Str("1_000".into())),
        ("1:30", Value::Str("1:30".into())),
        ("'1'", Value::Str("1".into())),
        ("\"true\"", Value::Str("true".into())),
        ("~", Value::Null),
        ("", Value::Null),
        ("!!str 1", Value::Str("1".into())),
        ("127.0.0.1:80", Value::Str("127.0.0.1:80".into())),
    ] {
        assert_eq!(value(&format!("a: {text}")), expected, "{text}");
    }
    assert_eq!(value("a: .inf"), Value::Float(f64::INFINITY));
}

#[test]
fn everything_knows_its_place() {
    let root = tree("\n  \u{feff}{\"é\": [1,\n\t {\"b\": \"c\"}]}");

    assert_eq!(root.at, Some(Position::new(2, 4)));
    let Value::Map(entries) = &root.value else { panic!("no mapping") };
    let (key, list) = &entries[0];
    assert_eq!((key.at, list.at), (Some(Position::new(2, 5)), Some(Position::new(2, 10))));
    let Value::Seq(items) = &list.value else { panic!("no list") };
    assert_eq!(items[1].at, Some(Position::new(3, 3)));
    let Value::Map(entries) = &items[1].value else { panic!("no mapping") };
    assert_eq!(entries[0].1.at, Some(Position::new(3, 9)));
}

#[test]
fn the_target_of_an_alias_is_placed_where_it_is_written() {
    let Value::Map(entries) = tree("a: &x 1\nb: *x\nc: 2").value else { panic!("no mapping") };

    let places: Vec<_> = entries.iter().map(|(_, node)| node.at.unwrap()).collect();
    assert_eq!(places, [Position::new(1, 7), Position::new(1, 7), Position::new(3, 4)]);
}

#[test]
fn repeated_keys_are_kept_for_the_decoder_to_report() {
    let Value::Map(entries) = tree("a: 1\na: 2").value else { panic!("no mapping") };

    assert_eq!(entries.len(), 2);
}

#[test]
fn keys_are_taken_as_they_print() {
    let Value::Map(entries) = tree("{1: a, true: b, null: c, 'd e': f}").value else { panic!("no mapping") };

    let names: Vec<_> = entries.iter().map(|(key, _)| key.name.as_str()).collect();
    assert_eq!(names, ["1", "true", "null", "d e"]);
    assert!(problem("? [a]\n: b").contains("a list or a mapping cannot be a key"));
}

#[test]
fn json_that_yaml_does_not_know_is_json() {
    // A DEL character may stand in a JSON string and nowhere in YAML.
    let text = "{\"a\": {\"b\": [\"\u{7f}\", 1, null, true]}}";
    assert!(yaml(text).is_err());

    let Value::Map(entries) = value(text) else { panic!("no mapping") };
    let Value::Seq(items) = &entries[0].1.value else { panic!("no list") };
    assert_eq!(items[0], Node { value: Value::Str("\u{7f}".into()), at: None });
    assert_eq!(items[1].value, Value::Int(1));
    assert_eq!(value("{\"a\": \"\\ud83d\\ude00\\/\"}"), Value::Str("😀/".into()));
}

#[test]
fn a_flow_mapping_is_yaml() {
    assert_eq!(value("{a: b, # not JSON\n c: d}"), Value::Str("b".into()));
}

#[test]
fn the_reader_that_got_further_explains_the_error() {
    assert_eq!(
        problem("\n{\"é\": 1,,}"),
        "f:2:9: invalid JSON: key must be a string\n  | {\"é\": 1,,}\n  |         ^"
    );
    assert!(problem("{a: [}").starts_with("f:1:5: invalid YAML: mismatched bracket"));
}

#[test]
fn nothing_is_not_a_configuration() {
    for text in ["", " \n\t", "# only a comment", "---", "null", "~", "---\n...\n"] {
        assert!(problem(text).contains("the configuration is empty; expected a mapping"), "{text:?}");
    }
}

#[test]
fn a_second_document_is_refused() {
    assert!(problem("a: 1\n---\nb: 2").starts_with("f:3:1: a second YAML document starts here"));
    assert!(parse(&Source::new("f", "---\na: 1\n...\n")).is_ok());
}
