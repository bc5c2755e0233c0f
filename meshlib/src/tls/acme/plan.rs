//! What is to be done for which name, and when. Pure bookkeeping: nothing here waits.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use super::renewal::Suggestion;

/// How long a name is wanted after it was last requested.
const REQUESTED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// In which order names get their certificates: none at all, expired, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    Missing,
    Expired,
    Due(SystemTime),
}

/// What happens to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits to be looked at.
    Check,
    Checking,
    /// It waits to be ordered.
    Order(Urgency),
    Ordering,
    /// Nothing before this time.
    Rest(SystemTime),
    /// It waits for a store that fails.
    Stalled,
}

/// Why a name has no new certificate.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) until: SystemTime,
    pub(super) error: Arc<str>,
}

#[derive(Debug)]
pub(super) struct Name {
    pub(super) phase: Phase,
    /// Whether it must be looked at again when what is done now is done.
    again: bool,
    wanted: bool,
    requested: Option<SystemTime>,
    pub(super) failed: Option<Failed>,
    /// Failures in a row that concern this node alone.
    pub(super) failures_here: u32,
    pub(super) suggestion: Option<Suggestion>,
    /// When the authority is asked about its certificate.
    look: Option<SystemTime>,
}

/// The names, and an order of them for each kind of work.
#[derive(Debug, Default)]
pub(super) struct Plan {
    names: HashMap<Arc<str>, Name>,
    checks: VecDeque<Arc<str>>,
    orders: BTreeSet<(Urgency, Arc<str>)>,
    rests: BTreeSet<(SystemTime, Arc<str>)>,
    looks: BTreeSet<(SystemTime, Arc<str>)>,
    loads: VecDeque<Arc<str>>,
    /// What is among the loads.
    loading: HashSet<Arc<str>>,
    requested: usize,
}

impl Plan {
    /// Replaces the names that are wanted.
    pub(super) fn want(&mut self, wanted: HashSet<Arc<str>>) {
        let gone = self.names.iter().filter(|(name, state)| state.wanted && !wanted.contains(*name));
        let gone: Vec<_> = gone.map(|(name, _)| Arc::clone(name)).collect();
        for name in gone {
            if let Some(state) = self.names.get_mut(&name) {
                state.wanted = false;
                if state.requested.is_none() {
                    self.forget(&name);
                }
            }
        }
        for name in wanted {
            self.add(name).wanted = true;
        }
    }

    /// Wants a name for a while. False if too many are.
    pub(super) fn request(&mut self, name: Arc<str>, now: SystemTime, most: usize) -> bool {
        let known = self.names.get(&name).is_some_and(|state| state.requested.is_some());
        if !known {
            if self.requested >= most {
                return false;
            }
            self.requested += 1;
        }
        self.add(name).requested = Some(now);
        true
    }

    fn add(&mut self, name: Arc<str>) -> &mut Name {
        let checks = &mut self.checks;
        self.names.entry(Arc::clone(&name)).or_insert_with(|| {
            checks.push_back(name);
            Name {
                phase: Phase::Check,
                again: false,
                wanted: false,
                requested: None,
                failed: None,
                failures_here: 0,
                suggestion: None,
                look: None,
            }
        })
    }

    /// Forgets a name for which nobody has a use any more. True if it is forgotten.
    pub(super) fn forget_unwanted(&mut self, name: &str, now: SystemTime) -> bool {
        let Some(state) = self.names.get_mut(name) else { return true };
        if state.requested.is_some_and(|at| at + REQUESTED_FOR < now) {
            state.requested = None;
            self.requested -= 1;
        }
        if state.wanted || state.requested.is_some() {
            return false;
        }
        self.forget(name);
        true
    }

    fn forget(&mut self, name: &str) {
        self.set_look(name, None);
        // Takes it out of the order it is in. One that is being worked on is not found when that is done.
        self.set_phase(name, Phase::Checking);
        self.names.remove(name);
    }

