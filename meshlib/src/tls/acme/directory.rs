//! What an authority offers.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use instant_acme::CertificateIdentifier;
use rustls::pki_types::Der;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::certificate::Certificate;
use super::client::Client;
use super::client::RequestError;
use super::clock;
use super::renewal::Suggestion;
use crate::error::Chain;

/// How long a directory is believed.
const FRESH: Duration = Duration::from_secs(3600);
/// When an authority is asked again about a certificate, unless it says so.
const NEXT_LOOK: Duration = Duration::from_secs(6 * 3600);
/// The bounds of what it may say (RFC 9773 section 4.3.2).
const LOOKS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));

/// The part of a directory that the protocol's implementation does not tell (RFC 8555 section 7.1.1).
#[derive(Debug, Default, Deserialize)]
pub(super) struct Directory {
    #[serde(rename = "renewalInfo")]
    pub(super) renewal_info: Option<String>,
    #[serde(default)]
    pub(super) meta: Meta,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Meta {
    #[serde(rename = "externalAccountRequired", default)]
    pub(super) external_account_required: bool,
}

/// The authority's directory, asked for when it is needed.
pub(super) struct Directories {
    url: String,
    client: Client,
    known: Mutex<Option<(Instant, Arc<Directory>)>>,
}

impl Directories {
    pub(super) fn new(url: &str, client: Client) -> Self {
        Self { url: url.to_owned(), client, known: Mutex::new(None) }
    }

    /// The directory, at most an hour old.
    pub(super) async fn get(&self) -> Result<Arc<Directory>, RequestError> {
        // Held while asking, so that many who need it ask once.
        let mut known = self.known.lock().await;
        if let Some((since, directory)) = &*known
            && since.elapsed() < FRESH
        {
            return Ok(Arc::clone(directory));
        }
        let answer = self.client.get(&self.url).await?;
        let directory = serde_json::from_slice::<Directory>(answer.body()).unwrap_or_default();
        let directory = Arc::new(directory);
        *known = Some((Instant::now(), Arc::clone(&directory)));
        Ok(directory)
    }

    /// Asks when a certificate should be renewed. The time at least says when to ask again.
    pub(super) async fn suggestion(
        &self,
        certificate: &Certificate,
        now: SystemTime,
    ) -> (Option<Suggestion>, SystemTime) {
        let later = now + NEXT_LOOK;
        let Some(id) = identifier(certificate) else { return (None, now + LOOKS.1) };
        let url = match self.get().await {
            Ok(directory) => match &directory.renewal_info {
                Some(url) => format!("{}/{id}", url.trim_end_matches('/')),
                None => return (None, now + LOOKS.1),
            },
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "cannot read the authority's directory");
                return (None, later);
            }
        };
        let answer = match self.client.get(&url).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(name = %certificate.name, error = %Chain(&error), "no renewal information");
                return (None, later);
            }
        };
        let wait = self.client.retry_after(answer.headers()).unwrap_or(NEXT_LOOK);
        let next_look = now + wait.clamp(LOOKS.0, LOOKS.1);
        let suggestion = parse(answer.body()).map(|(start, end)| {
            let fingerprint = certificate.fingerprint.clone();
            Suggestion { start, end, fingerprint, next_look }
        });
        if suggestion.is_none() {
            tracing::debug!(name = %certificate.name, "the renewal information makes no sense");
        }
        (suggestion, next_look)
    }
}

/// By what the authority knows a certificate (RFC 9773 section 4.1).
pub(super) fn identifier(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let (issuer, serial) = certificate.id.as_ref()?;
    Some(CertificateIdentifier::new(Der::from_slice(issuer), Der::from_slice(serial)).into_owned())
}

fn parse(json: &[u8]) -> Option<(SystemTime, SystemTime)> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(rename = "suggestedWindow")]
        window: Window,
    }

    #[derive(Deserialize)]
    struct Window {
        start: String,
        end: String,
    }

    let Info { window } = serde_json::from_slice(json).ok()?;
    let (start, end) = (clock::parse_rfc3339(&window.start)?, clock::parse_rfc3339(&window.end)?);
    (start <= end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_and_nonsense_is_not() {
        let window = |start: &str, end: &str| {
            format!(r#"{{"suggestedWindow":{{"start":"{start}","end":"{end}"}},"explanationURL":"x"}}"#)
        };
        let good = window("2026-01-02T04:00:00Z", "2026-01-03T04:00:00.5Z");

        let (start, end) = parse(good.as_bytes()).unwrap();
        assert_eq!(end.duration_since(start).unwrap(), Duration::from_secs(24 * 3600));
        assert!(parse(window("2026-01-03T04:00:00Z", "2026-01-02T04:00:00Z").as_bytes()).is_none());
        assert!(parse(window("now", "then").as_bytes()).is_none());
        assert!(parse(b"{}").is_none());
        assert!(parse(b"\xff").is_none());
    }

    #[test]
    fn a_directory_may_offer_little() {
        let directory: Directory = serde_json::from_str(r#"{"newOrder":"x"}"#).unwrap();

        assert!(directory.renewal_info.is_none() && !directory.meta.external_account_required);
        let meta =
            r#"{"meta":{"externalAccountRequired":true,"profiles":{"classic":"x"}},"renewalInfo":"u"}"#;
        let directory: Directory = serde_json::from_str(meta).unwrap();
        assert!(directory.meta.external_account_required && directory.renewal_info.is_some());
    }
}
