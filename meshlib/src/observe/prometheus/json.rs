//! Metrics as one flat JSON object.

use std::fmt::{self, Write};
use std::sync::Arc;

use super::families::Family;
use super::format::Format;
use super::sample::{self, Value};
use super::text;

pub(super) fn render(families: &[(Arc<str>, Family)]) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _infallible = write_all(&mut out, families);
    out
}

fn write_all(out: &mut String, families: &[(Arc<str>, Family)]) -> fmt::Result {
    let mut separator = "{\n";
    let mut key = String::new();
    for (name, family) in families {
        for (labels, series) in &family.series {
            for sample in sample::read(series, Format::Text004) {
                key.clear();
                text::write_name(&mut key, name, sample.part, labels, Format::Text004)?;
                out.push_str(separator);
                write_string(out, &key)?;
                match sample.value {
                    // RFC 8259 section 6: infinity is not a number.
                    Value::Float(value) if !value.is_finite() => out.push_str(": null"),
                    value => write!(out, ": {value}")?,
                }
                separator = ",\n";
            }
        }
    }
    out.push_str(if separator == ",\n" { "\n}\n" } else { "{}\n" });
    Ok(())
}

/// Writes a string as RFC 8259 section 7 wants it.
fn write_string(out: &mut String, text: &str) -> fmt::Result {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c))?,
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(())
}
