//! Keeps what a program says from being commands for the terminal.
//!
//! Names come from discovery, and errors from whoever is asked for them. Neither should move the cursor, set the title of
//! the window, or make a line look like another one.

use std::iter;

/// Whether a terminal would do something else than show this.
pub(super) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Separators of lines and paragraphs, and what changes the direction of text or has no width: Unicode 16,
            // general categories Zl, Zp and Cf.
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A text in one line that a terminal shows and nothing else.
pub(super) fn line(text: &str) -> String {
    text.trim_end().chars().map(harmless).collect()
}

/// The lines of a text that a terminal shows and nothing else, without empty ones, and so many at most.
pub(super) fn lines(text: &str, most: usize) -> Vec<String> {
    text.lines().map(line).filter(|line| !line.is_empty()).take(most).collect()
}

/// A JSON document whose strings are harmless. What is no JSON stays so.
pub(super) fn json(document: &str) -> String {
    let mut cleaned = String::with_capacity(document.len());
    let mut chars = document.chars();
    let mut in_string = false;
    while let Some(c) = chars.next() {
        match c {
            '"' => in_string = !in_string,
            '\\' if in_string => {
                match chars.next() {
                    Some('u') => {
                        let digits: String = chars.by_ref().take(4).collect();
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        match code.filter(|c| is_harmful(*c)) {
                            Some(harmful) => cleaned.push(harmless(harmful)),
                            None => cleaned.extend(["\\u", &digits]),
                        }
                    }
                    Some('n' | 'r' | 't') => cleaned.push(' '),
                    Some('b' | 'f') => cleaned.push(INSTEAD),
                    escaped => cleaned.extend(iter::once('\\').chain(escaped)),
                }
                continue;
            }
            _ => {}
        }
        cleaned.push(if in_string { harmless(c) } else { c });
    }
    cleaned
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
    use serde_json::Value;

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
        let document =
            r#"{ "a": "\u001b[2J\u009b\n\t\b\\\"\/é\u00e9\ud83d\ude00\u202E", "b": [1, "\u2028"] }"#;

        let cleaned: Value = serde_json::from_str(&json(document)).unwrap();

        assert_eq!(cleaned["a"], "?[2J?  ?\\\"/éé😀?");
        assert_eq!(cleaned["b"][1], "?");
    }

    proptest! {
        #[test]
        fn any_text_in_a_document_comes_out_harmless(text: String) {
            let document = serde_json::to_string(&[&text]).unwrap();

            let cleaned: Vec<String> = serde_json::from_str(&json(&document)).unwrap();

            prop_assert!(!cleaned[0].chars().any(is_harmful));
            prop_assert_eq!(cleaned[0].chars().count(), text.chars().count());
        }

        #[test]
        fn what_is_no_document_does_no_harm(text in r#"["\\u0-9a-f\x1b{}\[\]n]*"#) {
            json(&text);
        }
    }
}
