//! The last ten minutes in a ring of fixed size.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::millis;
use super::model::Point;
use super::model::Traffic;

/// How many intervals are remembered.
pub const LOOKS: usize = 120;

/// What a program has served since its start.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Totals {
    /// `connections` or `requests`.
    pub unit: &'static str,
    /// How many have ended.
    pub ended: u64,
    /// How many of them ended badly.
    pub failed: u64,
    /// How many of them were over TLS, where that is known.
    pub tls: Option<u64>,
    /// How many go on.
    pub in_flight: u64,
    /// How many took at most so many seconds; the last bound is infinite.
    pub latency: Vec<(f64, u64)>,
}

/// Looks at the totals, and what was between them.
#[derive(Debug, Default)]
pub(super) struct History {
    last: Option<(Instant, Totals)>,
    /// The last interval's end, and what happened in it.
    points: VecDeque<(Instant, Point)>,
}

impl History {
    /// Remembers a look.
    pub(super) fn push(&mut self, now: Instant, totals: Totals) {
        if let Some((before, old)) = &self.last {
            if self.points.len() == LOOKS {
                self.points.pop_front();
            }
            let seconds = now.duration_since(*before).as_secs_f64();
            self.points.push_back((now, between(old, &totals, seconds)));
        }
        self.last = Some((now, totals));
    }

    /// The points, the oldest first.
    pub(super) fn points(&self) -> Vec<Point> {
        let ago = |(at, point): &(Instant, Point)| Point { ago_ms: millis(at.elapsed()), ..*point };
        self.points.iter().map(ago).collect()
    }

    /// Totals with the recent past: the last whole interval.
    pub(super) fn traffic(&self, now: Instant, totals: Totals) -> Traffic {
        let recent = match (self.points.back(), &self.last) {
            (Some((at, point)), _) => Point { ago_ms: millis(now.duration_since(*at)), ..*point },
            // The first interval is still going on.
            (None, Some((before, old))) => {
                between(old, &totals, now.duration_since(*before).as_secs_f64().max(1.0))
            }
            (None, None) => Point::default(),
        };
        Traffic {
            unit: totals.unit.to_owned(),
            ended: totals.ended,
            failed: totals.failed,
            in_flight: totals.in_flight,
            recent,
        }
    }
}

/// What happened from one look to the next.
fn between(old: &Totals, new: &Totals, seconds: f64) -> Point {
    // Series of what has left are forgotten, and take their counts with them.
    let grown = |of: fn(&Totals) -> u64| of(new).saturating_sub(of(old));
    let (ended, failed) = (grown(|it| it.ended), grown(|it| it.failed));
    let tls = new.tls.map(|_| grown(|it| it.tls.unwrap_or_default()));
    let share = |part: u64| (ended > 0).then(|| (part as f64 / ended as f64).min(1.0));
    let counts: Vec<(f64, u64)> = new
        .latency
        .iter()
        .enumerate()
        .map(|(n, (bound, count))| {
            (*bound, count.saturating_sub(old.latency.get(n).map_or(0, |(_, count)| *count)))
        })
        .collect();
    Point {
        ago_ms: 0,
        rate: (seconds > 0.0).then(|| ended as f64 / seconds),
        success: share(ended.saturating_sub(failed)),
        tls: tls.and_then(share),
        p50_ms: percentile(&counts, 0.50),
        p95_ms: percentile(&counts, 0.95),
        p99_ms: percentile(&counts, 0.99),
    }
}

/// The value in milliseconds below which this share lies, taken to lie evenly between the bounds of its bucket; beyond the
/// last bound, that bound. As Prometheus' `histogram_quantile` has it.
fn percentile(cumulative: &[(f64, u64)], share: f64) -> Option<f64> {
    let all = cumulative.last().map(|(_, count)| *count).filter(|all| *all > 0)?;
    let rank = share * all as f64;
    let at = cumulative.iter().position(|(_, count)| *count as f64 >= rank)?;
    let (from, below) = if at == 0 { (0.0, 0) } else { cumulative[at - 1] };
    let (to, count) = cumulative[at];
    if to.is_infinite() {
        return Some(from * 1e3);
    }
    let within = (rank - below as f64) / count.saturating_sub(below).max(1) as f64;
    Some((from + (to - from) * within) * 1e3)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;

    use super::*;

    fn totals(ended: u64, failed: u64, fast: u64) -> Totals {
        let latency = vec![(0.001, fast), (0.01, ended), (f64::INFINITY, ended)];
        Totals { unit: "connections", ended, failed, tls: Some(ended / 2), in_flight: 3, latency }
    }

    #[tokio::test(start_paused = true)]
    async fn a_point_is_what_happened_between_two_looks() {
        let mut history = History::default();
        history.push(Instant::now(), totals(100, 0, 100));
        time::advance(Duration::from_secs(5)).await;
        history.push(Instant::now(), totals(200, 10, 150));
        time::advance(Duration::from_secs(2)).await;

        let [point] = history.points()[..] else { panic!("{:?}", history.points()) };

        assert_eq!(
            (point.ago_ms, point.rate, point.success, point.tls),
            (2_000, Some(20.0), Some(0.9), Some(0.5))
        );
        assert_eq!(point.p50_ms, Some(1.0));
        let p99 = point.p99_ms.expect("connections have ended");
        assert!((p99 - (1.0 + 9.0 * 49.0 / 50.0)).abs() < 1e-6, "{p99}");
        let traffic = history.traffic(Instant::now(), totals(201, 10, 150));
        assert_eq!((traffic.ended, traffic.failed, traffic.in_flight), (201, 10, 3));
        assert_eq!(traffic.recent.rate, Some(20.0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_past_has_an_end() {
        let mut history = History::default();
        for n in 0..500 {
            history.push(Instant::now(), totals(n, 0, n));
            time::advance(Duration::from_secs(5)).await;
        }

        let points = history.points();

        assert_eq!(points.len(), LOOKS);
        assert_eq!(points.first().map(|point| point.ago_ms), Some(600_000));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_said_about_what_did_not_happen() {
        let mut history = History::default();
        history.push(Instant::now(), totals(7, 0, 7));
        time::advance(Duration::from_secs(5)).await;
        // What was counted before may have been forgotten.
        history.push(Instant::now(), totals(0, 0, 0));

        let [point] = history.points()[..] else { panic!("{:?}", history.points()) };

        assert_eq!(point, Point { rate: Some(0.0), ..Point::default() });
    }

    #[test]
    fn beyond_the_last_bound_nothing_is_known() {
        assert_eq!(percentile(&[(1.0, 0), (f64::INFINITY, 5)], 0.5), Some(1_000.0));
        assert_eq!(percentile(&[(1.0, 0), (f64::INFINITY, 0)], 0.5), None);
        assert_eq!(percentile(&[], 0.5), None);
    }
}
