//! From samples to tables and ratios.

use serde_json::{Value, json};

use crate::peer::{Kind, Peer};
use crate::sample::Sample;
use crate::workload::{Better, Load, Workload};

/// All samples of one workload.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The workload.
    pub(crate) workload: Workload,
    /// Contenders with their samples, in the order of the report.
    pub(crate) rows: Vec<(Peer, Vec<Sample>)>,
    /// Names and reasons of those that were not measured.
    pub(crate) left_out: Vec<(String, String)>,
}

/// Ours against the best peer, for one figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ratio {
    /// The workload.
    pub(crate) workload: &'static str,
    /// The figure.
    pub(crate) figure: &'static str,
    /// Which of our programs.
    pub(crate) ours: String,
    /// Its median.
    pub(crate) value: f64,
    /// The best peer.
    pub(crate) rival: String,
    /// That peer's median.
    pub(crate) rival_value: f64,
    /// Above 1 means ours is better.
    pub(crate) ratio: f64,
}

impl Measured {
    /// The ratios of each of our programs.
    pub(crate) fn ratios(&self) -> Vec<Ratio> {
        let mut ratios = Vec::new();
        for (peer, samples) in self.rows.iter().filter(|(peer, _)| peer.kind == Kind::Ours) {
            for (i, figure) in self.workload.load.figures().iter().enumerate() {
                let Some((value, ..)) = spread(samples, i) else {
                    continue;
                };
                let Some((rival, rival_value)) = self.best_rival(i, figure.better) else {
                    continue;
                };
                let ratio = match figure.better {
                    Better::Higher => value / rival_value,
                    Better::Lower => rival_value / value,
                    Better::Neither => continue,
                };
                ratios.push(Ratio {
                    workload: self.workload.name,
                    figure: figure.name,
                    ours: peer.name.clone(),
                    value,
                    rival: rival.to_owned(),
                    rival_value,
                    ratio,
                });
            }
        }
        ratios
    }

    /// The table of this workload.
    pub(crate) fn table(&self) -> String {
        let figures = self.workload.load.figures();
        let mut head = vec![String::new()];
        head.extend(figures.iter().map(|figure| figure.name.to_owned()));
        head.extend(["proxy core", "load core", "failed"].map(String::from));
        let mut lines = vec![head];
        for (peer, samples) in self.rows.iter().filter(|(_, samples)| !samples.is_empty()) {
            let mut line = vec![peer.name.clone()];
            line.extend((0..figures.len()).map(|i| cell(samples, i)));
            line.push(percent(samples, |sample| sample.proxy_busy));
            line.push(percent(samples, |sample| sample.load_busy));
            line.push(samples.iter().map(|sample| sample.errors).sum::<u64>().to_string());
            lines.push(line);
        }
        let mut text = format!("{}: {}\n{}", self.workload.name, self.workload.about, align(&lines));
        for ratio in self.ratios() {
            let Ratio { ours, figure, ratio, rival, .. } = ratio;
            text.push_str(&format!("  {ours} {figure}: {ratio:.2} of {rival}\n"));
        }
        for (name, reason) in &self.left_out {
            text.push_str(&format!("  left out: {name}: {reason}\n"));
        }
        for (peer, samples) in &self.rows {
            if let Some(error) = samples.iter().find_map(|sample| sample.last_error.as_ref()) {
                text.push_str(&format!("  {} failed some: {error}\n", peer.name));
            }
        }
        text.push_str(&self.doubts());
        text
    }

