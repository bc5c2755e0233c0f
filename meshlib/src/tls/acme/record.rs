//! What is written to the store, as JSON.
//!
//! Fields that are not known are kept, so that whoever else writes these values finds theirs again.

use std::time::Duration;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use super::certificate::Certificate;
use super::clock;

/// A certificate with its key.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct Stored {
    pub(super) hostname: String,
    /// The day it was issued.
    #[serde(default)]
    pub(super) date: String,
    #[serde(default)]
    pub(super) valid_days: u64,
    pub(super) key_pem: String,
    pub(super) cert_pem: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) directory: Option<String>,
    /// The node that ordered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) issued_by: Option<String>,
    /// Whether it was ordered because the authority suggested to.
    #[serde(default)]
    pub(super) suggested: bool,
    /// When it was ordered, by that node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ordered: Option<String>,
    #[serde(flatten)]
    pub(super) others: Map<String, Value>,
}

impl Stored {
    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// For a new certificate; what is not known of the value before it is kept.
    pub(super) fn new(
        certificate: &Certificate,
        (cert_pem, key_pem): (String, String),
        (directory, node): (&str, &str),
        before: Option<Self>,
    ) -> Self {
        const DAY: u64 = 24 * 3600;

        // Days are what other readers count in; a short life is the better part of one.
        let days = (certificate.lifetime().as_secs() + DAY / 2) / DAY;
        Self {
            hostname: certificate.name.to_string(),
            date: clock::date(certificate.not_before),
            valid_days: days.max(1),
            key_pem,
            cert_pem,
            not_before: Some(clock::rfc3339(certificate.not_before)),
            not_after: Some(clock::rfc3339(certificate.not_after)),
            directory: Some(directory.to_owned()),
            issued_by: Some(node.to_owned()),
            suggested: certificate.suggested,
            ordered: certificate.ordered.map(clock::rfc3339),
            others: before.map(|before| before.others).unwrap_or_default(),
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Says that there is a certificate, without its key and its length.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Announcement {
    /// SHA-256 of the leaf, in hexadecimal digits.
    pub(super) fingerprint: String,
    pub(super) not_after: String,
}

impl Announcement {
    pub(super) fn new(certificate: &Certificate) -> Self {
        Self {
            fingerprint: certificate.fingerprint.clone(),
            not_after: clock::rfc3339(certificate.not_after),
        }
    }

    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// How often in a row a name could not be ordered, and when it may be tried again.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Failures {
    pub(super) failures: u32,
    retry_after: String,
    #[serde(default)]
    pub(super) last_error: String,
    #[serde(default)]
    pub(super) node: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Most bytes of an error's text that are kept: the authority wrote it.
const MAX_TEXT: usize = 500;

impl Failures {
    /// One more failure.
    pub(super) fn next(before: Option<Self>, until: SystemTime, error: &str, node: &str) -> Self {
        let (failures, others) = before.map(|before| (before.failures, before.others)).unwrap_or_default();
        Self {
            failures: failures.saturating_add(1),
            retry_after: clock::rfc3339(until),
            last_error: error.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect(),
            node: node.to_owned(),
            others,
        }
    }

    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// When it may be tried again. A time that makes no sense is over; one that is further away than any failure counts
    /// is held for that long.
    pub(super) fn until(&self, now: SystemTime) -> SystemTime {
        const MOST: Duration = Duration::from_secs(8 * 24 * 3600);

        clock::parse_rfc3339(&self.retry_after).unwrap_or(now).min(now + MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::acme::certificate::tests::certificate;

    #[test]
    fn what_another_wrote_is_read_and_its_fields_are_kept() {
        let theirs = r#"{"hostname":"a.test","date":"2026-01-02","valid_days":90,"key_pem":"k","cert_pem":"c","x":{"y":1}}"#;
        let before = Stored::parse(theirs.as_bytes()).unwrap();
        let (_, certificate) = certificate("a.test");

        let pems = ("c2".to_owned(), "k2".to_owned());
        let json = Stored::new(&certificate, pems, ("https://d", "n"), Some(before)).to_json();

        let value: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["x"]["y"], 1);
        assert_eq!(value["cert_pem"], "c2");
        assert_eq!(value["hostname"], "a.test");
        assert_eq!(value["valid_days"], 1);
        assert_eq!(value["directory"], "https://d");
        assert_eq!(value["issued_by"], "n");
        assert_eq!(value["date"].as_str().unwrap().len(), 10);
        assert!(clock::parse_rfc3339(value["not_after"].as_str().unwrap()).is_some());
        for broken in ["", "[]", "{}", r#"{"hostname":1}"#, "\u{0}"] {
            assert!(Stored::parse(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn failures_add_up_and_say_until_when() {
        let now = clock::from_unix(1_800_000_000);
        let until = now + Duration::from_secs(60);

        let first = Failures::next(None, until, "no\nluck", "node-1");
        let second =
            Failures::next(Failures::parse(&first.to_json()).ok(), until, &"x".repeat(9999), "node-2");

        assert_eq!((first.failures, second.failures), (1, 2));
        assert_eq!(first.last_error, "noluck");
        assert_eq!(second.last_error.len(), MAX_TEXT);
        assert_eq!(first.until(now), until);
        let never = r#"{"failures":1,"retry_after":"9999-01-01T00:00:00Z"}"#;
        let never = Failures::parse(never.as_bytes()).unwrap();
        assert!(never.until(now) < now + Duration::from_secs(9 * 24 * 3600));
        let garbled = Failures::parse(br#"{"failures":1,"retry_after":"soon"}"#).unwrap();
        assert_eq!(garbled.until(now), now);
    }
}
