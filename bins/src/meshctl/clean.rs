//! Keeps what a program says from being commands for the terminal.
//!
//! Names come from discovery, and errors from whoever is asked for them. Neither should move the cursor, set the title of
//! the window, or make a line look like another one.

/// Whether a terminal would do something else than show this.
fn is_harmful(c: char) -> bool {
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
}
