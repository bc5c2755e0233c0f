//! JSON as people read it.

use std::fmt::Write;

use serde::de::IgnoredAny;

use crate::kit::units::is_harmful;

/// How deep documents may be. Those of our programs are a fraction of it.
const DEPTH: usize = 64;

/// A document with a line for each value, otherwise as it is: fields keep their order and numbers all their digits. What
/// would be a command for the terminal is written as an escape.
///
/// # Errors
///
/// What is wrong with the document.
pub(super) fn pretty(document: &str) -> Result<String, PrettyError> {
    serde_json::from_str::<IgnoredAny>(document)?;
    let mut text = String::with_capacity(document.len() * 2);
    let mut depth = 0;
    let mut chars = document.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                text.push('"');
                // The document is valid: each string has an end.
                while let Some(c) = chars.next_if(|c| *c != '"') {
                    push_harmless(&mut text, c);
                    if c == '\\' {
                        text.extend(chars.next());
                    }
                }
                text.extend(chars.next());
            }
            '{' | '[' => {
                text.push(c);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                match chars.next_if(|c| matches!(c, '}' | ']')) {
                    Some(end) => text.push(end),
                    None if depth == DEPTH => return Err(PrettyError::Depth),
                    None => {
                        depth += 1;
                        push_line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth -= 1;
                push_line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                push_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => text.push(c),
        }
    }
    Ok(text)
}

/// Why a document cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrettyError {
    /// It is no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It is made to be a burden.
    #[error("more than {DEPTH} lists in lists")]
    Depth,
}

fn push_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth));
}

fn push_harmless(text: &mut String, c: char) {
    if !is_harmful(c) {
        return text.push(c);
    }
    let mut units = [0; 2];
    for unit in c.encode_utf16(&mut units) {
        // Strings can be written to.
        let _ = write!(text, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn order_and_digits_stay() {
        let document = r#" {"b":[1.10,{ }, [ ],"x,:{}\"\\"] ,"a":12345678901234567890123,"c":{"d":null}} "#;

        let text = pretty(document).unwrap();

        let wanted = r#"{
  "b": [
    1.10,
    {},
    [],
    "x,:{}\"\\"
  ],
  "a": 12345678901234567890123,
  "c": {
    "d": null
  }
}"#;
        assert_eq!(text, wanted);
    }

    #[test]
    fn what_a_terminal_would_heed_is_an_escape() {
        assert_eq!(
            pretty("\"\u{9b}2J\u{7f}\u{202e}\u{e0001}\"").unwrap(),
            r#""\u009b2J\u007f\u202e\udb40\udc01""#
        );
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for document in ["", "{", "[1,]", "\u{1b}[2J", "1 2", "{\"a\" 1}", "\"\u{1b}\""] {
            assert!(matches!(pretty(document), Err(PrettyError::Json(_))), "{document:?}");
        }
        assert!(pretty(&("[".repeat(64) + "1" + &"]".repeat(64))).is_ok());
        let deep = "[".repeat(65) + "1" + &"]".repeat(65);
        assert!(matches!(pretty(&deep), Err(PrettyError::Depth)));
    }

    proptest! {
        #[test]
        fn it_says_the_same(text: String, number: i64) {
            let value = serde_json::json!({ "a": [text, number, {}], text: null });

            let pretty = pretty(&value.to_string()).unwrap();

            prop_assert_eq!(serde_json::from_str::<Value>(&pretty).unwrap(), value);
            prop_assert!(!pretty.chars().any(|c| c != '\n' && is_harmful(c)));
        }
    }
}
