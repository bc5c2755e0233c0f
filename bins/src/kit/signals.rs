//! What signals ask a program for.

use std::io;

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::kit::log;

/// What a program is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Asked {
    /// To end, by the signal of this name.
    End(&'static str),
    /// To do something, and go on.
    Do(Order),
}

/// Something that a program does without ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Look at once at what is followed by itself, and read again what is not.
    Reload,
    /// Try again what has failed. Apart from the other, which may happen by a clock and must not end a pause.
    Retry,
}

/// The signals that a program heeds: TERM, INT and QUIT end it, HUP makes it reload, USR1 try again.
///
/// From the moment they are installed none of these ends the process by itself, so that they come before anything that
/// would have to be tidied up.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
    user: Signal,
}

impl Signals {
    /// Heeds them from now on, for the life of the process. Must be called in a runtime.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End("TERM"),
            _ = self.interrupt.recv() => Asked::End("INT"),
            _ = self.quit.recv() => Asked::End("QUIT"),
            _ = self.hang_up.recv() => Asked::Do(Order::Reload),
            _ = self.user.recv() => Asked::Do(Order::Retry),
        }
    }
}

/// For a program that has nothing to reload or to try again: it says so.
pub fn nothing_to_do(order: Order) {
    match order {
        Order::Reload => {
            tracing::info!(target: log::PROCESS, signal = "HUP", "there is nothing to load again")
        }
        Order::Retry => {
            tracing::info!(target: log::PROCESS, signal = "USR1", "there is nothing to try again")
        }
    }
}
