//! YAML or JSON as a tree whose keys and values know where they stand.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_saphyr::DuplicateKeyPolicy;
use serde_saphyr::Location;
use serde_saphyr::NonFiniteFloatPolicy;
use serde_saphyr::Spanned;

use super::Place;
use super::Position;
use super::Problem;
use super::Source;

/// A value and where it starts.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it starts; for an alias, where its target starts. `None` only in JSON that YAML cannot
    /// express.
    pub at: Option<Position>,
}

/// A value as it is written. Quoted scalars are always strings.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`, and no other spelling.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A text.
    Str(String),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping, in the order of the file. The same key may occur more than once.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key {
    /// The key; numbers and booleans are taken as they print.
    pub name: String,
    /// Where it starts.
    pub at: Option<Position>,
}

/// How deep mappings and lists may nest; a configuration needs about ten.
const MAX_DEPTH: usize = 48;

/// How many keys and values there may be, aliases expanded. It bounds the memory of the tree.
const MAX_NODES: usize = 200_000;

/// Parses the one document of a text.
///
/// White space before the document does not count. A text that starts with `{` may be JSON; YAML that starts
/// with `{` is accepted as well.
///
/// # Errors
///
/// The syntax error that was found, or that there is no document or more than one. For a text that starts with
/// `{` and is neither, the error that lies further on in the text, because that reader understood more of it.
pub fn parse(source: &Source) -> Result<Node, Problem> {
    let text = source.text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let skipped = Position::after(&source.text[..source.text.len() - text.len()]);
    let fail =
        |at: Position, text: String| Problem::new(Place::new(source, Some(moved(skipped, at)), ""), text);

    let mut node = match yaml(text) {
        Ok(node) => node,
        Err((at, message)) if text.starts_with('{') => match serde_json::from_str::<Raw<false>>(text) {
            // JSON allows a few things that YAML does not, such as surrogate pairs in escapes.
            Ok(Raw(value)) => Node { value, at: None },
            Err(json) => {
                let json_at = json_position(text, &json);
                let message =
                    if json_at >= at { format!("invalid JSON: {}", without_place(&json)) } else { message };
                return Err(fail(json_at.max(at), message));
            }
        },
        Err((at, message)) => return Err(fail(at, message)),
    };
    if node.value == Value::Null {
        return Err(fail(Position::new(1, 1), "the configuration is empty; expected a mapping".into()));
    }
    node.shift(skipped);
    Ok(node)
}

fn yaml(text: &str) -> Result<Node, (Position, String)> {
    if text.is_empty() {
        return Ok(Node { value: Value::Null, at: None });
    }
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: MAX_DEPTH,
        },
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw<true>>>(text, options) {
        Ok(spanned) => Ok(placed(spanned)),
        Err(error) => {
            let error = error.without_snippet();
            let at = error.location().and_then(position).unwrap_or(Position::new(1, 1));
            Err((at, describe(error) + hint(text, at)))
        }
    }
}

/// The message of the YAML reader in our words where its own would speak of its programming interface.
fn describe(error: &serde_saphyr::Error) -> String {
    if matches!(error, serde_saphyr::Error::MultipleDocuments { .. }) {
        return "a second YAML document starts here; expected one document".into();
    }
    let text = error.to_string();
    // The limits come in several variants, some of them wrapped in others; their messages have a word in common.
    if matches!(error, serde_saphyr::Error::Budget { .. }) || text.contains("limit exceeded") {
        let most = format!("at most {MAX_NODES} values with aliases written out, {MAX_DEPTH} levels deep");
        return format!("the configuration is too large or too deep; expected {most}");
    }
    // The position is printed in front of every problem already.
    let text = text.lines().next().unwrap_or_default();
    let text = text.find(" at line ").map_or(text, |end| &text[..end]);
    format!("invalid YAML: {}", text.trim_end_matches([':', ' ']))
}

/// In YAML `[::]:80` starts with a list. This is the usual way to get an address wrong.
fn hint(text: &str, at: Position) -> &'static str {
    let line = text.lines().nth(at.line - 1).unwrap_or_default();
    let after_bracket = line.split_once("]:").map(|(_, rest)| rest);
    match after_bracket {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
            "; write IPv6 addresses in quotes, such as \"[::1]:80\""
        }
        _ => "",
    }
}

/// The JSON reader counts bytes of a line, and only LF as its end.
fn json_position(text: &str, error: &serde_json::Error) -> Position {
    let line = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
    let at = line + error.column().saturating_sub(1);
    let before = text.char_indices().take_while(|(i, c)| i + c.len_utf8() <= at);
    Position::after(&text[..before.last().map_or(0, |(i, c)| i + c.len_utf8())])
}

fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_string()
}

fn position(location: Location) -> Option<Position> {
    let line = usize::try_from(location.line()).ok().filter(|line| *line > 0)?;
    let column = usize::try_from(location.column()).ok().filter(|column| *column > 0)?;
    Some(Position::new(line, column))
}

/// A position in the trimmed text as a position in the whole one.
fn moved(skipped: Position, at: Position) -> Position {
    let column = if at.line == 1 { skipped.column - 1 + at.column } else { at.column };
    Position::new(skipped.line - 1 + at.line, column)
}

fn placed(spanned: Spanned<Raw<true>>) -> Node {
    Node { value: spanned.value.0, at: position(spanned.defined) }
}

fn unplaced(raw: Raw<false>) -> Node {
    Node { value: raw.0, at: None }
}

impl Node {
    fn shift(&mut self, skipped: Position) {
        self.at = self.at.map(|at| moved(skipped, at));
        match &mut self.value {
            Value::Seq(items) => items.iter_mut().for_each(|item| item.shift(skipped)),
            Value::Map(entries) => {
                for (key, value) in entries {
                    key.at = key.at.map(|at| moved(skipped, at));
                    value.shift(skipped);
                }
            }
            _ => {}
        }
    }
}

/// A value during deserialization, before its own position is known. Only YAML can tell the positions of what is
/// in it; for JSON the parameter is false.
struct Raw<const PLACED: bool>(Value);

impl<'de, const PLACED: bool> Deserialize<'de> for Raw<PLACED> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor::<PLACED>).map(Self)
    }
}

struct RawVisitor<const PLACED: bool>;

impl<'de, const PLACED: bool> Visitor<'de> for RawVisitor<PLACED> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        // Beyond every field's range either way.
        Ok(Value::Int(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Str(value.to_string()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = match PLACED {
            true => access.next_element()?.map(placed),
            false => access.next_element()?.map(unplaced),
        } {
            items.push(item);
        }
        Ok(Value::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = match PLACED {
            true => access.next_key()?.map(placed),
            false => access.next_key()?.map(unplaced),
        } {
            let name = match key.value {
                Value::Str(name) => name,
                Value::Int(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                Value::Bool(truth) => truth.to_string(),
                Value::Null => "null".into(),
                _ => return Err(serde::de::Error::custom("a list or a mapping cannot be a key")),
            };
            let value = match PLACED {
                true => placed(access.next_value()?),
                false => unplaced(access.next_value()?),
            };
            entries.push((Key { name, at: key.at }, value));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests;
