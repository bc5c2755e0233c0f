//! Walking a configuration tree and collecting everything that is wrong with it.
//!
//! A decoder asks a [`Reader`] for what it needs. What is missing or of the wrong kind is recorded, the decoder
//! gets `None` and goes on with the next field, so that one run shows all problems. [`Reader::finish`] gives the
//! result only if nothing was recorded; a decoder may therefore put any value where it got `None`.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::path::PathBuf;

use super::ConfigError;
use super::Place;
use super::Position;
use super::Problem;
use super::Source;
use super::Warning;
use super::language::Table;
use super::language::Takes;
use super::nearest;
use super::tree::Key;
use super::tree::Node;
use super::tree::Value;

mod scalars;

/// A value and the keys that lead to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Item<'n> {
    /// The value.
    pub node: &'n Node,
    /// The keys that lead to it, such as `proxies[0].label`.
    pub path: String,
}

impl<'n> Item<'n> {
    /// The whole document.
    pub const fn root(node: &'n Node) -> Self {
        Self { node, path: String::new() }
    }
}

/// A mapping whose keys have been compared with the ones allowed in it.
#[derive(Debug)]
pub struct Fields<'n> {
    path: String,
    at: Option<Position>,
    values: BTreeMap<&'static str, Item<'n>>,
}

impl<'n> Fields<'n> {
    /// The value of a field, by its first name. `None` if the field is absent or `null`.
    pub fn get(&self, name: &str) -> Option<&Item<'n>> {
        self.values.get(name).filter(|item| item.node.value != Value::Null)
    }

    /// Whether the field is written down, even if `null`.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

/// A path of a file that a configuration names, and where it names it.
///
/// It can be used as a [`Path`]; [`FileRef::problem`] reports what is wrong with the file later on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileRef {
    /// The path as written, relative to the working directory.
    pub path: PathBuf,
    /// Where it is written.
    pub place: Place,
}

impl FileRef {
    /// States that something is wrong with the file; prints in the form of all other problems.
    pub fn problem(&self, text: impl Into<String>) -> Problem {
        Problem::new(self.place.clone(), text)
    }
}

impl AsRef<Path> for FileRef {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Deref for FileRef {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// Collects the problems and warnings of one configuration while it is decoded.
#[derive(Debug)]
pub struct Reader<'s> {
    source: &'s Source,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
    /// Problems beyond [`MOST_PROBLEMS`].
    unrecorded: usize,
}

impl<'s> Reader<'s> {
    /// Starts with nothing to complain about.
    pub const fn new(source: &'s Source) -> Self {
        Self { source, problems: Vec::new(), warnings: Vec::new(), unrecorded: 0 }
    }

    /// Gives the decoded value and the warnings.
    ///
    /// # Errors
    ///
    /// All recorded problems if there is any.
    pub fn finish<T>(self, decoded: Option<T>) -> Result<(T, Vec<Warning>), ConfigError> {
        let mut problems = self.problems;
        if self.unrecorded > 0 {
            let text = format!("and {} more problems", self.unrecorded);
            problems.push(Problem::new(Place::new(self.source, None, ""), text));
        }
        let mut problems = problems.into_iter();
        match (problems.next(), decoded) {
            (Some(first), _) => Err(ConfigError::new(first, problems)),
            (None, Some(decoded)) => {
                let mut warnings = self.warnings;
                warnings.sort_by_key(|warning| warning.place.position);
                Ok((decoded, warnings))
            }
            // A decoder that gives up says why. Should one forget to, this is still an error and not a panic.
            (None, None) => {
                Err(Problem::new(Place::new(self.source, None, ""), "is not a valid configuration").into())
            }
        }
    }

    /// The place of a value.
    pub fn place(&self, item: &Item<'_>) -> Place {
        Place::new(self.source, item.node.at, item.path.as_str())
    }

    /// Records that something is wrong with a value.
    pub fn problem(&mut self, item: &Item<'_>, text: impl Into<String>) {
        self.record(item.node.at, &item.path, text.into());
    }

    /// Records that something is wrong with a mapping as a whole.
    pub fn problem_in(&mut self, fields: &Fields<'_>, text: impl Into<String>) {
        self.record(fields.at, &fields.path, text.into());
    }

    /// Records that something is wrong at a place.
    pub fn problem_at(&mut self, place: Place, text: impl Into<String>) {
        self.problems.push(Problem::new(place, text));
    }

    /// Records something worth knowing about a value.
    pub fn warning(&mut self, item: &Item<'_>, text: impl Into<String>) {
        let place = self.place(item);
        self.warning_at(place, text);
    }

    /// Records something worth knowing about a place.
    pub fn warning_at(&mut self, place: Place, text: impl Into<String>) {
        self.warnings.push(Warning::new(place, text));
    }

