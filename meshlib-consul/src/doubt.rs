//! Whether what has vanished from Consul is gone.
//!
//! An agent that is started again answers before it has read its log to the end, one that keeps nothing on disk has
//! forgotten everything, and a server that is cut off shows what was there a while ago. Such answers are good ones, and lack
//! what will soon be there again.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::ConsulError;
use crate::follow::Found;
use crate::follow::order;
use crate::instance::Instance;
use crate::instance::Instances;

/// How long after the last sign of trouble nothing that is lost is believed to be gone: long enough to read a log, and for
/// those that have registered with an agent to do so again.
const AFTER: Duration = Duration::from_secs(10);

/// The same where all that was followed is lost: long enough for agents to notice that their servers know nothing of them,
/// and for schedulers and people to register what agents do not know themselves.
const AFTER_ALL: Duration = Duration::from_secs(300);

/// When Consul was last seen not to be well, by any request of a client.
#[derive(Debug, Default)]
pub(crate) struct Doubt(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    /// How many have lost all that they follow.
    forgotten: usize,
}

impl Doubt {
    /// Takes note of a sign of trouble.
    pub(crate) fn trouble(&self) {
        self.state().last = Some(Instant::now());
    }

    /// Takes note of an answer that was an error, if it is one that says something about Consul as a whole.
    pub(crate) fn failed(&self, error: &ConsulError) {
        let says_nothing = matches!(error, ConsulError::Busy) || error.is_unknown_datacenter();
        if error.is_transient() && !says_nothing {
            self.trouble();
        }
    }

    /// Until when losses that were seen at this time are doubted; nothing if they are not.
    pub(crate) fn until(&self, at: Instant) -> Option<Instant> {
        let state = self.state();
        let after = if state.forgotten > 0 { AFTER_ALL } else { AFTER };
        state.last.map(|last| last + after).filter(|until| *until > at)
    }

    /// Somebody has lost all that it follows: losses are doubted for longer.
    pub(crate) fn begin_forgotten(&self) {
        self.state().forgotten += 1;
    }

    /// That is over: all of it is back, or it is gone.
    pub(crate) fn end_forgotten(&self) {
        let mut state = self.state();
        state.forgotten = state.forgotten.saturating_sub(1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was read of a service, with all that was known before and would be lost; nothing if nothing would be.
///
/// An instance is lost if it is not there any more, and also if it is in a worse state or without a tag that it had: it may
/// be shown as it was long ago.
pub(crate) fn keep(believed: &Found, read: &Found) -> Option<Found> {
    let mut instances = read.instances.to_vec();
    let mut is_loss = false;
    for known in believed.instances.iter() {
        match instances.binary_search_by(|other| order(other, known)) {
            Ok(at) if !is_worse(&instances[at], known) => {}
            Ok(at) => {
                instances[at].clone_from(known);
                is_loss = true;
            }
            Err(at) => {
                instances.insert(at, known.clone());
                is_loss = true;
            }
        }
    }
    // A service without an instance that can be used is another thing than none.
    let registered = read.registered.max(instances.len()).max(usize::from(!believed.is_absent()));
    is_loss |= registered > 0 && read.is_absent();
    is_loss.then(|| Found {
        registered,
        instances: instances.into_iter().collect::<Instances>(),
        skipped: read.skipped.clone(),
    })
}

fn is_worse(now: &Instance, before: &Instance) -> bool {
    now.status < before.status || before.tags.iter().any(|tag| !now.tags.contains(tag))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::instance::Status;
    use crate::instance::Weights;

    fn instance(id: &str, port: u16, tags: &[&str], status: Status) -> Arc<Instance> {
        Arc::new(Instance {
            datacenter: "dc1".into(),
            node: "n".into(),
            site: None,
            node_meta: Arc::default(),
            service: "web".into(),
            id: id.into(),
            address: "10.0.0.1".into(),
            port,
            tags: tags.iter().map(|tag| Arc::from(*tag)).collect(),
            meta: Arc::default(),
            weights: Weights::default(),
            status,
        })
    }

    fn found(instances: &[Arc<Instance>]) -> Found {
        let (registered, instances) = (instances.len(), instances.iter().cloned().collect());
        Found { registered, instances, skipped: [].into() }
    }

    #[test]
    fn what_is_new_comes_and_what_is_lost_stays() {
        let [a, b, c] = ["a", "b", "c"].map(|id| instance(id, 80, &["x"], Status::Passing));
        let before = found(&[a.clone(), b.clone()]);

        assert_eq!(keep(&before, &before), None);
        assert_eq!(keep(&before, &found(&[a.clone(), b.clone(), c.clone()])), None);
        let kept = keep(&before, &found(&[b.clone(), c.clone()])).unwrap();
        assert_eq!(kept, found(&[a.clone(), b, c]));
        assert_eq!(keep(&before, &Found::default()).unwrap(), before);
        assert_eq!(keep(&Found::default(), &found(&[a])), None);
    }

    #[test]
    fn an_instance_that_is_less_than_it_was_stays_as_it_was() {
        let before = instance("a", 80, &["x"], Status::Passing);
        let more = instance("a", 80, &["x", "y"], Status::Passing);
        let moved = instance("a", 81, &["x"], Status::Passing);
        let one = |instance: &Arc<Instance>| found(std::slice::from_ref(instance));
        let keeps = |now| keep(&one(&before), &one(&now));

        assert_eq!(keeps(more), None);
        assert_eq!(keeps(instance("a", 80, &["y"], Status::Passing)), Some(one(&before)));
        assert_eq!(keeps(instance("a", 80, &["x"], Status::Critical)), Some(one(&before)));
        assert_eq!(keeps(moved.clone()), Some(found(&[before.clone(), moved])));
    }

    #[test]
    fn a_service_without_a_usable_instance_is_not_taken_for_absent() {
        let before = Found { registered: 1, ..Found::default() };

        assert_eq!(keep(&before, &Found::default()), Some(before));
    }

    #[tokio::test(start_paused = true)]
    async fn doubt_ends_some_time_after_the_last_trouble() {
        let doubt = Doubt::default();
        assert_eq!(doubt.until(Instant::now()), None);

        doubt.failed(&ConsulError::Busy);
        assert_eq!(doubt.until(Instant::now()), None);
        let after = AFTER;
        doubt.failed(&ConsulError::Timeout { authority: "consul".into(), after });

        let until = Instant::now() + AFTER;
        assert_eq!(doubt.until(Instant::now()), Some(until));
        assert_eq!(doubt.until(until), None);
    }
}
