//! What a registry holds: families of series by name, and the rules for adding to them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::distribution::Distribution;
use super::histogram::Histogram;
use super::labels::{Labels, MetricError, is_valid_name};
use super::number::{Counter, Gauge, ValueFn};

/// All families of a registry.
#[derive(Debug, Default)]
pub(super) struct Families(BTreeMap<Arc<str>, Family>);

/// Everything registered under one name.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) kind: Kind,
    pub(super) help: Arc<str>,
    pub(super) series: BTreeMap<Arc<Labels>, Series>,
}

#[derive(Clone, Debug)]
pub(super) enum Series {
    Counter(Counter),
    Gauge(Gauge),
    /// A counter or a gauge: the family knows.
    Function(ValueFn),
    Histogram(Histogram),
    Distribution(Distribution),
}

/// Bounds are part of the kind, because buckets of one name can only be added up if they agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
    Distribution,
}

impl Kind {
    /// Checks what depends on the kind alone.
    pub(super) fn check(self, name: &str, labels: &Labels) -> Result<(), MetricError> {
        if !is_valid_name(name) {
            return Err(MetricError::Name { name: name.into() });
        }
        let reserved = match self {
            Self::Counter | Self::Gauge => None,
            Self::Histogram(_) => Some("le"),
            Self::Distribution => Some("stat"),
        };
        if let Some(label) = reserved.filter(|key| labels.get(key).is_some()) {
            return Err(MetricError::Label { label: label.into() });
        }
        match self {
            Self::Histogram(bounds)
                if !bounds.is_sorted_by(|a, b| a < b) || !bounds.iter().all(|bound| bound.is_finite()) =>
            {
                Err(MetricError::Bounds { name: name.into() })
            }
            _ => Ok(()),
        }
    }
}

/// What became of a registration.
#[derive(Debug)]
pub(super) struct Registered {
    /// The series that is rendered: an older one or the new one.
    pub(super) series: Series,
    /// A function that gave way. Drop it outside the lock: what it owns may use the registry as it goes.
    pub(super) replaced: Option<Series>,
}

impl Families {
    /// Adds a series unless it is there. `fresh` is borrowed so that a refused one is not dropped under the
    /// lock.
    pub(super) fn register(
        &mut self,
        (name, kind): (&str, Kind),
        help: &str,
        labels: Labels,
        fresh: &Series,
        max_series: usize,
    ) -> Result<Registered, MetricError> {
        kind.check(name, &labels)?;
        let taken = || MetricError::Taken { name: name.into() };
        let full = || MetricError::Full { name: name.into(), max: max_series };
        let room = self.len() < max_series;

        let Some(family) = self.0.get_mut(name) else {
            if self.overlaps(name, kind) {
                return Err(taken());
            }
            if !room {
                return Err(full());
            }
            let series = BTreeMap::from([(Arc::new(labels), fresh.clone())]);
            self.0.insert(name.into(), Family { kind, help: help.into(), series });
            return Ok(Registered { series: fresh.clone(), replaced: None });
        };
        if family.kind != kind {
            return Err(taken());
        }
        match family.series.entry(Arc::new(labels)) {
            Entry::Vacant(_) if !room => Err(full()),
            Entry::Vacant(entry) => {
                Ok(Registered { series: entry.insert(fresh.clone()).clone(), replaced: None })
            }
            Entry::Occupied(mut entry) => match (entry.get(), fresh) {
                (Series::Function(_), Series::Function(_)) => {
                    let replaced = Some(entry.insert(fresh.clone()));
                    Ok(Registered { series: fresh.clone(), replaced })
                }
                (Series::Function(_), _) | (_, Series::Function(_)) => Err(taken()),
                (older, _) => Ok(Registered { series: older.clone(), replaced: None }),
            },
        }
    }

    /// Takes out the series for which `gone` answers true, and families left without any.
    pub(super) fn forget(&mut self, mut gone: impl FnMut(&str, &Labels) -> bool) -> Vec<Series> {
        let mut removed = Vec::new();
        for (name, family) in &mut self.0 {
            let leaving: Vec<_> =
                family.series.keys().filter(|labels| gone(name, labels)).map(Arc::clone).collect();
            removed.extend(leaving.iter().filter_map(|labels| family.series.remove(labels)));
        }
        self.0.retain(|_, family| !family.series.is_empty());
        removed
    }

    /// The series of a name whose labels pass.
    pub(super) fn of(&self, name: &str, passes: impl Fn(&Labels) -> bool) -> Vec<Series> {
        let series = self.0.get(name).map(|family| &family.series).into_iter().flatten();
        series.filter(|(labels, _)| passes(labels)).map(|(_, series)| series.clone()).collect()
    }

    pub(super) fn snapshot(&self) -> Vec<(Arc<str>, Family)> {
        self.0.iter().map(|(name, family)| (Arc::clone(name), family.clone())).collect()
    }

    /// How many series there are. O(families).
    pub(super) fn len(&self) -> usize {
        self.0.values().map(|family| family.series.len()).sum()
    }

    /// Whether a new family would print a line under the same name as an existing one.
    fn overlaps(&self, name: &str, kind: Kind) -> bool {
        let is_histogram =
            |base: &str| matches!(self.0.get(base), Some(Family { kind: Kind::Histogram(_), .. }));
        HISTOGRAM_SUFFIXES.iter().any(|suffix| {
            name.strip_suffix(suffix).is_some_and(is_histogram)
                || matches!(kind, Kind::Histogram(_))
                    && self.0.contains_key(format!("{name}{suffix}").as_str())
        })
    }
}

const HISTOGRAM_SUFFIXES: [&str; 5] = ["_bucket", "_sum", "_count", "_min", "_max"];
