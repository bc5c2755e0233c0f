//! Whether an empty catalog is to be believed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::sync::Mutex;
use tokio::time;
use tokio::time::Instant;

use crate::ask::Ask;
use crate::ask::Consistency;
use crate::client::Consul;

/// Time between the two reads that an empty catalog takes.
const CONFIRM: Duration = Duration::from_secs(1);

/// How long a suspicion holds without another look, so that whatever else has vanished need not wait for one.
const SUSPECTED: Duration = Duration::from_secs(5);

/// Tells whether everything has vanished from the catalog, or was never to be seen in it.
///
/// Consul itself is always in it. Who sees nothing at all has no right to see it: Consul answers such a token with 200 and
/// empty lists.
#[derive(Debug, Default)]
pub(crate) struct Emptiness {
    /// When the last look began, and what it saw. Held while looking, so that one look serves all who ask.
    last: Mutex<Option<(Instant, Seen)>>,
}

/// What a look at the catalog saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// There are services.
    Services,
    /// There are none, and Consul says that it has hidden none.
    Nothing,
    /// There are none, and they may be hidden.
    Hidden,
    /// It could not be read, which proves nothing.
    Unknown,
}

impl Emptiness {
    /// Whether something that vanished at that time may still be there: everything has vanished with it.
    pub(crate) async fn is_suspicious(&self, consul: &Consul, since: Instant) -> bool {
        matches!(self.look(consul, since).await, Seen::Hidden | Seen::Unknown)
    }

    /// Whether something may be there that was not found: nothing at all is shown. Looks less often than
    /// [`Self::is_suspicious`], since nobody has found it before either.
    pub(crate) async fn hides_all(&self, consul: &Consul, at: Instant) -> bool {
        self.look(consul, at.checked_sub(SUSPECTED).unwrap_or(at)).await == Seen::Hidden
    }

    /// Looks at what is in the catalog, unless somebody has since then, twice if it is empty.
    pub(crate) async fn look(&self, consul: &Consul, since: Instant) -> Seen {
        let mut last = self.last.lock().await;
        let before = *last;
        if let Some((began, seen)) = before
            && (began >= since || seen.is_suspicious() && began.elapsed() < SUSPECTED)
        {
            return seen;
        }
        let began = Instant::now();
        let mut seen = read(consul).await;
        if seen.is_suspicious() {
            time::sleep(CONFIRM).await;
            seen = read(consul).await;
        }
        *last = Some((began, seen));
        if seen == Seen::Services && before.is_some_and(|(_, before)| before == Seen::Hidden) {
            // A token that is given rights wakes no watch.
            consul.ask_anew();
        }
        seen
    }
}

impl Seen {
    fn is_suspicious(self) -> bool {
        matches!(self, Self::Hidden | Self::Unknown)
    }
}

async fn read(consul: &Consul) -> Seen {
    let ask = consul.catalog(Ask::get("/v1/catalog/services"), None, Consistency::Stale);
    let Ok(answer) = consul.ask_ok(ask).await else { return Seen::Unknown };
    match serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&answer.body) {
        Ok(services) if !services.is_empty() => Seen::Services,
        // Newer servers say whether they have hidden anything.
        Ok(_) if answer.is_filtered() == Some(false) => Seen::Nothing,
        Ok(_) => Seen::Hidden,
        Err(_) => Seen::Unknown,
    }
}
