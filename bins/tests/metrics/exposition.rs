//! A parser of the text format 0.0.4 and of OpenMetrics 1.0 that accepts nothing doubtful.
//!
//! It knows only what the two formats say, and nothing of the registry that prints them. No program has exemplars,
//! timestamps, summaries, info metrics or state sets, so these are refused as well.

use std::collections::BTreeSet;

#[path = "exposition/histogram.rs"]
mod histogram;
#[path = "exposition/line.rs"]
mod line;

pub(crate) use line::Sample;

/// Which of the formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>
    Text,
    /// <https://prometheus.io/docs/specs/om/open_metrics_spec/>
    Open,
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// Any numbers, of which a scraper is told nothing.
    Untyped,
}

impl Kind {
    /// The word for it in documentation.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Untyped => "untyped",
        }
    }

    /// The ends that the names of samples may have beyond the family's, so that no other family may be called so.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total", "_created"],
            Self::Histogram => &["_bucket", "_sum", "_count", "_created"],
            Self::Gauge | Self::Untyped => &[],
        }
    }
}

/// A family with all of its samples.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

/// Reads all families, or says what is wrong.
pub(crate) fn parse(text: &str, format: Format) -> Result<Vec<Family>, String> {
    let body = match (format, text.strip_suffix("# EOF\n")) {
        (Format::Open, Some(body)) => body,
        (Format::Open, None) => return Err("the last line is not `# EOF`".into()),
        (Format::Text, _) => text,
    };
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("the last line is not ended".into());
    }
    let (mut families, mut help) = (Vec::<Family>::new(), None);
    for line in body.split_terminator('\n') {
        let wrong = |what: &str| format!("{what}: {line:?}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').ok_or_else(|| wrong("no help"))?;
            let text = line::unescape(text, format == Format::Open).ok_or_else(|| wrong("bad escape"))?;
            if text.is_empty() || help.replace((name, text)).is_some() {
                return Err(wrong("no help, or help twice"));
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
            let kind = match (kind, format) {
                ("counter", _) => Kind::Counter,
                ("gauge", _) => Kind::Gauge,
                ("histogram", _) => Kind::Histogram,
                ("untyped", Format::Text) | ("unknown", Format::Open) => Kind::Untyped,
                _ => return Err(wrong("unknown type")),
            };
            let (_, help) =
                help.take().filter(|(of, _)| *of == name).ok_or_else(|| wrong("a type without help"))?;
            if !line::is_name(name) || families.iter().any(|family| family.name == name) {
                return Err(wrong("no name, or a family twice"));
            }
            families.push(Family { name: name.to_owned(), kind, help, samples: Vec::new() });
        } else {
            let sample = line::parse(line, format).ok_or_else(|| wrong("no sample"))?;
            let family = families.last_mut().filter(|_| help.is_none()).ok_or_else(|| wrong("no family"))?;
            if !is_of(&sample, family, format) {
                return Err(wrong("not a sample of the family before it"));
            }
            family.samples.push(sample);
        }
    }
    if help.is_some() {
        return Err("help without a type".into());
    }
    families.iter().try_for_each(|family| whole(family, format))?;
    apart(&families)?;
    Ok(families)
}

/// Whether the name of a sample is one of the family's.
fn is_of(sample: &Sample, family: &Family, format: Format) -> bool {
    let Some(suffix) = sample.name.strip_prefix(&family.name) else { return false };
    match (family.kind, format) {
        (Kind::Histogram, _) => ["_bucket", "_sum", "_count"].contains(&suffix),
        (Kind::Counter, Format::Open) => suffix == "_total",
        _ => suffix.is_empty(),
    }
}

/// Checks what the samples of a family say together.
fn whole(family: &Family, format: Format) -> Result<(), String> {
    let name = &family.name;
    if family.samples.is_empty() {
        return Err(format!("{name} has no sample"));
    }
    let series: BTreeSet<String> = family.samples.iter().map(Sample::series).collect();
    if series.len() != family.samples.len() {
        return Err(format!("{name} has a series twice"));
    }
    let names = |sample: &Sample| -> BTreeSet<String> {
        let own = sample.labels.iter().filter(|(key, _)| !["le", "stat"].contains(&key.as_str()));
        own.map(|(key, _)| key.clone()).collect()
    };
    let first = names(&family.samples[0]);
    if let Some(other) = family.samples.iter().find(|sample| names(sample) != first) {
        return Err(format!("{} has other labels than its family", other.series()));
    }
    if family.kind == Kind::Counter {
        let is_count = |sample: &Sample| sample.value.is_finite() && sample.value >= 0.0;
        if let Some(odd) = family.samples.iter().find(|sample| !is_count(sample)) {
            return Err(format!("the counter {} is {}", odd.series(), odd.value));
        }
    }
    if family.kind == Kind::Histogram { histogram::check(family, format) } else { Ok(()) }
}

/// Names of families must not be confused with those of samples of others.
fn apart(families: &[Family]) -> Result<(), String> {
    let names: BTreeSet<&str> = families.iter().map(|family| &*family.name).collect();
    for family in families {
        for suffix in family.kind.suffixes() {
            let taken = format!("{}{suffix}", family.name);
            if names.contains(&*taken) {
                return Err(format!("{taken} is a family and a sample of {}", family.name));
            }
        }
    }
    Ok(())
}

#[path = "exposition/tests.rs"]
mod tests;
