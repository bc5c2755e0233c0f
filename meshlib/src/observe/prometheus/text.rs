//! The two text formats.
//!
//! A histogram becomes three families: its own, and `name_min` and `name_max` as gauges, because neither
//! format knows a smallest and largest value in a histogram and OpenMetrics forbids foreign lines between
//! those of a family.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::Arc;

use super::families::{Family, Kind};
use super::format::Format;
use super::labels::Labels;
use super::sample::{self, Part};

/// A family with its lines written out.
struct Block<'a> {
    /// As in `# TYPE`. In OpenMetrics a counter's is its name without `_total`.
    name: String,
    kind: &'static str,
    help: &'a str,
    lines: String,
}

/// Families by name, but for one that comes before all others.
pub(super) fn render(families: &[(Arc<str>, Family)], format: Format, first: Option<&Arc<str>>) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _infallible = write_all(&mut out, families, format, first);
    out
}

fn write_all(
    out: &mut String,
    families: &[(Arc<str>, Family)],
    format: Format,
    first: Option<&Arc<str>>,
) -> fmt::Result {
    let names: HashSet<&str> = families.iter().map(|(name, _)| &**name).collect();
    let mut blocks = Vec::with_capacity(families.len());
    for (name, family) in families {
        let (block_name, kind) = header(name, family.kind, format, &names);
        let mut main = Block { name: block_name.into(), kind, help: &family.help, lines: String::new() };
        let [mut min, mut max] = ["_min", "_max"].map(|suffix| Block {
            name: format!("{name}{suffix}"),
            kind: "gauge",
            help: &family.help,
            lines: String::new(),
        });
        for (labels, series) in &family.series {
            for sample in sample::read(series, format) {
                let lines = match sample.part {
                    Part::Min => &mut min.lines,
                    Part::Max => &mut max.lines,
                    _ => &mut main.lines,
                };
                write_name(lines, name, sample.part, labels, format)?;
                writeln!(lines, " {}", sample.value)?;
            }
        }
        blocks.extend([main, min, max].into_iter().filter(|block| !block.lines.is_empty()));
    }
    let first = first.map(|first| &**first);
    blocks.sort_by(|a, b| (first != Some(&a.name), &a.name).cmp(&(first != Some(&b.name), &b.name)));
    for block in &blocks {
        if !block.help.is_empty() {
            write!(out, "# HELP {} ", block.name)?;
            write_escaped(out, block.help, format == Format::OpenMetrics)?;
            out.push('\n');
        }
        write!(out, "# TYPE {} {}\n{}", block.name, block.kind, block.lines)?;
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    Ok(())
}

/// The name and type in the header of a family.
fn header<'a>(name: &'a str, kind: Kind, format: Format, names: &HashSet<&str>) -> (&'a str, &'static str) {
    match (kind, format) {
        (Kind::Gauge, _) => (name, "gauge"),
        (Kind::Histogram(_), _) => (name, "histogram"),
        (Kind::Counter, Format::Text004) => (name, "counter"),
        (Kind::Distribution, Format::Text004) => (name, "untyped"),
        (Kind::Distribution, Format::OpenMetrics) => (name, "unknown"),
        // OpenMetrics 1.0, "Counter": the line of a counter is named after the family with `_total` added.
        // Another family may have that name already, as `bytes` beside `bytes_total`.
        (Kind::Counter, Format::OpenMetrics) => match name.strip_suffix("_total") {
            Some(base) if !base.is_empty() && !shadows(base, names) => (base, "counter"),
            _ => (name, "unknown"),
        },
    }
}

/// Whether a family called `base` is there, also as the smallest or largest value of a histogram.
fn shadows(base: &str, names: &HashSet<&str>) -> bool {
    let extremes_of = ["_min", "_max"].iter().filter_map(|suffix| base.strip_suffix(suffix));
    names.contains(base) || extremes_of.into_iter().any(|name| names.contains(name))
}

/// Writes `name{key="value", ..}` of one sample.
pub(super) fn write_name(
    out: &mut String,
    name: &str,
    part: Part,
    labels: &Labels,
    format: Format,
) -> fmt::Result {
    // OpenMetrics 1.0, "ABNF": no space between labels.
    let comma = if format == Format::OpenMetrics { "," } else { ", " };
    out.push_str(name);
    out.push_str(part.suffix());
    let first = part.label(format);
    let first = first.as_ref().map(|(key, value)| (*key, value.as_ref()));
    let mut separator = "{";
    for (key, value) in first.into_iter().chain(labels.iter()) {
        write!(out, "{separator}{key}=\"")?;
        write_escaped(out, value, true)?;
        out.push('"');
        separator = comma;
    }
    if separator == comma {
        out.push('}');
    }
    Ok(())
}

/// Escapes what would end the text early. Help in the older format keeps its quotes.
fn write_escaped(out: &mut String, text: &str, quotes: bool) -> fmt::Result {
    for c in text.chars() {
        match c {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '"' if quotes => out.write_str("\\\"")?,
            c => out.write_char(c)?,
        }
    }
    Ok(())
}