    /// Everything, for machines.
    pub(crate) fn json(&self) -> Value {
        let names: Vec<_> = self.workload.load.figures().iter().map(|figure| figure.name).collect();
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(peer, samples)| {
                let samples: Vec<Value> = samples
                    .iter()
                    .map(|sample| {
                        json!({
                            "values": sample.values, "proxy_core_busy": sample.proxy_busy,
                            "load_core_busy": sample.load_busy, "foreign": sample.foreign,
                            "load_foreign": sample.load_foreign,
                            "errors": sample.errors, "last_error": sample.last_error,
                        })
                    })
                    .collect();
                json!({"peer": peer.name, "samples": samples})
            })
            .collect();
        let ratios: Vec<Value> = self
            .ratios()
            .into_iter()
            .map(|r| json!({"ours": r.ours, "figure": r.figure, "ratio": r.ratio, "rival": r.rival}))
            .collect();
        let left_out: Vec<Value> =
            self.left_out.iter().map(|(name, reason)| json!({"peer": name, "reason": reason})).collect();
        json!({
            "workload": self.workload.name, "figures": names, "rows": rows, "ratios": ratios,
            "left_out": left_out,
        })
    }

    fn best_rival(&self, figure: usize, better: Better) -> Option<(&str, f64)> {
        let medians = self.rows.iter().filter(|(peer, _)| peer.is_rival()).filter_map(|(peer, samples)| {
            let (median, ..) = spread(samples, figure)?;
            Some((peer.name.as_str(), median))
        });
        match better {
            Better::Lower => medians.min_by(|a, b| a.1.total_cmp(&b.1)),
            Better::Higher | Better::Neither => medians.max_by(|a, b| a.1.total_cmp(&b.1)),
        }
    }

    /// Who had to share a core with other work, and where the load was the limit.
    fn doubts(&self) -> String {
        // Memory does not mind.
        if self.workload.load == Load::Idle {
            return String::new();
        }
        let line = |text: &str, doubtful: fn(&Sample) -> bool| {
            let some = self.rows.iter().filter(|(_, samples)| samples.iter().any(doubtful));
            let names: Vec<_> = some.map(|(peer, _)| peer.name.as_str()).collect();
            if names.is_empty() { String::new() } else { format!("  {text}: {}\n", names.join(", ")) }
        };
        line("other work on the proxy core", |sample| sample.foreign > FOREIGN)
            + &line("other work on the load core", |sample| sample.load_foreign > FOREIGN)
            + &line("the load core was the limit, CPU per unit says more than the rate", |sample| {
                sample.load_busy > 0.97 && sample.proxy_busy - sample.foreign < 0.9
            })
    }
}

/// The closing table: every ratio.
pub(crate) fn summary(all: &[Measured]) -> String {
    let ratios: Vec<Ratio> = all.iter().flat_map(Measured::ratios).collect();
    if ratios.is_empty() {
        return "No ratios: they need our program and at least one peer.\n".into();
    }
    let head = ["workload", "figure", "ours", "value", "best peer", "value", "ratio"];
    let mut lines = vec![head.map(String::from).to_vec()];
    lines.extend(ratios.into_iter().map(|r| {
        let ratio = format!("{:.2}", r.ratio);
        vec![r.workload.into(), r.figure.into(), r.ours, short(r.value), r.rival, short(r.rival_value), ratio]
    }));
    format!(
        "Ratio against the best peer; above 1 means ours is better, below 5 % is noise\n{}",
        align(&lines)
    )
}

/// Median, minimum and maximum of one figure over the samples; nothing without a finite value.
fn spread(samples: &[Sample], figure: usize) -> Option<(f64, f64, f64)> {
    let values = samples.iter().filter_map(|sample| sample.values.get(figure).copied());
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    Some((median(&values)?, *values.first()?, *values.last()?))
}

/// The middle of sorted values; the mean of the two in the middle if their number is even.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(sorted[sorted.len() / 2 - 1], upper)) }
}

fn cell(samples: &[Sample], figure: usize) -> String {
    match spread(samples, figure) {
        None => "-".into(),
        Some((median, ..)) if samples.len() == 1 => short(median),
        Some((median, min, max)) => format!("{} ({}..{})", short(median), short(min), short(max)),
    }
}

fn percent(samples: &[Sample], part: impl Fn(&Sample) -> f64) -> String {
    let mut values: Vec<f64> = samples.iter().map(part).collect();
    values.sort_by(f64::total_cmp);
    format!("{:.0} %", 100.0 * median(&values).unwrap_or_default())
}

/// Three significant digits, thousands as k.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 99_950.0 => format!("{:.0}k", value / 1000.0),
        v if v >= 9_995.0 => format!("{:.1}k", value / 1000.0),
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Columns padded to their widest cell, the first to the left and the others to the right.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| lines.iter().filter_map(|line| line.get(i)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (i, (cell, width)) in line.iter().zip(&widths).enumerate() {
            text.push_str(&if i == 0 { format!("  {cell:width$}") } else { format!("  {cell:>width$}") });
        }
        text.push('\n');
    }
    text
}

/// The share of a core that others may take before a sample is doubted.
pub(crate) const FOREIGN: f64 = 0.08;

#[cfg(test)]
mod tests;
