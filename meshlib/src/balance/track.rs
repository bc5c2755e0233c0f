//! When the work of a request has ended.

use tower::load::TrackCompletion;

use super::set::InFlight;
use crate::io::Io;

/// A request's work lasts until its answer is dropped: until the connection is closed, the body read.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct UntilEnd {}

impl UntilEnd {
    /// There are no options.
    pub const fn new() -> Self {
        Self {}
    }
}

impl TrackCompletion<InFlight, Io> for UntilEnd {
    type Output = Io;

    fn track_completion(&self, guard: InFlight, mut io: Io) -> Io {
        io.set_answer_times(guard.answer_times());
        io.hold(guard);
        io
    }
}

#[cfg(feature = "http")]
impl TrackCompletion<InFlight, http::Response<crate::http::Body>> for UntilEnd {
    type Output = http::Response<crate::http::Body>;

    fn track_completion(&self, guard: InFlight, response: Self::Output) -> Self::Output {
        response.map(|body| body.holding(guard))
    }
}
