//! What holds for any stream of a watch.

use meshlib_namerd::watch::ValueError;
use meshlib_namerd::watch::Values;

/// Panics if the values depend on chunks, or if bytes are lost between them. The first byte is the size of the chunks.
pub(crate) fn check(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else {
        return;
    };
    let whole = split(stream, usize::MAX);
    assert_eq!(split(stream, usize::from(*size).max(1)), whole);

    // Each value is JSON and stands in the stream behind the one before, with only blanks between them.
    let mut left = stream;
    for item in &whole {
        left = left.trim_ascii_start();
        match item {
            Ok(value) => {
                assert!(serde_json::from_slice::<serde::de::IgnoredAny>(value).is_ok());
                left = left.strip_prefix(&**value).expect("the next value");
            }
            Err(ValueError::TooLarge { limit }) => assert!(left.len() > *limit),
            Err(error) => assert!(error.to_string().len() < 8 * 1024),
        }
    }
    if whole.iter().all(Result::is_ok) {
        assert!(left.trim_ascii().is_empty());
    }
}

fn split(stream: &[u8], size: usize) -> Vec<Result<bytes::Bytes, ValueError>> {
    let mut values = Values::new().with_max_value(4096);
    let mut items = Vec::new();
    for chunk in stream.chunks(size) {
        values.push(chunk);
        items.extend(values.by_ref());
    }
    values.finish();
    items.extend(values);
    items
}
