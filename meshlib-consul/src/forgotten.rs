//! Whether Consul has forgotten everything.
//!
//! A server that has lost its data is well again long before it knows what it knew: agents and schedulers register with it
//! within minutes, each at a time of its own. What is back is followed at once, and what is missing still is believed to be
//! gone later than usual.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use crate::doubt::Doubt;
use crate::watch::Degraded;

/// The names that have vanished all at once while Consul was not well, without those that are back.
#[derive(Debug)]
pub(crate) struct Forgotten {
    doubt: Arc<Doubt>,
    names: HashSet<Arc<str>>,
    /// Until when they are kept, by both clocks.
    until: Option<(Instant, SystemTime)>,
}

impl Forgotten {
    pub(crate) fn new(doubt: &Arc<Doubt>) -> Self {
        Self { doubt: Arc::clone(doubt), names: HashSet::new(), until: None }
    }

    /// Until when names that are not there any more are kept; nothing if they are gone. `is_all` says whether nothing else
    /// was followed.
    pub(crate) fn kept_until(&mut self, gone: &[Arc<str>], is_all: bool, now: Instant) -> Option<Instant> {
        if self.is_some() {
            let gone: HashSet<_> = gone.iter().collect();
            if self.names.iter().any(|name| gone.contains(name)) {
                self.names.retain(|name| gone.contains(name));
            } else {
                self.end();
                // Further instances of them may be on their way: these have the usual time from now on.
                self.doubt.trouble();
            }
        }
        let Some(mut until) = self.doubt.until(now) else {
            self.end();
            return None;
        };
        if is_all && !gone.is_empty() {
            if !self.is_some() {
                self.doubt.begin_forgotten();
            }
            self.names = gone.iter().map(Arc::clone).collect();
            until = self.doubt.until(now).unwrap_or(until);
        }
        if self.is_some() && self.until.is_none_or(|(known, _)| known != until) {
            self.until = Some((until, SystemTime::now() + until.saturating_duration_since(now)));
        }
        Some(until)
    }

    /// Whether there are any.
    pub(crate) fn is_some(&self) -> bool {
        !self.names.is_empty()
    }

    /// What it says about all that is followed.
    pub(crate) fn degraded(&self) -> Option<Degraded> {
        let (_, until) = self.until?;
        Some(Degraded::Forgotten { services: self.names.len(), until })
    }

    fn end(&mut self) {
        if self.is_some() {
            self.doubt.end_forgotten();
        }
        self.names.clear();
        self.until = None;
    }
}

impl Drop for Forgotten {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;

    use super::*;

    const SHORT: Duration = Duration::from_secs(10);
    const LONG: Duration = Duration::from_secs(300);

    /// Consul was not well a second ago.
    async fn after_an_outage() -> (Arc<Doubt>, Forgotten) {
        let doubt = Arc::<Doubt>::default();
        doubt.trouble();
        time::advance(Duration::from_secs(1)).await;
        let forgotten = Forgotten::new(&doubt);
        (doubt, forgotten)
    }

    /// For how long these are kept from now on.
    fn kept(forgotten: &mut Forgotten, gone: &[&str], is_all: bool) -> Option<Duration> {
        let gone: Vec<Arc<str>> = gone.iter().map(|name| Arc::from(*name)).collect();
        let now = Instant::now();
        forgotten.kept_until(&gone, is_all, now).map(|until| until - now)
    }

    /// How many are told to be missing.
    fn missing(forgotten: &Forgotten) -> Option<usize> {
        match forgotten.degraded()? {
            Degraded::Forgotten { services, .. } => Some(services),
            _ => None,
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn all_are_kept_for_long_and_then_gone() {
        let (doubt, mut forgotten) = after_an_outage().await;

        assert_eq!(kept(&mut forgotten, &["a", "b"], true), Some(LONG - SECOND));
        let told = forgotten.degraded();
        assert!(matches!(told, Some(Degraded::Forgotten { services: 2, .. })), "{told:?}");
        assert_eq!(
            doubt.until(Instant::now()),
            Some(Instant::now() + LONG - SECOND),
            "for instances as well"
        );
        time::advance(LONG - 2 * SECOND).await;
        assert_eq!(kept(&mut forgotten, &["a", "b"], true), Some(SECOND));
        time::advance(SECOND).await;
        assert_eq!(kept(&mut forgotten, &["a", "b"], true), None);
        assert!(forgotten.degraded().is_none());
        assert_eq!(doubt.until(Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_back_takes_no_time_from_the_rest() {
        let (_doubt, mut forgotten) = after_an_outage().await;
        let _ = kept(&mut forgotten, &["a", "b", "c"], true);
        time::advance(LONG / 2).await;

        assert_eq!(kept(&mut forgotten, &["b", "c"], false), Some(LONG / 2 - SECOND));
        assert_eq!(missing(&forgotten), Some(2));
        time::advance(2 * SHORT).await;
        assert_eq!(kept(&mut forgotten, &["c"], false), Some(LONG / 2 - 2 * SHORT - SECOND));
        assert_eq!(missing(&forgotten), Some(1));
        time::advance(LONG / 2 - 2 * SHORT - SECOND).await;
        assert_eq!(kept(&mut forgotten, &["c"], false), None);
        assert_eq!(missing(&forgotten), None);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_are_back_losses_are_doubted_as_usual() {
        let (doubt, mut forgotten) = after_an_outage().await;
        let _ = kept(&mut forgotten, &["a", "b"], true);
        let _ = kept(&mut forgotten, &["b"], false);

        assert_eq!(kept(&mut forgotten, &[], false), Some(SHORT));
        assert_eq!(missing(&forgotten), None);
        assert_eq!(doubt.until(Instant::now()), Some(Instant::now() + SHORT), "for instances as well");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_again_is_missing_again() {
        let (doubt, mut forgotten) = after_an_outage().await;
        let _ = kept(&mut forgotten, &["a", "b"], true);
        let _ = kept(&mut forgotten, &["b"], false);
        doubt.trouble();

        assert_eq!(kept(&mut forgotten, &["a", "b"], true), Some(LONG));
        assert_eq!(missing(&forgotten), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn some_that_are_lost_are_kept_as_usual() {
        let (_doubt, mut forgotten) = after_an_outage().await;

        assert_eq!(kept(&mut forgotten, &["b"], false), Some(SHORT - SECOND));
        assert!(forgotten.degraded().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_are_lost_without_an_outage_are_gone() {
        let (_doubt, mut forgotten) = after_an_outage().await;
        time::advance(SHORT).await;

        assert_eq!(kept(&mut forgotten, &["a", "b"], true), None);
    }

    #[tokio::test(start_paused = true)]
    async fn another_outage_begins_the_time_anew() {
        let (doubt, mut forgotten) = after_an_outage().await;
        let _ = kept(&mut forgotten, &["a"], true);
        time::advance(LONG / 2).await;
        doubt.trouble();

        assert_eq!(kept(&mut forgotten, &["a"], true), Some(LONG));
    }

    #[tokio::test(start_paused = true)]
    async fn who_follows_no_more_doubts_no_more() {
        let (doubt, mut forgotten) = after_an_outage().await;
        let _ = kept(&mut forgotten, &["a"], true);

        drop(forgotten);

        assert_eq!(doubt.until(Instant::now()), Some(Instant::now() + SHORT - SECOND));
    }
}
