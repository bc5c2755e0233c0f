//! Looking after the rules while the proxy runs.
//!
//! Others may change or remove them: a firewall that is loaded anew, `iptables -F`. Connections go past the proxy then, and
//! it sees nothing of them. Rules are set again when somebody asks for it, and not before: two programs that restore what is
//! theirs would fight for ever.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use meshlib::observe::prometheus::Gauge;
use meshlib::tproxy::rules::Difference;
use tokio::sync::Notify;
use tokio::task;
use tokio::time;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;

use super::rules::Applied;
use crate::kit::cli::Failure;

/// How often rules are looked at: soon enough to be told before clients tell, and seldom enough for the processes that it
/// takes, see [`Applied::look`].
const INTERVAL: Duration = Duration::from_secs(10);

/// Differences that are told; of more it is said how many there are.
const TOLD: usize = 20;

/// Looks at the rules until the end begins, and sets them again when that is asked for.
pub(super) async fn run(watch: Arc<Watch>) {
    let mut ticks = time::interval_at(Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !watch.found().is_ending {
        let asked = tokio::select! {
            _ = ticks.tick() => false,
            () = watch.asked.notified() => true,
        };
        let watch = Arc::clone(&watch);
        // One at a time, so that nobody looks while they are being set. It does not panic.
        let _ = task::spawn_blocking(move || match asked {
            true => watch.set_again(),
            false => _ = watch.look(),
        })
        .await;
    }
}

/// The rules of a proxy that runs.
#[derive(Debug)]
pub(super) struct Watch {
    applied: Applied,
    /// Whether they stay when the proxy ends.
    is_kept: bool,
    /// Held by whoever changes them.
    changing: Mutex<()>,
    found: Mutex<Found>,
    intact: Gauge,
    /// Somebody wants them set again.
    asked: Notify,
}

/// What has been found so far.
#[derive(Debug, Default)]
struct Found {
    differences: Differences,
    /// Whether the last look came to nothing.
    is_blind: bool,
    /// The end has begun. What is found after that means nothing, and no rule is set.
    is_ending: bool,
}

impl Watch {
    /// Rules that are as they were set.
    pub(super) fn new(applied: Applied, is_kept: bool, intact: Gauge) -> Self {
        Self {
            applied,
            is_kept,
            changing: Mutex::default(),
            found: Mutex::default(),
            intact,
            asked: Notify::new(),
        }
    }

    /// Has them set again soon, if they are not as they were set.
    pub(super) fn ask_again(&self) {
        self.asked.notify_one();
    }

    /// Why no traffic should be sent here, if they are to blame. A line with the first difference; the log has more.
    pub(super) fn reason(&self) -> Option<String> {
        let found = self.found();
        let Differences { first, count } = &found.differences;
        let first = first.first()?;
        let differences = match count {
            1 => "1 difference".to_owned(),
            count => format!("{count} differences, the first"),
        };
        Some(format!(
            "the rules are not as they were set, and connections may go past; HUP sets them again; {differences}: {first}"
        ))
    }

    /// Lets new connections go past the proxy, unless the rules are kept. They are not looked at any more.
    pub(super) fn release(&self) -> Result<(), Failure> {
        let _changing = self.end();
        if self.is_kept { Ok(()) } else { self.applied.release() }
    }

    /// Removes them, unless they are kept.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        let _changing = self.end();
        if self.is_kept { Ok(()) } else { self.applied.remove() }
    }

    /// Begins the end. Waits for whoever is setting them now, since only whole rules can be left or removed.
    fn end(&self) -> MutexGuard<'_, ()> {
        self.found().is_ending = true;
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_again(&self) {
        if self.look() == Some(true) {
            tracing::info!(
                target: "tproxy_poc",
                signal = "HUP",
                "there is nothing to load again: the rules are as they were set"
            );
            return;
        }
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.found().is_ending {
            return;
        }
        let set = self.applied.set_again();
        drop(changing);
        if let Err(error) = set {
            tracing::error!(target: "tproxy_poc", %error, "the rules cannot be set again");
        }
        self.look();
    }

    /// Looks whether the rules are as they were set, and tells what is new about that. `None`: it cannot be known.
    fn look(&self) -> Option<bool> {
        let looked = self.applied.look();
        // Whoever asks for a page wants this too: nothing is logged under the lock.
        let mut found = self.found();
        // What the end removes is not missed.
        if found.is_ending {
            return None;
        }
        let was_blind = mem::replace(&mut found.is_blind, looked.is_err());
        let differences = match looked {
            Ok(differences) => Differences::new(&differences),
            Err(error) => {
                drop(found);
                // It says nothing about the rules.
                if !was_blind {
                    tracing::warn!(target: "tproxy_poc", %error, "cannot look whether the rules are as they were set");
                }
                return None;
            }
        };
        let is_whole = differences.count == 0;
        self.intact.set(is_whole.into());
        let is_new = differences != found.differences;
        found.differences = differences.clone();
        drop(found);
        match is_new {
            true if is_whole => tracing::info!(target: "tproxy_poc", "the rules are again as they were set"),
            true => tracing::warn!(
                target: "tproxy_poc",
                %differences,
                "somebody has changed the rules: connections may go past the proxy; HUP sets them again"
            ),
            false => {}
        }
        Some(is_whole)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the rules differ from those that were set, as far as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Differences {
    first: Vec<String>,
    count: usize,
}

impl Differences {
    fn new(all: &[Difference]) -> Self {
        Self { first: all.iter().take(TOLD).map(ToString::to_string).collect(), count: all.len() }
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join("; "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_differences_some_are_told() {
        let all: Vec<_> = (0..TOLD + 3).map(|n| Difference::Missing(format!("rule {n}"))).collect();

        assert_eq!(Differences::new(&all[..2]).to_string(), "- rule 0; - rule 1");
        let told = Differences::new(&all).to_string();
        assert!(told.starts_with("- rule 0; ") && told.ends_with("; - rule 19; and 3 more"), "{told}");
    }
}
