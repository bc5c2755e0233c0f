//! The numbers a series consists of, common to all renderings.

use std::borrow::Cow;
use std::fmt;

use super::distribution::PERCENTILES;
use super::families::Series;
use super::format::Format;

/// One line of text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) part: Part,
    pub(super) value: Value,
}

/// Which number of a series this is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    Whole,
    Bucket(f64),
    Sum,
    Count,
    Min,
    Max,
    Stat(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

impl Part {
    /// What is added to the name.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Whole | Self::Stat(_) => "",
            Self::Bucket(_) => "_bucket",
            Self::Sum => "_sum",
            Self::Count => "_count",
            Self::Min => "_min",
            Self::Max => "_max",
        }
    }

    /// A label that comes before those of the series.
    pub(super) fn label(self, format: Format) -> Option<(&'static str, Cow<'static, str>)> {
        match (self, format) {
            (Self::Stat(stat), _) => Some(("stat", stat.into())),
            (Self::Bucket(f64::INFINITY), _) => Some(("le", "+Inf".into())),
            // OpenMetrics 1.0, "Considerations: Canonical Numbers": bounds have a fraction or an exponent.
            (Self::Bucket(bound), Format::OpenMetrics) => Some(("le", format!("{bound:?}").into())),
            (Self::Bucket(bound), Format::Text004) => Some(("le", format!("{bound}").into())),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Float(f64::INFINITY) => f.write_str("+Inf"),
            Self::Float(f64::NEG_INFINITY) => f.write_str("-Inf"),
            Self::Float(value) => value.fmt(f),
        }
    }
}

/// Reads a series. Calls functions, so the registry must not be locked.
pub(super) fn read(series: &Series, format: Format) -> Vec<Sample> {
    let sample = |part, value| Sample { part, value };
    match series {
        Series::Counter(counter) => vec![sample(Part::Whole, Value::Unsigned(counter.get()))],
        Series::Gauge(gauge) => vec![sample(Part::Whole, Value::Signed(gauge.get()))],
        Series::Function(function) => {
            let value = function.call();
            if value.is_nan() { Vec::new() } else { vec![sample(Part::Whole, Value::Float(value))] }
        }
        Series::Histogram(histogram) => {
            let reading = histogram.read();
            let count = sample(Part::Count, Value::Unsigned(reading.count));
            if reading.count == 0 && format == Format::Text004 {
                return vec![count];
            }
            let mut samples: Vec<_> = reading
                .cumulative
                .iter()
                .map(|(bound, count)| sample(Part::Bucket(*bound), Value::Unsigned(*count)))
                .collect();
            if let Some((min, max)) = reading.extremes {
                samples.extend([sample(Part::Min, Value::Float(min)), sample(Part::Max, Value::Float(max))]);
            }
            samples.extend([sample(Part::Sum, Value::Float(reading.sum)), count]);
            samples
        }
        Series::Distribution(distribution) => {
            let stat = |name, value| sample(Part::Stat(name), Value::Float(value));
            let mut samples = vec![sample(Part::Stat("count"), Value::Unsigned(distribution.count()))];
            if let Some(summary) = distribution.summary() {
                samples.extend([
                    stat("mean", summary.mean),
                    stat("min", summary.min),
                    stat("max", summary.max),
                    stat("stddev", summary.stddev),
                ]);
                samples.extend(
                    PERCENTILES.iter().zip(summary.percentiles).map(|((name, _), value)| stat(name, value)),
                );
            }
            samples
        }
    }
}
