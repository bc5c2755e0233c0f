//! A line with a sample.

use super::Format;

/// A sample of a series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

impl Sample {
    /// The value of a label.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(own, _)| own == key).map(|(_, value)| &**value)
    }

    /// Name and labels, in an order that does not depend on the line.
    pub(crate) fn series(&self) -> String {
        let mut labels = self.labels.clone();
        labels.sort();
        format!("{}{labels:?}", self.name)
    }
}

/// Reads a line; `None` if anything is wrong with it.
pub(super) fn parse(line: &str, format: Format) -> Option<Sample> {
    let ends = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(ends);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest, format)?,
        None => (Vec::new(), rest),
    };
    let value = number(rest.strip_prefix(' ')?)?;
    is_name(name).then(|| Sample { name: name.to_owned(), labels, value })
}

/// Reads labels up to and with the brace that ends them. Braces around nothing are not wrong, but nobody writes them.
fn labels(mut rest: &str, format: Format) -> Option<(Vec<(String, String)>, &str)> {
    // The older format has any blanks between tokens, and the programs that came before had this one.
    let comma = if format == Format::Open { "," } else { ", " };
    let mut labels: Vec<(String, String)> = Vec::new();
    loop {
        let (key, after) = rest.split_once("=\"")?;
        let mut is_escaped = false;
        let ends = after.find(|c| {
            let ends = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            ends
        })?;
        if !is_label(key) || labels.iter().any(|(other, _)| other == key) {
            return None;
        }
        labels.push((key.to_owned(), unescape(&after[..ends], true)?));
        rest = &after[ends + 1..];
        match rest.strip_prefix('}') {
            Some(rest) => return Some((labels, rest)),
            None => rest = rest.strip_prefix(comma)?,
        }
    }
}

/// A decimal number or an infinity. The formats have NaN as well, which no program should need.
fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ if text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) => text.parse().ok(),
        _ => None,
    }
}

pub(super) fn is_name(name: &str) -> bool {
    let is_start = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b':';
    let mut bytes = name.bytes();
    bytes.next().is_some_and(is_start) && bytes.all(|b| is_start(b) || b.is_ascii_digit())
}

/// Names that begin with `__` are Prometheus' own.
fn is_label(name: &str) -> bool {
    is_name(name) && !name.contains(':') && !name.starts_with("__")
}

/// `None` for an escape that nobody knows, and where `quotes` need one and have none.
pub(super) fn unescape(text: &str, quotes: bool) -> Option<String> {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                '"' if quotes => '"',
                _ => return None,
            },
            '"' if quotes => return None,
            c => c,
        });
    }
    Some(out)
}
