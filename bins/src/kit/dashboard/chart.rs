//! A number over the last ten minutes, as a line.

use std::fmt::Write;

use crate::kit::state::INTERVAL;
use crate::kit::state::LOOKS;
use crate::kit::state::Point;

use super::html::Html;
use super::words;

/// Units across, one for each second.
const WIDTH: f64 = INTERVAL.as_secs_f64() * LOOKS as f64;
/// Units from the least value to the most. Above and below there is room for the width of the line.
const HEIGHT: f64 = 100.0;

/// How values become heights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero to the largest.
    FromZero,
    /// From zero to all.
    Share,
    /// Up to all, from as far below as there are values: what is missing from all of it matters.
    UpToAll,
}

/// A line to be drawn.
pub(super) struct Chart<'a> {
    /// What is shown, for those who do not see it.
    pub(super) name: &'a str,
    /// The last ten minutes, the oldest first.
    pub(super) history: &'a [Point],
    /// Which of the numbers.
    pub(super) of: fn(&Point) -> Option<f64>,
    /// How a number is said.
    pub(super) say: fn(f64) -> String,
    pub(super) scale: Scale,
}

impl Chart<'_> {
    /// Writes the picture, and below it what it ranges over.
    pub(super) fn write(&self, html: &mut Html, now: Option<f64>) {
        let range = self.range();
        let now = words::known(now, self.say);
        let label = match range {
            Some((least, most)) => format!(
                "{} over the last ten minutes: now {now}, lowest {}, highest {}",
                self.name,
                (self.say)(least),
                (self.say)(most)
            ),
            None => format!("{} over the last ten minutes: nothing is known yet", self.name),
        };
        html.markup("<svg class=\"line\" role=\"img\" viewBox=\"0 -6 600 112\" preserveAspectRatio=\"none\"");
        html.attribute("aria-label", label).markup(">");
        html.markup("<path class=\"base\" d=\"M0 100H600\"/>");
        if let Some((least, most)) = range {
            let paths = self.paths(least, most);
            html.markup("<path class=\"area\"").attribute("d", paths.area).markup("/>");
            html.markup("<path class=\"stroke\"").attribute("d", paths.line).markup("/>");
            html.markup("<path class=\"last\"").attribute("d", paths.last).markup("/>");
        }
        html.markup("</svg><p class=\"range\">");
        match range {
            Some((least, most)) if least == most => html.text((self.say)(least)).markup(" all along"),
            Some((least, most)) => html.text((self.say)(least)).markup(" to ").text((self.say)(most)),
            None => html.markup("nothing yet"),
        };
        html.markup("</p>");
    }

    /// The least and the most of what is known.
    fn range(&self) -> Option<(f64, f64)> {
        let values = self.history.iter().filter_map(self.of).filter(|value| value.is_finite());
        values.fold(None, |range, value| {
            let (least, most) = range.unwrap_or((value, value));
            Some((value.min(least), value.max(most)))
        })
    }

    fn paths(&self, least: f64, most: f64) -> Paths {
        let (bottom, top) = match self.scale {
            Scale::FromZero => (0.0, if most > 0.0 { most } else { 1.0 }),
            Scale::Share => (0.0, 1.0),
            Scale::UpToAll => ([0.99, 0.9, 0.5].into_iter().find(|it| *it <= least).unwrap_or(0.0), 1.0),
        };
        let mut paths = Paths::default();
        // Where the part of the line that goes on began and is now. Where nothing is known there is no line.
        let mut going: Option<(f64, f64)> = None;
        for point in self.history {
            let x = (WIDTH - point.ago_ms as f64 / 1e3).clamp(0.0, WIDTH).round();
            let value = (self.of)(point).filter(|value| value.is_finite());
            let Some(value) = value else {
                paths.close(going.take());
                continue;
            };
            let y = (HEIGHT * (1.0 - (value - bottom) / (top - bottom))).clamp(0.0, HEIGHT).round();
            let step = if going.is_none() { 'M' } else { 'L' };
            // Writing to a string cannot fail.
            let _ = write!(paths.line, "{step}{x} {y}");
            let _ = match going {
                None => write!(paths.area, "M{x} {HEIGHT}V{y}"),
                Some(_) => write!(paths.area, "L{x} {y}"),
            };
            going = Some((going.map_or(x, |(from, _)| from), x));
            paths.last = format!("M{x} {y}h0");
        }
        paths.close(going);
        paths
    }
}

/// The shapes of a line, in SVG's path language.
#[derive(Default)]
struct Paths {
    line: String,
    area: String,
    last: String,
}

impl Paths {
    fn close(&mut self, going: Option<(f64, f64)>) {
        let Some((from, to)) = going else { return };
        let _ = write!(self.area, "V{HEIGHT}Z");
        if from == to {
            // A single point is seen as a dot, by the round ends of the stroke.
            self.line.push_str("h0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(rates: &[Option<f64>]) -> (Paths, String) {
        let looks = rates.len() as u64;
        let point = |(n, rate): (usize, &Option<f64>)| Point {
            ago_ms: (looks - 1 - n as u64) * 5_000,
            rate: *rate,
            ..Point::default()
        };
        let history: Vec<_> = rates.iter().enumerate().map(point).collect();
        let chart = Chart {
            name: "Rate",
            history: &history,
            of: |point| point.rate,
            say: words::rate,
            scale: Scale::FromZero,
        };
        let mut html = Html::default();
        chart.write(&mut html, rates.last().copied().flatten());
        let (least, most) = chart.range().unwrap_or_default();
        (chart.paths(least, most), html.into_string())
    }

    #[test]
    fn a_line_ends_now_and_is_as_high_as_its_largest_value() {
        let (paths, html) = drawn(&[Some(0.0), Some(20.0), Some(10.0)]);

        assert_eq!(paths.line, "M590 100L595 0L600 50");
        assert_eq!(paths.area, "M590 100V100L595 0L600 50V100Z");
        assert_eq!(paths.last, "M600 50h0");
        let label = "aria-label=\"Rate over the last ten minutes: now 10, lowest 0, highest 20\"";
        assert!(html.contains(label) && html.contains("role=\"img\""), "{html}");
    }

    #[test]
    fn there_is_no_line_where_nothing_is_known() {
        let (paths, _) = drawn(&[Some(1.0), None, Some(1.0), Some(1.0), None]);

        assert_eq!(paths.line, "M580 0h0M590 0L595 0");
        assert_eq!(paths.area, "M580 100V0V100ZM590 100V0L595 0V100Z");
    }

    #[test]
    fn what_is_not_known_at_all_is_said_so() {
        for rates in [&[][..], &[None], &[Some(f64::NAN)]] {
            let (paths, html) = drawn(rates);

            assert!(paths.line.is_empty() && html.contains("nothing is known yet"), "{html}");
        }
    }
}
