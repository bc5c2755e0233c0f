//! Waiting to within microseconds.
//!
//! The runtime's timer counts milliseconds, which is coarser than the latencies measured here. A kernel timer
//! as a descriptor is exact and still lets the thread sleep.

use std::io;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Duration, Instant};

/// A timer of its own, for one waiter at a time.
#[derive(Debug)]
pub(crate) struct Alarm {
    // A timer is not a pipe, but all that the receiver does is wait for readiness and read(2), which is how a
    // timer works too, timerfd_create(2). tokio's general wrapper for descriptors wants `unsafe`; this one
    // owns its descriptor and does not.
    timer: Receiver,
}

impl Alarm {
    /// Opens a timer on the current runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer: Receiver::from_owned_fd_unchecked(timer)? })
    }

    /// Returns at `at`, or at once if that has passed.
    pub(crate) async fn until(&self, at: Instant) -> io::Result<()> {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        loop {
            self.timer.readable().await?;
            let mut ticks = [0; 8];
            match self.timer.try_read(&mut ticks) {
                // Readiness may be left over from an earlier wait.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done.map(drop),
            }
        }
    }

    /// Returns after `wait`.
    pub(crate) async fn after(&self, wait: Duration) -> io::Result<()> {
        self.until(Instant::now() + wait).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_at_least_as_long_as_asked() {
        let alarm = Alarm::new().unwrap();
        let before = Instant::now();

        for _ in 0..5 {
            alarm.after(Duration::from_micros(300)).await.unwrap();
        }

        assert!(before.elapsed() >= Duration::from_micros(1500));
    }
}
