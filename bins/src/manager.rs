//! What the service manager is told, if one has started the program that wants to know (systemd's `Type=notify`).

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time;
use tokio::time::Interval;
use tokio::time::MissedTickBehavior;

use crate::log;

/// That the program serves, and what.
pub fn ready(serving: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(serving)]);
}

/// That the program ends, which may take as long as the grace.
pub fn stopping(grace: Duration) {
    let status = format!("draining for up to {grace:?}");
    tell(&[NotifyState::Stopping, NotifyState::Status(&status)]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(target: log::PROCESS, %error, "the service manager was not told");
    }
}

/// Tells that the control runtime still turns, as often as the manager wants to hear it (`WatchdogSec`). Workers have
/// runtimes of their own, about which this says nothing.
#[derive(Debug)]
pub struct Watchdog(Option<Interval>);

impl Watchdog {
    /// For what the variables `WATCHDOG_USEC` and `WATCHDOG_PID` say. Must be called in a runtime.
    pub fn new() -> Self {
        Self(sd_notify::watchdog_enabled().filter(|within| !within.is_zero()).map(|within| {
            // As systemd itself advises, and once more.
            let mut interval = time::interval(within / 3);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        }))
    }

    /// Tells it, again and again.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn feed(&mut self) {
        let Some(interval) = &mut self.0 else {
            return std::future::pending().await;
        };
        loop {
            interval.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}
