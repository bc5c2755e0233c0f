//! A deadline for streams of HTTP/2 whose clients take nothing.
//!
//! A client that gives a stream no credit leaves the socket as it is, so that a deadline for writes never passes. hyper asks
//! a body for the next frame as soon as it could pass on the last one: a frame after which it does not ask again waits for
//! the client.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as HttpBody;
use http_body::Frame;
use http_body::SizeHint;
use hyper::rt::Executor;
use pin_project::pin_project;
use tokio::time;
use tokio::time::Instant;
use tokio::time::Sleep;
use tower::BoxError;

use super::Body;

#[cfg(test)]
mod tests;

/// Runs the streams of a connection. One whose client has left the last frame of an [`Offered`] body untaken for a while is
/// dropped, which resets it.
#[derive(Clone, Debug)]
pub(super) struct StreamDeadline {
    within: Duration,
}

impl StreamDeadline {
    /// Lets frames wait up to `within`.
    pub(super) fn new(within: Duration) -> Self {
        Self { within }
    }
}

impl<F> Executor<F> for StreamDeadline
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // Ends with the stream, or with the connection, of which the stream is told.
        tokio::spawn(Limited { stream, within: self.within, deadline: None, timer: None });
    }
}

/// Who has to do something for a stream to go on.
#[derive(Clone, Copy)]
enum Turn {
    Endpoint,
    Client,
}

tokio::task_local! {
    /// What a body tells the stream that it is polled by: whose turn it is, if that was asked.
    static TURN: Cell<Option<Turn>>;
}

/// A stream that ends when its client has not taken a frame for a while.
///
/// A stream that never has to wait for its client costs nothing. The first frame that has to wait allocates a timer, and
/// those after it set it anew only when it has run out.
#[pin_project]
struct Limited<F> {
    #[pin]
    stream: F,
    within: Duration,
    /// When the frame that waits has waited for too long.
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future<Output = ()>> Future for Limited<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let (outcome, turn) =
            TURN.sync_scope(Cell::new(None), || (this.stream.poll(cx), TURN.with(Cell::get)));
        if outcome.is_ready() {
            return outcome;
        }
        match turn {
            None => {}
            Some(Turn::Endpoint) => *this.deadline = None,
            Some(Turn::Client) => *this.deadline = Instant::now().checked_add(*this.within),
        }
        let Some(deadline) = *this.deadline else { return Poll::Pending };
        let timer = this.timer.get_or_insert_with(|| Box::pin(time::sleep_until(deadline)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                break;
            }
            timer.as_mut().reset(deadline);
        }
        tracing::debug!(after = ?this.within, "a client takes nothing of an answer");
        Poll::Ready(())
    }
}

/// A body that tells the stream which it is polled by whose turn it is.
pub(super) struct Offered {
    body: Body,
    /// What is left of the last frame.
    rest: Bytes,
}

/// Most bytes of a frame. Of a larger one it could not be seen that a slow client takes it.
const OFFERED: usize = 32 * 1024;

impl Offered {
    /// Offers a body to a client.
    pub(super) fn new(body: Body) -> Self {
        Self { body, rest: Bytes::new() }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.rest.is_empty() {
            let n = self.rest.len().min(OFFERED);
            return Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(n)))));
        }
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(data) = frame.data_mut()
            && data.len() > OFFERED
        {
            self.rest = data.split_off(OFFERED);
        }
        Poll::Ready(frame)
    }
}

impl HttpBody for Offered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.get_mut().next(cx);
        let turn = if frame.is_pending() { Turn::Endpoint } else { Turn::Client };
        // Whoever polls it elsewhere does not want to know.
        let _ = TURN.try_with(|it| it.set(Some(turn)));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, hint) = (self.rest.len() as u64, self.body.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}
