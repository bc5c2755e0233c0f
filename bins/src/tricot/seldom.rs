//! Lines about what may happen with every request, written now and then.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

/// Lets one line through in [`PAUSE`], and counts what the others would have been about.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// It has happened. If it is time to say so: how often since it was said last.
    pub(super) fn happened(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.times += 1;
        if state.told.is_some_and(|told| told.elapsed() < PAUSE) {
            return None;
        }
        state.told = Some(Instant::now());
        Some(std::mem::take(&mut state.times))
    }
}

/// Often enough to see that it goes on.
const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_said_once_in_a_while_and_how_often_it_was() {
        let seldom = Seldom::default();

        assert_eq!(seldom.happened(), Some(1));
        assert_eq!((seldom.happened(), seldom.happened()), (None, None));
        time::advance(PAUSE).await;
        assert_eq!((seldom.happened(), seldom.happened()), (Some(3), None));
    }
}
