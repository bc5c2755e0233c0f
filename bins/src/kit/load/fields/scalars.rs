//! Single values: texts, numbers, times, files.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::FileRef;
use super::Item;
use super::Reader;
use super::alternatives;
use super::hint;
use crate::kit::load::secret::blotted;
use crate::kit::load::tree::Value;

impl Reader<'_> {
    /// A text. Numbers and booleans need quotes to be one.
    pub fn string<'n>(&mut self, item: &Item<'n>) -> Option<&'n str> {
        match &item.node.value {
            Value::Str(text) => Some(text),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
                self.mismatch(item, "a string, in quotes");
                None
            }
            _ => {
                self.mismatch(item, "a string");
                None
            }
        }
    }

    /// A text that `parse` understands; its error is reported as `"text" <error>`.
    pub fn parsed<T>(&mut self, item: &Item<'_>, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.string(item)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(item, format!("{} {error}", quoted(text)));
                None
            }
        }
    }

    /// A text that is one of the names in `choices`, which gives the value next to it.
    pub fn choice<T: Copy>(&mut self, item: &Item<'_>, choices: &[(&str, T)]) -> Option<T> {
        self.parsed(item, |text| {
            let found = choices.iter().find(|(name, _)| *name == text);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                format!("is not known here;{} expected {}", hint(text, &names), alternatives(&names))
            })
        })
    }

    /// A whole number within a range.
    pub fn integer(&mut self, item: &Item<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = if *range.end() == u64::MAX {
            format!("an integer of {} or more", range.start())
        } else {
            format!("an integer from {} to {}", range.start(), range.end())
        };
        match &item.node.value {
            Value::Int(number) => {
                let inside = u64::try_from(*number).ok().filter(|number| range.contains(number));
                if inside.is_none() {
                    self.mismatch(item, &expected);
                }
                inside
            }
            Value::Str(text) if text.parse::<u64>().is_ok() => {
                self.mismatch(item, &format!("{expected}, without quotes or leading zeros"));
                None
            }
            _ => {
                self.mismatch(item, &expected);
                None
            }
        }
    }

    /// A count that fits into memory sizes of this machine.
    pub fn count(&mut self, item: &Item<'_>, least: u64) -> Option<usize> {
        // Saturating: on a machine with 32 bits a larger count is as good as the largest.
        self.integer(item, least..=u64::MAX).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
    }

    /// A time in whole milliseconds, at least `least`.
    pub fn millis(&mut self, item: &Item<'_>, least: u64) -> Option<Duration> {
        self.integer(item, least..=u64::MAX).map(|n| Duration::from_millis(n).min(LONGEST))
    }

    /// A time in whole seconds, at least `least`.
    pub fn secs(&mut self, item: &Item<'_>, least: u64) -> Option<Duration> {
        self.integer(item, least..=u64::MAX).map(|n| Duration::from_secs(n).min(LONGEST))
    }

    /// A number, whole or not.
    pub fn number(&mut self, item: &Item<'_>) -> Option<f64> {
        match item.node.value {
            // Weights and the like; no precision is lost below 2^53.
            Value::Int(number) => Some(number as f64),
            Value::Float(number) => Some(number),
            _ => {
                self.mismatch(item, "a number");
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, item: &Item<'_>) -> Option<bool> {
        match item.node.value {
            Value::Bool(truth) => Some(truth),
            _ => {
                self.mismatch(item, "true or false");
                None
            }
        }
    }

    /// The path of a file. Whether it exists is not looked at.
    pub fn file(&mut self, item: &Item<'_>) -> Option<FileRef> {
        let path = self.parsed(item, |text| match text {
            "" => Err("is not the path of a file; expected a path, relative to the working directory".into()),
            text if text.contains('\0') => Err("contains a zero byte; expected a path".into()),
            text => Ok(PathBuf::from(text)),
        })?;
        Some(FileRef { path, place: self.place(item) })
    }

    /// A list of file paths that is not empty.
    pub fn files(&mut self, item: &Item<'_>) -> Option<Vec<FileRef>> {
        let items = self.list(item)?;
        if items.is_empty() {
            self.problem(item, "an empty list; expected at least one path");
        }
        Some(items.iter().filter_map(|item| self.file(item)).collect())
    }

    /// Records that a value is of the wrong kind.
    pub fn mismatch(&mut self, item: &Item<'_>, expected: &str) {
        self.problem(item, format!("found {}; expected {expected}", described(&item.node.value)));
    }
}

/// Longer times are cut to this, about 30 years, because adding them to a clock would overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// A text in quotes, shortened if it is long.
fn quoted(text: &str) -> String {
    const LONG: usize = 60;
    let text = blotted(text);
    if text.chars().count() <= LONG {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(LONG).collect();
    format!("{:?}", format!("{start}..."))
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(truth) => truth.to_string(),
        Value::Int(number) => format!("the integer {number}"),
        Value::Float(number) => format!("the number {number:?}"),
        Value::Str(text) => format!("the string {}", quoted(text)),
        Value::Seq(_) => "a list".into(),
        Value::Map(_) => "a mapping".into(),
    }
}
