//! Names, labels, and what is wrong with them.

/// The labels of one series, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

/// Why a series cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MetricError {
    #[error("{name:?} is not a metric name")]
    Name { name: String },
    #[error("{label:?} is not a label of this kind of metric")]
    Label { label: String },
    #[error("label {label} given twice")]
    Repeated { label: String },
    #[error("metric {name} is already of another kind")]
    Taken { name: String },
    #[error("bounds of {name} must be finite and ascending")]
    Bounds { name: String },
    #[error("no room for {name}: there are {max} series")]
    Full { name: String, max: usize },
}

impl Labels {
    /// Sorts and checks the keys. Values may be anything.
    pub(super) fn new(pairs: &[(&str, &str)]) -> Result<Self, MetricError> {
        if let Some((key, _)) = pairs.iter().find(|(key, _)| !is_valid_label(key)) {
            return Err(MetricError::Label { label: (*key).into() });
        }
        let mut sorted: Box<[(Box<str>, Box<str>)]> =
            pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        sorted.sort();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(MetricError::Repeated { label: pair[0].0.to_string() });
        }
        Ok(Self(sorted))
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// All pairs of key and value, sorted by key.
    pub fn as_slice(&self) -> &[(Box<str>, Box<str>)] {
        &self.0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl MetricError {
    /// Whether the program is wrong, and not merely busy.
    pub(super) fn is_mistake(&self) -> bool {
        !matches!(self, Self::Full { .. })
    }
}

/// Whether `name` may name a metric: letters, digits, `_` and `:`, not starting with a digit.
pub fn is_valid_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// Whether `key` may be the key of a label: letters, digits and `_`, not starting with a digit or with
/// `__`.
pub fn is_valid_label(key: &str) -> bool {
    // Two underscores are kept for the server that scrapes.
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && !key.starts_with("__")
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_data_model() {
        for name in ["a", "_x9", "l5d:srv:accepts", ":x"] {
            assert!(is_valid_name(name), "{name}");
        }
        for name in ["", "9a", "a-b", "a b", "a\n", "ä", "a{"] {
            assert!(!is_valid_name(name), "{name}");
        }
    }

    #[test]
    fn label_keys_exclude_colons_and_reserved_ones() {
        assert!(is_valid_label("srv_addr") && is_valid_label("_a"));
        for key in ["", "__name__", "a:b", "1a", "a-b"] {
            assert!(!is_valid_label(key), "{key}");
        }
    }

    #[test]
    fn labels_are_sorted_and_unique() {
        let labels = Labels::new(&[("rt", "web"), ("cause", "other")]).unwrap();

        assert_eq!(labels.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["cause", "rt"]);
        assert_eq!(labels.get("rt"), Some("web"));
        assert!(matches!(Labels::new(&[("a", "1"), ("a", "2")]), Err(MetricError::Repeated { .. })));
    }
}
