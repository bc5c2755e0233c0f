//! A parser of both text formats that accepts nothing but what this registry should print.

use std::collections::{BTreeSet, HashMap};

use super::super::{Format, is_valid_label, is_valid_name};

#[derive(Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
}

/// Checks every line and what lines say together, and returns the samples.
pub(super) fn check(text: &str, format: Format) -> Result<Vec<Sample>, String> {
    let open = format == Format::OpenMetrics;
    let body = match (open, text.strip_suffix("# EOF\n")) {
        (true, Some(body)) => body,
        (false, None) => text,
        _ => return Err("end of file marked wrongly".into()),
    };
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("last line not ended".into());
    }
    let (mut families, mut samples) = (Vec::<(&str, &str)>::new(), Vec::new());
    let mut helped = None;
    for line in body.split_terminator('\n') {
        let at = |problem: &str| format!("{problem}: {line:?}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(|| at("no help"))?;
            unescape(help, open).ok_or_else(|| at("bad escape"))?;
            helped = Some(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| at("no type"))?;
            let other = if open { "unknown" } else { "untyped" };
            if !is_valid_name(name) || !["counter", "gauge", "histogram", other].contains(&kind) {
                return Err(at("bad type"));
            }
            if helped.take().is_some_and(|helped| helped != name) {
                return Err(at("help of another family before"));
            }
            // The number of series comes before all others.
            let is_ordered = |last: &str| last < name || families.len() == 1 && last == "metrics_count";
            let is_repeated = families.iter().any(|(other, _)| *other == name);
            if is_repeated || families.last().is_some_and(|(last, _)| !is_ordered(last)) {
                return Err(at("families out of order or repeated"));
            }
            families.push((name, kind));
        } else {
            let sample = parse(line, open).ok_or_else(|| at("not a sample"))?;
            let (family, kind) = families.last().ok_or_else(|| at("no family"))?;
            let suffix = sample.name.strip_prefix(family).ok_or_else(|| at("other family"))?;
            let fits = match *kind {
                "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
                "counter" if open => suffix == "_total",
                _ => suffix.is_empty(),
            };
            if !fits {
                return Err(at("suffix does not fit the type"));
            }
            samples.push(sample);
        }
    }
    let unique: BTreeSet<_> = samples.iter().map(|sample| (&sample.name, &sample.labels)).collect();
    if unique.len() != samples.len() {
        return Err("the same series twice".into());
    }
    for (family, _) in families.iter().filter(|(_, kind)| *kind == "histogram") {
        histogram(family, &samples, open)?;
    }
    Ok(samples)
}

/// Buckets ascend in bound and count and end with the count of the series.
fn histogram(family: &str, samples: &[Sample], open: bool) -> Result<(), String> {
    let mut last: HashMap<&[(String, String)], (f64, f64)> = HashMap::new();
    for sample in samples {
        let suffix = sample.name.strip_prefix(family).unwrap_or_default();
        if suffix == "_bucket" {
            let (le, labels) =
                sample.labels.split_first().filter(|(first, _)| first.0 == "le").ok_or("le not first")?;
            let bound: f64 = le.1.parse().map_err(|_| "bad bound")?;
            let before = last.insert(labels, (bound, sample.value)).unwrap_or((f64::NEG_INFINITY, 0.0));
            if before.0 >= bound || before.1 > sample.value {
                return Err(format!("buckets of {family} do not ascend"));
            }
        } else if suffix == "_count" {
            match last.get(&*sample.labels) {
                Some(end) if *end == (f64::INFINITY, sample.value) => {}
                None if sample.value == 0.0 && !open => {}
                end => {
                    return Err(format!("{family}_count {} with last bucket {end:?}", sample.value));
                }
            }
        }
    }
    Ok(())
}

fn parse(line: &str, open: bool) -> Option<Sample> {
    let (head, value) = line.rsplit_once(' ')?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number if number.bytes().all(|b| b.is_ascii_digit() || b"+-.e".contains(&b)) => {
            number.parse().ok()?
        }
        _ => return None,
    };
    let (name, mut rest) = match head.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}')?),
        None => (head, ""),
    };
    let mut labels = Vec::new();
    while !rest.is_empty() {
        if !labels.is_empty() {
            rest = rest.strip_prefix(if open { "," } else { ", " })?;
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = after.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        labels.push((key.to_owned(), unescape(&after[..end], true)?));
        rest = &after[end + 1..];
    }
    let own = labels.iter().map(|(key, _)| key).skip_while(|key| ["le", "stat"].contains(&key.as_str()));
    let valid = is_valid_name(name) && labels.iter().all(|(key, _)| is_valid_label(key)) && own.is_sorted();
    valid.then(|| Sample { name: name.to_owned(), labels, value })
}

fn unescape(text: &str, quotes: bool) -> Option<String> {
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