    /// Opens a mapping with the fields of a table and reports every key that is none of them or comes twice.
    ///
    /// [`Fields::get`] knows a field by its own name, whichever name it is written under.
    pub fn fields<'n>(&mut self, item: &Item<'n>, table: &Table) -> Option<Fields<'n>> {
        let Value::Map(entries) = &item.node.value else {
            self.mismatch(item, "a mapping");
            return None;
        };
        let mut values = BTreeMap::<&'static str, Item<'n>>::new();
        let mut written = BTreeMap::<&'static str, &Key>::new();
        for (key, node) in entries {
            let path = join(&item.path, &key.name);
            let Some(field) = table.field(&key.name) else {
                let names: Vec<&'static str> = table.fields().map(|field| field.name).collect();
                self.at_key(key, &path, unknown(&key.name, &names));
                continue;
            };
            let name = field.name;
            if let Takes::Refused(why) = field.takes
                && node.value != Value::Null
            {
                self.record(node.at, &path, why.to_owned());
                continue;
            }
            match written.get(name) {
                None => {
                    written.insert(name, key);
                    values.insert(name, Item { node, path });
                }
                Some(earlier) => self.at_key(key, &path, repeated(key, earlier)),
            }
        }
        Some(Fields { path: item.path.clone(), at: item.node.at, values })
    }

    /// The value of `kind` in a mapping, which decides what other fields it may have.
    pub fn kind<'k>(&mut self, item: &Item<'_>, kinds: &[&'k str]) -> Option<&'k str> {
        let Value::Map(entries) = &item.node.value else {
            self.mismatch(item, "a mapping");
            return None;
        };
        let Some((_, node)) = entries.iter().find(|(key, _)| key.name == "kind") else {
            self.problem(item, format!("missing field `kind`; expected {}", alternatives(kinds)));
            return None;
        };
        let kind = Item { node, path: join(&item.path, "kind") };
        let choices: Vec<(&str, &'k str)> = kinds.iter().map(|kind| (*kind, *kind)).collect();
        self.choice(&kind, &choices)
    }

    /// Opens a mapping with keys of the user's choice and reports repeated ones.
    pub fn entries<'n>(&mut self, item: &Item<'n>) -> Option<Vec<(&'n Key, Item<'n>)>> {
        let Value::Map(entries) = &item.node.value else {
            self.mismatch(item, "a mapping");
            return None;
        };
        let mut seen = BTreeMap::<&str, &Key>::new();
        let mut out = Vec::new();
        for (key, node) in entries {
            let path = format!("{}[{:?}]", item.path, key.name);
            match seen.get(key.name.as_str()) {
                None => {
                    seen.insert(&key.name, key);
                    out.push((key, Item { node, path }));
                }
                Some(earlier) => self.at_key(key, &path, repeated(key, earlier)),
            }
        }
        Some(out)
    }

    /// Records that something is wrong with a key.
    pub fn at_key(&mut self, key: &Key, path: &str, text: impl Into<String>) {
        self.record(key.at, path, text.into());
    }

    /// The value of a field that must be there and not `null`.
    pub fn required<'f, 'n>(&mut self, fields: &'f Fields<'n>, name: &'static str) -> Option<&'f Item<'n>> {
        let found = fields.get(name);
        if found.is_none() {
            match fields.values.get(name) {
                Some(null) => self.problem(null, format!("`{name}` has no value; it is required")),
                None => self.problem_in(fields, format!("missing field `{name}`; it is required")),
            }
        }
        found
    }

    /// The elements of a list.
    pub fn list<'n>(&mut self, item: &Item<'n>) -> Option<Vec<Item<'n>>> {
        let Value::Seq(nodes) = &item.node.value else {
            self.mismatch(item, "a list");
            return None;
        };
        let element = |(i, node)| Item { node, path: format!("{}[{i}]", item.path) };
        Some(nodes.iter().enumerate().map(element).collect())
    }

    fn record(&mut self, at: Option<Position>, path: &str, text: String) {
        if self.problems.len() == MOST_PROBLEMS {
            self.unrecorded += 1;
            return;
        }
        self.problems.push(Problem::new(Place::new(self.source, at, path), text));
    }
}

/// More problems are only counted: nobody reads them, and a file that is no configuration could have a million.
const MOST_PROBLEMS: usize = 100;

fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    match (plain, path) {
        (true, "") => key.to_string(),
        (true, path) => format!("{path}.{key}"),
        (false, path) => format!("{path}[{key:?}]"),
    }
}

fn unknown(key: &str, allowed: &[&str]) -> String {
    format!("unknown field `{key}`;{} allowed: {}", hint(key, allowed), list_of(allowed))
}

fn repeated(key: &Key, earlier: &Key) -> String {
    let line = earlier.at.map(|at| format!(" in line {}", at.line)).unwrap_or_default();
    if key.name == earlier.name {
        format!("duplicate key `{}`; it is set already{line}", key.name)
    } else {
        format!("`{}` is another name of `{}`, set already{line}; give one of them", key.name, earlier.name)
    }
}

/// ` did you mean ..?` for a word that is close to an option.
fn hint(word: &str, options: &[&str]) -> String {
    nearest(word, options).map(|name| format!(" did you mean `{name}`?")).unwrap_or_default()
}

fn list_of(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn alternatives(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests;
