//! What is said about a configuration: problems, warnings, and where they are.

use std::fmt;
use std::sync::Arc;

use super::Source;
use super::secret::blotted;

/// A place in a text. Both numbers count from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Position {
    /// The place of that line and column.
    pub const fn new(line: usize, column: usize) -> Self {
        Self { line, column }
    }

    /// The place right behind `text`, which starts at line 1, column 1.
    pub fn after(text: &str) -> Self {
        let mut at = Self::new(1, 1);
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                // CRLF is one line break; the line feed counts.
                '\r' if chars.peek() == Some(&'\n') => {}
                '\n' | '\r' => at = Self::new(at.line + 1, 1),
                _ => at.column += 1,
            }
        }
        at
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Where a problem or a warning belongs. Prints as `file:line:column: key.path`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The name of the file.
    pub file: Arc<str>,
    /// The place in its text, unless it is not known.
    pub position: Option<Position>,
    /// The keys that lead there, such as `proxies[0].servers[1].addr`. Empty for the whole file.
    pub path: String,
    /// The line of the source with a caret below.
    excerpt: Option<String>,
}

impl Place {
    /// Describes a place in `source`.
    pub fn new(source: &Source, position: Option<Position>, path: impl Into<String>) -> Self {
        let excerpt = position.and_then(|at| excerpt(&source.text, at));
        Self { file: Arc::clone(&source.name), position, path: path.into(), excerpt }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, kind: &str, text: &str) -> fmt::Result {
        write!(f, "{self}: {kind}{text}")?;
        match &self.excerpt {
            Some(excerpt) => write!(f, "\n{excerpt}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(position) = self.position {
            write!(f, ":{position}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        Ok(())
    }
}

/// One thing that is wrong in a configuration.
///
/// Prints as `file:line:column: key.path: what is wrong; what is allowed`, then the source line, then a caret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Where it is.
    pub place: Place,
    /// What is wrong and what is allowed.
    pub text: String,
}

impl Problem {
    /// States that something is wrong at a place.
    pub fn new(place: Place, text: impl Into<String>) -> Self {
        Self { place, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.write(f, "", &self.text)
    }
}

/// One thing in a configuration that works and probably does not do what its author thinks.
///
/// Prints like a [`Problem`], with `warning: ` before the text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// Where it is.
    pub place: Place,
    /// What to know about it.
    pub text: String,
}

impl Warning {
    /// States that something deserves a look.
    pub fn new(place: Place, text: impl Into<String>) -> Self {
        Self { place, text: text.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.write(f, "warning: ", &self.text)
    }
}

/// Everything that is wrong with a configuration, in the order of the file.
///
/// There is always at least one problem. Prints one after the other.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", join(problems))]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// Collects problems and sorts them by position.
    pub fn new(first: Problem, others: impl IntoIterator<Item = Problem>) -> Self {
        let mut problems = vec![first];
        problems.extend(others);
        // Stable, so that problems of one place stay in the order of their discovery; without a place comes last.
        problems.sort_by_key(|problem| (problem.place.position.is_none(), problem.place.position));
        Self { problems }
    }

    /// Nothing is wrong if there are no problems.
    ///
    /// # Errors
    ///
    /// All of them otherwise.
    pub fn unless_none(problems: Vec<Problem>) -> Result<(), Self> {
        let mut problems = problems.into_iter();
        problems.next().map_or(Ok(()), |first| Err(Self::new(first, problems)))
    }

    /// The problems, at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self::new(problem, [])
    }
}

/// What a [`ConfigError`] or a [`Warning`] prints, as one line of a log: without the lines of the source, and what is wrong
/// one after the other.
pub fn in_one_line(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with(MARGIN) && !line.trim().is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join("; ")
}

/// What lines of the source begin with.
const MARGIN: &str = "  |";

fn join(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The line a position is in, and a caret under the column. Long lines are cut around the caret, because JSON
/// is often one line.
fn excerpt(text: &str, at: Position) -> Option<String> {
    const AROUND: usize = 60;
    let line: Vec<char> = blotted(nth_line(text, at.line.checked_sub(1)?)?)
        .chars()
        // One column each, whatever a terminal would do with it.
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let caret = at.column.saturating_sub(1).min(line.len());
    let start = caret.saturating_sub(AROUND);
    let end = line.len().min(caret + AROUND);
    let before = if start > 0 { "..." } else { "" };
    let after = if end < line.len() { "..." } else { "" };
    let shown: String = line[start..end].iter().collect();
    let shown = format!("{before}{shown}{after}");
    let indent = " ".repeat(before.len() + caret - start);
    let line = format!("{MARGIN} {shown}");
    Some(format!("{}\n{MARGIN} {indent}^", line.trim_end()))
}

/// Lines end at LF, CRLF or a lone CR, as in YAML.
fn nth_line(text: &str, n: usize) -> Option<&str> {
    let mut rest = text;
    for _ in 0..n {
        let end = rest.find(['\n', '\r'])?;
        let width = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + width..];
    }
    rest.split(['\n', '\r']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_column() {
        let source = Source::new("a.yml", "one\r\n\ttwo: é x\rthree\n");

        let problem = Problem::new(Place::new(&source, Some(Position::new(2, 9)), "two"), "is wrong");
        assert_eq!(problem.to_string(), "a.yml:2:9: two: is wrong\n  |  two: é x\n  |         ^");
        let problem = Problem::new(Place::new(&source, Some(Position::new(3, 6)), ""), "ends");
        assert_eq!(problem.to_string(), "a.yml:3:6: ends\n  | three\n  |      ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let line = format!("{}X{}", "a".repeat(200), "b".repeat(200));

        let shown = excerpt(&line, Position::new(1, 201)).unwrap();
        let expected = format!("  | ...{}X{}...\n  | {}^", "a".repeat(60), "b".repeat(59), " ".repeat(63));
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_position_outside_the_text_has_no_excerpt() {
        let source = Source::new("a.yml", "one");

        let place = Place::new(&source, Some(Position::new(7, 1)), "");
        assert_eq!(Problem::new(place, "is gone").to_string(), "a.yml:7:1: is gone");
        assert_eq!(Problem::new(Place::new(&source, None, "x"), "is gone").to_string(), "a.yml: x: is gone");
    }

    #[test]
    fn problems_come_in_the_order_of_the_file() {
        let source = Source::new("a", "one\ntwo");
        let at = |line| Problem::new(Place::new(&source, Some(Position::new(line, 1)), ""), "bad");

        let error = ConfigError::new(at(2), [at(1)]);
        assert_eq!(error.to_string(), "a:1:1: bad\n  | one\n  | ^\na:2:1: bad\n  | two\n  | ^");
    }

    #[test]
    fn a_line_of_a_log_has_all_problems_and_no_source() {
        let source = Source::new("a", "one\n\n  | three");
        let at = |line, text| Problem::new(Place::new(&source, Some(Position::new(line, 1)), "k"), text);

        let error = ConfigError::new(at(1, "is bad"), [at(2, "is empty"), at(3, "is odd:\n  no end")]);

        let line = in_one_line(&error.to_string());
        assert_eq!(line, "a:1:1: k: is bad; a:2:1: k: is empty; a:3:1: k: is odd:; no end");
        assert_eq!(in_one_line("cannot read a.yml"), "cannot read a.yml");
    }

    #[test]
    fn a_place_behind_a_text_counts_characters_and_all_line_breaks() {
        assert_eq!(Position::after(""), Position::new(1, 1));
        assert_eq!(Position::after("a\r\nb\rc\né"), Position::new(4, 2));
    }
}
