//! What signals ask for.

use std::io;

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// The signals that the program heeds.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user: Signal,
}

/// What a signal asks for.
pub(super) enum Asked {
    /// To end, by this signal.
    End(&'static str),
    /// To read again what is not followed by itself.
    Reload,
    /// To try again what has failed. Apart from the other, which may happen by a clock and must not end a pause.
    Retry,
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// What the next signal asks for.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End("TERM"),
            _ = self.interrupt.recv() => Asked::End("INT"),
            _ = self.hang_up.recv() => Asked::Reload,
            _ = self.user.recv() => Asked::Retry,
        }
    }

    /// The next signal that ends the program.
    pub(super) async fn end(&mut self) -> &'static str {
        loop {
            if let Asked::End(signal) = self.next().await {
                return signal;
            }
        }
    }
}