    pub(super) fn is_known(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Name> {
        self.names.get_mut(name)
    }

    pub(super) fn names(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Name)> {
        self.names.iter()
    }

    /// Something has changed: it must be looked at.
    pub(super) fn touch(&mut self, name: &str) {
        let Some(state) = self.names.get_mut(name) else { return };
        match state.phase {
            Phase::Check => {}
            Phase::Checking | Phase::Ordering => state.again = true,
            Phase::Order(_) | Phase::Rest(_) | Phase::Stalled => self.set_phase(name, Phase::Check),
        }
    }

    /// What was done for a name is done.
    pub(super) fn done(&mut self, name: &str, next: Phase) {
        let Some(state) = self.names.get_mut(name) else { return };
        let next = if std::mem::take(&mut state.again) { Phase::Check } else { next };
        self.set_phase(name, next);
    }

    fn set_phase(&mut self, name: &str, phase: Phase) {
        let Some((name, state)) = self.names.get_key_value(name) else { return };
        let name = Arc::clone(name);
        match state.phase {
            Phase::Order(urgency) => {
                self.orders.remove(&(urgency, Arc::clone(&name)));
            }
            Phase::Rest(until) => {
                self.rests.remove(&(until, Arc::clone(&name)));
            }
            // A queue is not searched: what is not to be checked any more is passed over there.
            Phase::Check | Phase::Checking | Phase::Ordering | Phase::Stalled => {}
        }
        if let Some(state) = self.names.get_mut(&name) {
            state.phase = phase;
        }
        match phase {
            Phase::Check => self.checks.push_back(name),
            Phase::Order(urgency) => {
                self.orders.insert((urgency, name));
            }
            Phase::Rest(until) => {
                self.rests.insert((until, name));
            }
            Phase::Checking | Phase::Ordering | Phase::Stalled => {}
        }
    }

    /// The store answers again: what waited for it is looked at.
    pub(super) fn resume(&mut self) {
        let stalled = self.names.iter().filter(|(_, state)| state.phase == Phase::Stalled);
        let stalled: Vec<_> = stalled.map(|(name, _)| Arc::clone(name)).collect();
        for name in stalled {
            self.set_phase(&name, Phase::Check);
        }
    }

    /// Sets when the authority is asked about a name's certificate.
    pub(super) fn set_look(&mut self, name: &str, at: Option<SystemTime>) {
        let Some((name, state)) = self.names.get_key_value(name) else { return };
        let name = Arc::clone(name);
        if let Some(before) = state.look {
            self.looks.remove(&(before, Arc::clone(&name)));
        }
        if let Some(state) = self.names.get_mut(&name) {
            state.look = at;
        }
        if let Some(at) = at {
            self.looks.insert((at, name));
        }
    }

    /// Whether it is known when the authority is asked about a name's certificate.
    pub(super) fn has_look(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|state| state.look.is_some())
    }

    /// Wants a name's certificate to be read from the store.
    pub(super) fn load(&mut self, name: Arc<str>) {
        if self.loading.insert(Arc::clone(&name)) {
            self.loads.push_back(name);
        }
    }

    pub(super) fn next_load(&mut self) -> Option<Arc<str>> {
        let name = self.loads.pop_front()?;
        self.loading.remove(&name);
        Some(name)
    }

    /// The next name to look at; it counts as being looked at from now on.
    pub(super) fn next_check(&mut self, now: SystemTime) -> Option<Arc<str>> {
        while let Some((until, name)) = self.rests.first()
            && *until <= now
        {
            let name = Arc::clone(name);
            self.set_phase(&name, Phase::Check);
        }
        while let Some(name) = self.checks.pop_front() {
            if self.names.get(&name).is_some_and(|state| state.phase == Phase::Check) {
                self.set_phase(&name, Phase::Checking);
                return Some(name);
            }
        }
        None
    }

    /// The most urgent name to order of those that may be; it counts as being ordered from now on. `may` says no with
    /// whether any other may be.
    pub(super) fn next_order<P>(
        &mut self,
        mut may: impl FnMut(&str) -> Result<P, bool>,
    ) -> Option<(Arc<str>, P)> {
        for (_, name) in &self.orders {
            match may(name) {
                Ok(permit) => {
                    let name = Arc::clone(name);
                    self.set_phase(&name, Phase::Ordering);
                    return Some((name, permit));
                }
                Err(true) => {}
                Err(false) => return None,
            }
        }
        None
    }

    /// The next name about whose certificate the authority is to be asked.
    pub(super) fn next_look(&mut self, now: SystemTime) -> Option<Arc<str>> {
        let (at, name) = self.looks.first()?;
        if *at > now {
            return None;
        }
        let name = Arc::clone(name);
        self.set_look(&name, None);
        Some(name)
    }

