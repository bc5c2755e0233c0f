//! What is printed, and which of the claims on it were not true.

use std::env;
use std::io;
use std::io::IsTerminal;
use std::io::Write;

/// Standard output, with colour if it is a terminal and `NO_COLOR` is not set.
pub(crate) struct Page {
    colour: bool,
    untrue: Vec<String>,
}

/// Escape codes; the number of a colour or weight.
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";
const GREEN: &str = "32";

impl Page {
    pub(crate) fn new() -> Self {
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour: wanted && io::stdout().is_terminal(), untrue: Vec::new() }
    }

    /// The beginning of a part.
    pub(crate) fn heading(&self, text: &str) {
        let text = self.painted(BOLD, text);
        self.line(&format!("\n{text}\n"));
    }

    pub(crate) fn line(&self, text: &str) {
        let mut out = io::stdout().lock();
        // Whoever has closed the pipe has read enough; the claims are checked all the same.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// Lines that are shown as they are: a file, an answer.
    pub(crate) fn quote(&self, text: &str) {
        for line in text.lines() {
            self.line(&format!("    {}", self.painted(DIM, line)));
        }
    }

    /// Something to paste, under what it is for.
    pub(crate) fn command(&self, what: &str, command: &str) {
        self.line(&format!("  {what}\n    {}", self.painted(BOLD, command)));
    }

    /// Says what was shown, and remembers it if it was not.
    pub(crate) fn claim(&mut self, is_true: bool, text: &str) {
        let mark = if is_true { self.painted(GREEN, "ok") } else { self.painted(RED, "NO") };
        self.line(&format!("  {mark}  {text}"));
        if !is_true {
            self.untrue.push(text.to_owned());
        }
    }

    /// The claims that did not hold.
    pub(crate) fn untrue(&self) -> &[String] {
        &self.untrue
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
