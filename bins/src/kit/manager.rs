//! What the service manager is told, if one has started the program that wants to know (systemd's `Type=notify`).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::time::ClockId;
use rustix::time::clock_gettime;
use tokio::time;
use tokio::time::Interval;
use tokio::time::MissedTickBehavior;

use crate::kit::log;

/// That the program serves, and what.
pub fn ready(serving: &str) {
    tell(&format!("READY=1\nSTATUS={serving}\n"));
}

/// That the program loads its configuration again; [`ready`] says that it has.
pub fn reloading() {
    // By this time the manager tells it from what was sent before it asked (`Type=notify-reload`).
    let now = clock_gettime(ClockId::Monotonic);
    let micros = Duration::try_from(now).map_or(0, |now| now.as_micros());
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
}

/// That the program ends, which may take as long as the grace.
pub fn stopping(grace: Duration) {
    tell(&format!("STOPPING=1\nSTATUS=draining for up to {grace:?}\n"));
}

/// Waits for nobody: a manager that does not read may miss it. `sd_notify::notify` would wait for it, and with it whoever
/// turns the control runtime.
fn tell(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return;
    };
    let told = || -> io::Result<()> {
        let addr = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), &addr)?;
        Ok(())
    };
    if let Err(error) = told() {
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
            tell("WATCHDOG=1\n");
        }
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}
