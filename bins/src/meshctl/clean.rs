//! Keeps what a program says from being commands for the terminal.
//!
//! Names come from discovery, and errors from whoever is asked for them. Neither should move the cursor, set the title of
//! the window, or make a line look like another one.

use serde_json::Value;

use crate::kit::units::is_harmful;

/// A text in one line that a terminal shows and nothing else.
pub(super) fn line(text: &str) -> String {
    text.trim_end().chars().map(harmless).collect()
}

/// The lines of a text that a terminal shows and nothing else, without empty ones, and so many at most.
pub(super) fn lines(text: &str, most: usize) -> Vec<String> {
    text.lines().map(line).filter(|line| !line.is_empty()).take(most).collect()
}

/// Makes all strings of a document harmless, however they were written. Those called `error` may have several lines.
pub(super) fn document(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.chars().map(harmless).collect(),
        Value::Array(values) => values.iter_mut().for_each(document),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "error" => *text = lines(text, usize::MAX).join("\n"),
                    _ => document(value),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Stands for what cannot be shown.
const INSTEAD: char = '?';

fn harmless(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' => ' ',
        c if is_harmful(c) => INSTEAD,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_has_no_commands_for_the_terminal() {
        assert_eq!(line("\u{1b}[2Jweb\u{7}\u{9b}31m\tx\n"), "?[2Jweb??31m x");
        assert_eq!(line("a\u{202e}b\u{2066}c\u{200b}d"), "a?b?c?d");
        assert_eq!(line("größe 大小"), "größe 大小");
    }

    #[test]
    fn lines_are_bounded() {
        assert_eq!(lines("a\r\n\n\u{1b}b\nc\n", 2), ["a", "?b"]);
    }

    #[test]
    fn strings_of_a_document_are_harmless_however_they_are_written() {
        let text = r#"{ "a": "\u001b[2J\u009b\n\t\b\\\"\/é\u00e9\ud83d\ude00\u202E\udb40\udc41", "b": [1, "\u2028"] }"#;
        let mut cleaned: Value = serde_json::from_str(text).unwrap();

        document(&mut cleaned);

        assert_eq!(cleaned["a"], "?[2J?  ?\\\"/éé😀??");
        assert_eq!(cleaned["b"][1], "?");
    }

    #[test]
    fn an_error_keeps_its_lines() {
        let mut cleaned = serde_json::json!({"error": "a:1:2: no\r\n  \u{1b}[m |\n\n  ^\n", "name": "a\nb"});

        document(&mut cleaned);

        assert_eq!(cleaned["error"], "a:1:2: no\n  ?[m |\n  ^");
        assert_eq!(cleaned["name"], "a b");
    }

    proptest! {
        #[test]
        fn any_text_in_a_document_comes_out_harmless(text: String) {
            let mut cleaned = Value::from(vec![text.as_str()]);

            document(&mut cleaned);

            let cleaned = cleaned[0].as_str().unwrap();
            prop_assert!(!cleaned.chars().any(is_harmful));
            prop_assert_eq!(cleaned.chars().count(), text.chars().count());
        }
    }
}
