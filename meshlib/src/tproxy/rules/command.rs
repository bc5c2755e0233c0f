//! Commands, to be printed or run.

use std::fmt;

/// A command that changes or shows rules. Prints as a line for `sh -e`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// The program.
    pub program: &'static str,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it reads from its standard input.
    pub input: Option<String>,
    /// When it is run, and what its failure means.
    pub run: Run,
}

/// When a command is run, and what its failure means.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Run {
    /// Once, and it must succeed.
    Must,
    /// Once; a failure that says this is none.
    Tolerating(&'static str),
    /// Once; there may be nothing to do.
    May,
    /// Again and again until it fails, because there is no more to do.
    UntilFailure,
    /// Only if the same program with these arguments fails.
    Unless(Vec<String>),
}

impl Command {
    pub(crate) fn new<A: Into<String>>(program: &'static str, args: impl IntoIterator<Item = A>) -> Self {
        Self { program, args: args.into_iter().map(Into::into).collect(), input: None, run: Run::Must }
    }

    /// Splits the arguments at spaces.
    pub(crate) fn words(program: &'static str, args: &str) -> Self {
        Self::new(program, args.split_whitespace())
    }

    pub(crate) fn run(mut self, run: Run) -> Self {
        self.run = run;
        self
    }

    pub(crate) fn reading(mut self, input: String) -> Self {
        self.input = Some(input);
        self
    }

    fn words_of(&self, args: &[String]) -> String {
        let quoted = args.iter().map(|arg| quoted(arg));
        [self.program.to_owned()].into_iter().chain(quoted).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.words_of(&self.args);
        if let Some(input) = &self.input {
            // The language of nft is for people; that of iptables-restore is one command per line.
            if self.program == "nft" {
                write!(f, "{words} <<'END'\n{input}END")?;
            } else {
                let lines = input.lines().map(quoted).collect::<Vec<_>>().join(" ");
                write!(f, "printf '%s\\n' {lines} | {words}")?;
            }
            return match self.run {
                Run::Must => Ok(()),
                _ => write!(f, " || :"),
            };
        }
        match &self.run {
            Run::Must => f.write_str(&words),
            Run::Tolerating(text) => {
                let escaped = quoted(text);
                write!(
                    f,
                    "out=$({words} 2>&1) || case $out in *{escaped}*) ;; *) echo \"$out\" >&2; exit 1 ;; esac"
                )
            }
            Run::May => write!(f, "{words} 2>/dev/null || :"),
            Run::UntilFailure => write!(f, "while {words} 2>/dev/null; do :; done"),
            Run::Unless(check) => write!(f, "{} 2>/dev/null || {words}", self.words_of(check)),
        }
    }
}

/// A word of the shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_run_has_its_form_in_the_shell() {
        let command = |run| Command::words("ip", "rule add pref 1").run(run).to_string();

        assert_eq!(command(Run::Must), "ip rule add pref 1");
        assert_eq!(command(Run::May), "ip rule add pref 1 2>/dev/null || :");
        assert_eq!(command(Run::UntilFailure), "while ip rule add pref 1 2>/dev/null; do :; done");
        assert_eq!(
            command(Run::Unless(vec!["rule".into(), "it's".into()])),
            r"ip rule 'it'\''s' 2>/dev/null || ip rule add pref 1"
        );
        assert_eq!(
            command(Run::Tolerating("File exists")),
            "out=$(ip rule add pref 1 2>&1) || case $out in *'File exists'*) ;; *) echo \"$out\" >&2; exit 1 ;; esac"
        );
    }

    #[test]
    fn input_is_given_line_by_line() {
        let restore = Command::words("iptables-restore", "--noflush").reading("*nat\n-A X -i lo\n".into());

        assert_eq!(restore.to_string(), r"printf '%s\n' '*nat' '-A X -i lo' | iptables-restore --noflush");
    }
}
