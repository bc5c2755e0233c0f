//! Why endpoints fail, for whoever looks at them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use meshlib::Fault;
use meshlib::observe::Event;
use meshlib::observe::Observer;

use crate::kit::state::EndpointState;

/// More endpoints than fail at a time where somebody still looks at single ones. Beyond it the old ones are forgotten.
const MOST: usize = 1_000;

/// The last reason of each endpoint that failed. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Reasons(Arc<Mutex<HashMap<String, String>>>);

impl Reasons {
    /// Remembers what is observed, and passes it on.
    pub fn observe(&self, original: Arc<dyn Observer>) -> Arc<dyn Observer> {
        Arc::new(Remembering { reasons: self.clone(), original })
    }

    /// Adds to what is shown of an endpoint with what it failed last, if it is out or still fails.
    pub fn explain(&self, row: &mut EndpointState) {
        if row.state == "ready" && row.why.is_none() {
            return;
        }
        let Some(reason) = self.lock().get(&row.addr).cloned() else { return };
        row.why = Some(match row.why.take() {
            None => reason,
            Some(why) => format!("{why}: {reason}"),
        });
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
        // What a client does wrong says nothing about the endpoint.
        if let Event::Attempted { endpoint, error: Some(error), .. } = event
            && error.fault() != Fault::Client
        {
            let (addr, reason) = (endpoint.addr.to_string(), error.chain().to_string());
            let mut reasons = self.reasons.lock();
            if reasons.len() >= MOST && !reasons.contains_key(&addr) {
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::time::Duration;

    use meshlib::Endpoint;
    use meshlib::Error;

    use super::*;

    /// What is shown in this state of an endpoint that was refused, with this reason for the state.
    fn shown(state: &str, why: Option<&str>) -> Option<String> {
        let (reasons, addr) = (Reasons::default(), SocketAddr::from(([127, 0, 0, 1], 1)));
        let error = Error::Connect { addr, source: io::ErrorKind::ConnectionRefused.into() };
        reasons.observe(Arc::new(())).on(&Event::Attempted {
            name: "one",
            endpoint: &Endpoint::new(addr),
            took: Duration::ZERO,
            error: Some(&error),
        });

        let mut row = EndpointState {
            addr: addr.to_string(),
            state: state.to_owned(),
            why: why.map(str::to_owned),
            ..EndpointState::default()
        };
        reasons.explain(&mut row);
        row.why
    }

    #[test]
    fn an_endpoint_that_is_out_or_fails_has_the_error() {
        let refused = "cannot connect to 127.0.0.1:1: connection refused";

        assert_eq!(shown("ready", None), None, "what is over is of no interest");
        assert_eq!(shown("ejected", None).as_deref(), Some(refused));
        let why = shown("ready", Some("failed 7 times in a row"));
        assert_eq!(why.unwrap(), format!("failed 7 times in a row: {refused}"));
    }
}
