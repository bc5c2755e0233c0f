//! Values do not depend on the chunks in which their bytes come.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use bytes::Bytes;
use meshlib_namerd::watch::ValueError;
use meshlib_namerd::watch::Values;
use proptest::prelude::*;

type Items = Vec<Result<Bytes, ValueError>>;

/// Splits a stream that comes in these chunks.
fn split<'a>(mut values: Values, chunks: impl IntoIterator<Item = &'a [u8]>) -> Items {
    let mut items = Items::new();
    for chunk in chunks {
        values.push(chunk);
        items.extend(values.by_ref());
    }
    values.finish();
    items.extend(values);
    items
}

fn whole(stream: &[u8]) -> Items {
    split(Values::new(), [stream])
}

fn texts(items: &Items) -> Vec<&str> {
    let texts = items.iter().map(|item| std::str::from_utf8(item.as_ref().unwrap()).unwrap());
    texts.collect()
}

#[test]
fn values_need_no_blanks_between_them() {
    let stream = b" {\"a\":\"}\\\"{\"}[1,[2]]\r\n\t\"x\"true 12\"y\"-1.5e3{} null";

    let expected = ["{\"a\":\"}\\\"{\"}", "[1,[2]]", "\"x\"", "true", "12", "\"y\"", "-1.5e3", "{}", "null"];
    assert_eq!(texts(&whole(stream)), expected);
}

#[test]
fn a_value_comes_with_its_last_byte() {
    let mut values = Values::new();
    values.push(b"{\"type\":\"neg\"");
    assert_eq!(values.next(), None);

    values.push(b"}");

    assert_eq!(values.next(), Some(Ok(Bytes::from_static(b"{\"type\":\"neg\"}"))));
    values.push(b"17");
    assert_eq!(values.next(), None, "digits may follow");
    values.push(b"\n");
    assert_eq!(values.next(), Some(Ok(Bytes::from_static(b"17"))));
}

#[test]
fn what_is_no_json_is_the_text_of_the_error() {
    for (stream, text) in [
        (&b"java.lang.Exception: gone\n{}"[..], "java.lang.Exception: gone"),
        (b"<html>\r\n<body>", "<html>"),
        (b"{\"type\":\"bou\nnd\"}\n", "{\"type\":\"bou"),
        (b"{type:1} x\n", "{type:1} x"),
        (b"[1}", "[1}"),
        (b"\"\\q\" y\n{}", "\"\\q\" y"),
        (b"nul", "nul"),
        (b"-\n", "-"),
        (b",\n", ","),
        (b"\xff\xfe\n", "\u{fffd}\u{fffd}"),
        (b"\"\xff\"\n", "\"\u{fffd}\""),
    ] {
        let items = whole(&[b"{}\n", stream].concat());

        let expected = ValueError::NotJson { text: text.to_owned() };
        assert_eq!(items, [Ok(Bytes::from_static(b"{}")), Err(expected)]);
    }
}

#[test]
fn the_text_of_an_error_is_cut() {
    let mut values = Values::new();
    values.push(&[b'<'; 600]);

    assert_eq!(values.next(), Some(Err(ValueError::NotJson { text: "<".repeat(512) })));
    values.push(b"{}");
    assert_eq!(values.next(), None, "nothing comes after an error");
}

#[test]
fn a_stream_may_end_only_between_values() {
    assert_eq!(whole(b" \n"), []);
    for stream in ["{\"a\":[", "\"abc", "[{}"] {
        let expected = ValueError::Truncated { text: stream.to_owned() };
        assert_eq!(whole(stream.as_bytes()), [Err(expected)]);
    }
}

#[test]
fn values_have_a_limit() {
    let limited = || Values::new().with_max_value(10);
    for stream in ["[1,2,3,45]", "1234567890", "\"12345678\""] {
        assert_eq!(texts(&split(limited(), [stream.as_bytes()])), [stream]);
        let longer = stream.replace('2', "22");
        let too_large = [Err(ValueError::TooLarge { limit: 10 })];
        assert_eq!(split(limited(), [longer.as_bytes()]), too_large);
        assert_eq!(split(limited(), longer.as_bytes().chunks(1)), too_large);
    }
}

#[test]
fn a_large_value_in_small_chunks_is_read_once() {
    // Quadratic work over 8 MiB would take minutes.
    let value = format!("[{}0]", "0,".repeat(4 << 20));

    assert_eq!(split(Values::new(), value.as_bytes().chunks(100)).len(), 1);
}

fn json() -> impl Strategy<Value = String> {
    let bare = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f32>()
            .prop_filter("JSON has no such number", |value| value.is_finite())
            .prop_map(|value| value.to_string()),
        ".{0,8}".prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    bare.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec(inner, 0..4).prop_map(|items| {
                let items = items.iter().map(|item| format!("\"}}{{\\\"\":{item}"));
                format!("{{{}}}", items.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn values_come_out_as_they_went_in(values in prop::collection::vec(json(), 0..6)) {
        let stream = values.join("\n");
        let items = whole(stream.as_bytes());
        prop_assert_eq!(texts(&items), values);
    }

    #[test]
    fn no_border_matters(stream in prop::collection::vec(prop_oneof![json(), "[ -~]{0,4}"], 0..5)) {
        let stream = stream.join(" ").into_bytes();
        let expected = whole(&stream);
        for at in 0..=stream.len() {
            let (a, b) = stream.split_at(at);
            prop_assert_eq!(&split(Values::new(), [a, b]), &expected);
        }
        prop_assert_eq!(&split(Values::new(), stream.chunks(1)), &expected);
    }

    #[test]
    fn any_bytes_in_any_chunks(stream in any::<Vec<u8>>(), size in 1_usize..9, limit in 0_usize..40) {
        let limited = || Values::new().with_max_value(limit);
        let expected = split(limited(), [&*stream]);
        prop_assert_eq!(split(limited(), stream.chunks(size)), expected);
    }
}
