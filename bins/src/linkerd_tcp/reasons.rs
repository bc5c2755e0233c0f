//! Why endpoints cannot be connected, for whoever looks at them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use meshlib::observe::Event;
use meshlib::observe::Observer;

/// More endpoints than fail at a time where somebody still looks at single ones. Beyond it the old ones are forgotten.
const MOST: usize = 1_000;

/// The last reason of each endpoint that failed. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Reasons(Arc<Mutex<HashMap<String, String>>>);

impl Reasons {
    /// Remembers what is observed, and passes it on.
    pub(super) fn observe(&self, original: Arc<dyn Observer>) -> Arc<dyn Observer> {
        Arc::new(Remembering { reasons: self.clone(), original })
    }

    /// The reason of an endpoint, if it has ever failed.
    pub(super) fn of(&self, addr: &str) -> Option<String> {
        self.lock().get(addr).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Remembering {
    reasons: Reasons,
    original: Arc<dyn Observer>,
}

impl Observer for Remembering {
    fn on(&self, event: &Event<'_>) {
        if let Event::Attempted { endpoint, error: Some(error), .. } = event {
            let (addr, reason) = (endpoint.addr.to_string(), error.chain().to_string());
            let mut reasons = self.reasons.lock();
            if reasons.len() >= MOST {
                reasons.clear();
            }
            reasons.insert(addr, reason);
        }
        self.original.on(event);
    }

    fn wants_progress(&self) -> bool {
        self.original.wants_progress()
    }
}
