//! A clock that is set by the test.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::SystemTime;

use meshlib::tls::acme::Clock;

#[derive(Debug)]
pub(crate) struct Set(Mutex<Duration>);

impl Set {
    /// One that is right.
    pub(crate) fn now() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for Set {
    fn now(&self) -> SystemTime {
        SystemTime::now() + *self.0.lock().unwrap()
    }
}
