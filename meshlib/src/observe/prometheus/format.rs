//! Which text a scraper gets.

/// A text format for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// The Prometheus text format 0.0.4, in the shape of the programs whose names are kept: labels
    /// separated by `, `, numbers without a needless fraction, and `name_count 0` alone for an empty
    /// histogram.
    #[default]
    Text004,
    /// OpenMetrics 1.0. Every line has the same name as in [`Format::Text004`]. The differences are those
    /// the standard asks for:
    ///
    /// - Labels are separated by `,` and whole bounds are written as `1.0`.
    /// - A counter must be called `name_total`. One that is not has the type `unknown`, as has one whose
    ///   `name` is also a metric.
    /// - An empty histogram has all its buckets.
    /// - The last line is `# EOF`.
    OpenMetrics,
}

impl Format {
    /// The format for an `Accept` header.
    ///
    /// [`Format::OpenMetrics`] if it is named, in version 1.0.0 or none, and liked at least as well as
    /// plain text; [`Format::Text004`] in all other cases, also for a header that makes no sense.
    ///
    /// ```
    /// use meshlib::observe::prometheus::Format;
    ///
    /// let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4,*/*;q=0.1";
    /// assert_eq!(Format::from_accept(Some(accept)), Format::OpenMetrics);
    /// assert_eq!(Format::from_accept(Some("text/html,*/*;q=0.8")), Format::Text004);
    /// assert_eq!(Format::from_accept(None), Format::Text004);
    /// ```
    pub fn from_accept(accept: Option<&str>) -> Self {
        let (mut open, mut plain) = (0, 0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let (mut version, mut quality) = (None, Some(1000));
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                let value = value.trim().trim_matches('"');
                match key.trim() {
                    key if key.eq_ignore_ascii_case("q") => quality = thousandths(value),
                    key if key.eq_ignore_ascii_case("version") => version = Some(value),
                    _ => {}
                }
            }
            let quality = quality.unwrap_or(0);
            if media.eq_ignore_ascii_case("application/openmetrics-text")
                && version.is_none_or(|version| version == "1.0.0")
            {
                open = quality.max(open);
            } else if media.eq_ignore_ascii_case("text/plain") {
                plain = quality.max(plain);
            }
        }
        if open > 0 && open >= plain { Self::OpenMetrics } else { Self::Text004 }
    }
}

/// The `Content-Type` of a rendering.
pub const fn content_type(format: Format) -> &'static str {
    match format {
        Format::Text004 => "text/plain; version=0.0.4; charset=utf-8",
        Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    }
}

/// A weight from 0 to 1, RFC 9110 section 12.4.2, in thousandths.
fn thousandths(value: &str) -> Option<u32> {
    let weight: f64 = value.parse().ok()?;
    (0.0..=1.0).contains(&weight).then_some((weight * 1000.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers_seen_in_the_field() {
        let open = [
            "application/openmetrics-text",
            "application/openmetrics-text; version=0.0.1,application/openmetrics-text;q=0.9,text/plain;q=0.5",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;q=0.4",
            "text/plain;q=0.5, APPLICATION/OpenMetrics-Text;Version=\"1.0.0\";Q=0.5",
        ];
        for accept in open {
            assert_eq!(Format::from_accept(Some(accept)), Format::OpenMetrics, "{accept}");
        }
        let text = [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;q=0.3,text/plain;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=lots",
            ";;,;q=,=",
        ];
        for accept in text {
            assert_eq!(Format::from_accept(Some(accept)), Format::Text004, "{accept:?}");
        }
    }
}
