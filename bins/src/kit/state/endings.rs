//! Certificates that end while a program runs.
//!
//! Only those that are in files: others are renewed by the program itself, which says how that goes.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;
use std::time::SystemTime;

use tokio::task;
use tokio::time;

use super::Inner;
use super::model::Certificate;
use super::unix_ms;
use crate::kit::log;
use crate::kit::moment::rfc3339;

/// How often certificates are looked at.
const INTERVAL: Duration = Duration::from_secs(10);
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Below this somebody should look: what renews them has failed for weeks by then.
const SOON_MS: u64 = 7 * DAY_MS;
/// Most names that are said of one.
const MOST_NAMES: usize = 5;
/// Most of which a line each says that they have ended.
const MOST: usize = 20;

/// Says of certificates that they end soon, or have ended: at once, and once a day.
#[derive(Debug, Default)]
struct Endings {
    /// What was said and when, of those that are there.
    said: HashMap<Key, (bool, u64)>,
}

/// A certificate that ends soon or has ended.
#[derive(Debug)]
struct Ending<'a> {
    certificate: &'a Certificate,
    file: &'a str,
    at_ms: u64,
    is_over: bool,
}

/// A certificate by its file, its names and its end: another one with the same names is another one.
type Key = (String, String, u64);

/// Looks at the certificates of a program from now on, until it is gone.
pub(super) async fn watch(watched: Weak<Inner>) {
    let mut endings = Endings::default();
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(inner) = watched.upgrade() else { return };
        // Files may be slow, and nothing else waits for this.
        let looked = task::spawn_blocking(move || {
            inner.source.read_files();
            inner.source.certificates()
        });
        let Ok(certificates) = looked.await else { continue };
        endings.due(&certificates, unix_ms(SystemTime::now())).iter().for_each(Ending::log);
    }
}

/// A line for each certificate that has ended.
pub(super) fn problems(certificates: &[Certificate], now_ms: u64) -> Vec<String> {
    let over = certificates.iter().filter_map(|it| Ending::of(it, now_ms)).filter(|it| it.is_over);
    let mut lines: Vec<_> = over
        .map(|it| {
            let (names, end) = (it.names(), rfc3339(it.at_ms));
            format!(
                "the certificate of {names} in {} has ended at {end}: who is shown it refuses it",
                it.file
            )
        })
        .collect();
    if lines.len() > MOST {
        let more = lines.len() - MOST;
        lines.truncate(MOST);
        lines.push(format!("and {more} more certificates have ended"));
    }
    lines
}

impl Endings {
    /// Those that are to be spoken of now.
    fn due<'a>(&mut self, certificates: &'a [Certificate], now_ms: u64) -> Vec<Ending<'a>> {
        let before = std::mem::take(&mut self.said);
        let mut due = Vec::new();
        for ending in certificates.iter().filter_map(|it| Ending::of(it, now_ms)) {
            let key = (ending.file.to_owned(), ending.names(), ending.at_ms);
            let last = before.get(&key).filter(|(was_over, at)| {
                // A clock that was put back is no reason to be silent.
                *was_over == ending.is_over && now_ms.abs_diff(*at) < DAY_MS
            });
            let at = last.map_or(now_ms, |(_, at)| *at);
            let is_known = self.said.insert(key, (ending.is_over, at)).is_some();
            if last.is_none() && !is_known {
                due.push(ending);
            }
        }
        due
    }
}

impl<'a> Ending<'a> {
    fn of(certificate: &'a Certificate, now_ms: u64) -> Option<Self> {
        let (file, at_ms) = (certificate.file.as_deref()?, certificate.not_after_ms?);
        let is_due = at_ms < now_ms.saturating_add(SOON_MS);
        is_due.then_some(Self { certificate, file, at_ms, is_over: at_ms < now_ms })
    }

    fn names(&self) -> String {
        let names = &self.certificate.names;
        match names.get(..MOST_NAMES) {
            Some(first) if names.len() > MOST_NAMES => {
                format!("{} and {} more", first.join(", "), names.len() - MOST_NAMES)
            }
            _ => names.join(", "),
        }
    }

    fn log(&self) {
        let (names, role, file, at) = (self.names(), &*self.certificate.role, self.file, rfc3339(self.at_ms));
        if self.is_over {
            tracing::error!(
                target: log::PROCESS, names, role, file, ended = at,
                "a certificate has ended: who is shown it refuses it"
            );
        } else {
            tracing::warn!(target: log::PROCESS, names, role, file, ends = at, "a certificate ends soon");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_796_000_000_000;

    fn ending(name: &str, at_ms: u64) -> Certificate {
        Certificate {
            names: vec![name.to_owned()],
            role: "server".to_owned(),
            file: Some("/tls/web.pem".to_owned()),
            not_after_ms: Some(at_ms),
            ..Certificate::default()
        }
    }

    /// The names of those that are due, and whether they are over.
    fn due(endings: &mut Endings, certificates: &[Certificate], now_ms: u64) -> Vec<(String, bool)> {
        endings.due(certificates, now_ms).iter().map(|it| (it.names(), it.is_over)).collect()
    }

    #[test]
    fn each_certificate_is_spoken_of_once_a_day_and_when_it_ends() {
        let certificates = [
            ending("soon", NOW + DAY_MS / 2),
            ending("soon", NOW + DAY_MS / 2),
            ending("later", NOW + SOON_MS),
            ending("over", NOW - 1),
        ];
        let (soon, over) = (("soon".to_owned(), false), ("over".to_owned(), true));
        let mut endings = Endings::default();

        assert_eq!(due(&mut endings, &certificates, NOW), [soon, over.clone()]);
        assert_eq!(due(&mut endings, &certificates, NOW), [], "it was said");
        let later = ("later".to_owned(), false);
        assert_eq!(due(&mut endings, &certificates, NOW + 1), [later]);
        let ended = ("soon".to_owned(), true);
        assert_eq!(due(&mut endings, &certificates, NOW + DAY_MS / 2 + 1), [ended]);
        assert_eq!(due(&mut endings, &certificates, NOW + DAY_MS), [over], "a day has gone by");
        assert_eq!(endings.said.len(), 3);
        assert_eq!(due(&mut endings, &[], NOW + DAY_MS), []);
        assert!(endings.said.is_empty(), "what is gone is forgotten");
    }

    #[test]
    fn what_the_program_renews_itself_is_left_to_it() {
        let own = Certificate { file: None, ..ending("own", NOW - 1) };

        assert_eq!(due(&mut Endings::default(), std::slice::from_ref(&own), NOW), []);
        assert_eq!(problems(&[own], NOW), [""; 0]);
    }

    #[test]
    fn what_has_ended_is_a_problem_with_its_date() {
        let many =
            Certificate { names: (0..7).map(|n| n.to_string()).collect(), ..ending("", 1_735_689_599_000) };

        let lines = problems(&[ending("soon", NOW + 1), many.clone()], NOW);

        let line = "the certificate of 0, 1, 2, 3, 4 and 2 more in /tls/web.pem has ended at 2024-12-31T23:59:59Z: \
                    who is shown it refuses it";
        assert_eq!(lines, [line]);
        let lines = problems(&vec![many; 30], NOW);
        assert_eq!((lines.len(), &*lines[MOST]), (MOST + 1, "and 10 more certificates have ended"));
    }
}
