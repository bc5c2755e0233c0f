//! Whether an empty catalog is to be believed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::sync::Mutex;
use tokio::time;
use tokio::time::Instant;

use crate::ask::Ask;
use crate::ask::Consistency;
use crate::client::Answer;
use crate::client::Consul;
use crate::error::ConsulError;

/// Time between the two reads that an empty catalog takes.
const CONFIRM: Duration = Duration::from_secs(1);

/// How long a suspicion holds without another look, so that whatever else has vanished need not wait for one.
const SUSPECTED: Duration = Duration::from_secs(5);

/// Tells whether everything has vanished from the catalog.
///
/// Consul itself is always in it. Who sees nothing at all has lost the right to see it: Consul answers such a token with
/// 200 and empty lists.
#[derive(Debug, Default)]
pub(crate) struct Emptiness {
    /// When the last look began, and what it saw. Held while looking, so that one look serves all who ask.
    last: Mutex<Option<(Instant, bool)>>,
}

impl Emptiness {
    /// Looks at what is in the catalog since something vanished from it, twice if it is empty. A look that fails proves
    /// nothing: that counts as suspicious.
    pub(crate) async fn is_suspicious(&self, consul: &Consul, since: Instant) -> bool {
        let mut last = self.last.lock().await;
        if let Some((began, suspicious)) = *last
            && (began >= since || suspicious && began.elapsed() < SUSPECTED)
        {
            return suspicious;
        }
        let began = Instant::now();
        let mut suspicious = is_empty(consul).await;
        if suspicious {
            time::sleep(CONFIRM).await;
            suspicious = is_empty(consul).await;
        }
        *last = Some((began, suspicious));
        suspicious
    }
}

async fn is_empty(consul: &Consul) -> bool {
    let ask = consul.catalog(Ask::get("/v1/catalog/services"), None, Consistency::Stale);
    let what = std::sync::Arc::clone(&ask.what);
    let read = |answer: Answer| match serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&answer.body) {
        // Newer servers say whether they have hidden anything.
        Ok(services) => Ok(services.is_empty() && answer.is_filtered() != Some(false)),
        Err(error) => Err(ConsulError::decode(&what, error)),
    };
    consul.ask_ok(ask).await.and_then(read).unwrap_or(true)
}
