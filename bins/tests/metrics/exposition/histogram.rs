//! What the samples of a histogram say together.

use super::Family;
use super::Format;
use super::Sample;

/// The samples of one set of labels, as far as they were read.
struct Metric<'a> {
    labels: Vec<&'a (String, String)>,
    buckets: Vec<(f64, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
}

pub(super) fn check(family: &Family, format: Format) -> Result<(), String> {
    let mut metrics: Vec<Metric<'_>> = Vec::new();
    for sample in &family.samples {
        let wrong = |what: &str| format!("{what}: {}", sample.series());
        let labels: Vec<_> = sample.labels.iter().filter(|(key, _)| key != "le").collect();
        if metrics.last().is_none_or(|metric| metric.labels != labels) {
            if metrics.iter().any(|metric| metric.labels == labels) {
                return Err(wrong("lines of other series between"));
            }
            metrics.push(Metric { labels, buckets: Vec::new(), sum: None, count: None });
        }
        let metric = metrics.last_mut().expect("one was added if there was none");
        let is_bucket = sample.name.ends_with("_bucket");
        if is_bucket != sample.label("le").is_some() {
            return Err(wrong("`le` is for buckets, which need it"));
        }
        if is_bucket {
            let bound = bound(sample, format).ok_or_else(|| wrong("no bound"))?;
            metric.buckets.push((bound, sample.value));
        } else if sample.name.ends_with("_sum") {
            metric.sum = Some(sample.value);
        } else {
            metric.count = Some(sample.value);
        }
    }
    metrics.iter().try_for_each(|metric| {
        whole(metric, format).map_err(|what| format!("{} {:?}: {what}", family.name, metric.labels))
    })
}

/// OpenMetrics 1.0, "Considerations: Canonical Numbers": a bound has a fraction or an exponent.
fn bound(bucket: &Sample, format: Format) -> Option<f64> {
    match bucket.label("le")? {
        "+Inf" => Some(f64::INFINITY),
        text if format == Format::Open && !text.contains(['.', 'e']) => None,
        text => text.parse().ok().filter(|bound: &f64| bound.is_finite()),
    }
}

/// Buckets ascend in bound and count, and the last of them has everything.
fn whole(metric: &Metric<'_>, format: Format) -> Result<(), &'static str> {
    let count = metric.count.filter(|count| *count >= 0.0 && count.fract() == 0.0).ok_or("no count")?;
    if format == Format::Text && count == 0.0 && metric.buckets.is_empty() && metric.sum.is_none() {
        // The originals print a count alone of what was never observed.
        return Ok(());
    }
    let sum = metric.sum.filter(|sum| sum.is_finite()).ok_or("no sum")?;
    let ascends = metric.buckets.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1);
    if !ascends || metric.buckets.first().is_none_or(|first| first.1 < 0.0) {
        return Err("buckets do not ascend");
    }
    if metric.buckets.last() != Some(&(f64::INFINITY, count)) {
        return Err("the last bucket has not everything");
    }
    // All that is measured here is a time or a size.
    if sum < 0.0 || (count == 0.0 && sum != 0.0) { Err("a sum that cannot be") } else { Ok(()) }
}