    /// When there is something to be done next that nobody tells.
    pub(super) fn next_time(&self) -> Option<SystemTime> {
        let rest = self.rests.first().map(|(at, _)| *at);
        let look = self.looks.first().map(|(at, _)| *at);
        rest.into_iter().chain(look).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn wanting(names: &[&str]) -> Plan {
        let mut plan = Plan::default();
        plan.want(names.iter().map(|name| Arc::from(*name)).collect());
        plan
    }

    fn checked(plan: &mut Plan, now: SystemTime) -> Vec<Arc<str>> {
        let mut names: Vec<_> = std::iter::from_fn(|| plan.next_check(now)).collect();
        names.sort();
        names
    }

    #[test]
    fn a_name_is_looked_at_when_it_is_new_and_when_its_rest_is_over() {
        let mut plan = wanting(&["a", "b"]);

        assert_eq!(checked(&mut plan, NOW), [Arc::from("a"), Arc::from("b")]);
        plan.done("a", Phase::Rest(NOW + SECOND));
        plan.done("b", Phase::Rest(NOW + 2 * SECOND));

        assert_eq!(plan.next_time(), Some(NOW + SECOND));
        assert!(checked(&mut plan, NOW).is_empty());
        assert_eq!(checked(&mut plan, NOW + SECOND), [Arc::from("a")]);
    }

    #[test]
    fn the_most_urgent_is_ordered_first() {
        let mut plan = wanting(&["old", "older", "none", "expired"]);
        checked(&mut plan, NOW);
        plan.done("old", Phase::Order(Urgency::Due(NOW + SECOND)));
        plan.done("older", Phase::Order(Urgency::Due(NOW)));
        plan.done("none", Phase::Order(Urgency::Missing));
        plan.done("expired", Phase::Order(Urgency::Expired));

        let order: Vec<_> =
            std::iter::from_fn(|| plan.next_order(|_| Ok(()))).map(|(name, ())| name.to_string()).collect();
        assert_eq!(order, ["none", "expired", "older", "old"]);
    }

    #[test]
    fn one_that_must_wait_lets_others_pass() {
        let mut plan = wanting(&["a", "b"]);
        checked(&mut plan, NOW);
        plan.done("a", Phase::Order(Urgency::Missing));
        plan.done("b", Phase::Order(Urgency::Missing));

        let next = plan.next_order(|name| if name == "a" { Err(true) } else { Ok(()) });
        assert_eq!(&*next.unwrap().0, "b");
        assert!(plan.next_order::<()>(|_| Err(false)).is_none());
    }

    #[test]
    fn what_changes_meanwhile_is_looked_at_afterwards() {
        let mut plan = wanting(&["a"]);
        checked(&mut plan, NOW);

        plan.touch("a");
        plan.done("a", Phase::Rest(NOW + SECOND));

        assert_eq!(checked(&mut plan, NOW), [Arc::from("a")]);
    }

    #[test]
    fn what_waits_for_the_store_goes_on_when_it_is_back() {
        let mut plan = wanting(&["a", "b"]);
        checked(&mut plan, NOW);
        plan.done("a", Phase::Stalled);
        plan.done("b", Phase::Order(Urgency::Missing));

        assert_eq!(plan.next_time(), None);
        assert!(checked(&mut plan, NOW + SECOND).is_empty());
        plan.resume();

        assert_eq!(checked(&mut plan, NOW), [Arc::from("a")]);
        assert_eq!(&*plan.next_order(|_| Ok(())).unwrap().0, "b");
    }

    #[test]
    fn what_nobody_wants_is_forgotten_whatever_happens_to_it() {
        let mut plan = wanting(&["check", "checking", "rest", "order", "stays"]);
        checked(&mut plan, NOW);
        plan.done("rest", Phase::Rest(NOW));
        plan.set_look("rest", Some(NOW));
        plan.done("order", Phase::Order(Urgency::Missing));
        plan.touch("check");
        plan.done("check", Phase::Rest(NOW));

        plan.want(["stays".into()].into());

        assert_eq!(plan.names().count(), 1);
        plan.done("checking", Phase::Order(Urgency::Missing));
        assert!(plan.next_order(|_| Ok(())).is_none());
        assert!(plan.next_look(NOW).is_none());
        assert!(plan.next_check(NOW).is_none(), "what stays is still being looked at");
    }

    #[test]
    fn requests_are_counted_and_run_out() {
        let mut plan = Plan::default();

        assert!(plan.request("a".into(), NOW, 2));
        assert!(plan.request("b".into(), NOW, 2));
        assert!(!plan.request("c".into(), NOW, 2));
        assert!(plan.request("a".into(), NOW + SECOND, 2), "again is not more");

        let later = NOW + REQUESTED_FOR + SECOND;
        assert!(!plan.forget_unwanted("a", later));
        assert!(plan.forget_unwanted("b", later));
        assert!(plan.request("c".into(), NOW, 2));
    }
}
