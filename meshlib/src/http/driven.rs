//! HTTP/1 connections to endpoints that have no task of their own.
//!
//! Whoever sends a request moves the bytes of its connection, and then so does whoever reads the answer: nothing is handed
//! from task to task. What needs to go out goes out in the same turn in which it came in, and what it takes stays in the
//! processor's cache. Only where many requests are on their way does one wait until those that came in with it have been
//! read: they are then sent one after the other, and endpoints on the same machine, which each would wake from sleep, are
//! woken once.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::Connection;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use pin_project::pin_project;
use tower::BoxError;

use super::Body;
use super::pool::Slot;
use crate::io::Io;
use crate::relay::Relay;

/// A connection for one request at a time.
pub(super) struct Http1 {
    sender: SendRequest<Body>,
    driver: Driver,
}

impl Http1 {
    pub(super) fn new(sender: SendRequest<Body>, connection: Connection<TokioIo<Io>, Body>) -> Self {
        Self { sender, driver: Driver::new(Box::pin(connection.with_upgrades())) }
    }

    /// Whether it has been closed, as far as the kernel has told.
    pub(super) fn is_closed(&mut self) -> bool {
        self.driver.catch_up();
        self.sender.is_closed()
    }

    /// Nobody uses it from here on; what it has to say wakes `stirred`.
    pub(super) fn rest(&self, stirred: &Waker) {
        self.driver.relay.task.register(stirred);
    }

    /// Whether the next request may be sent. It may not while the last one is still being sent, of which the answer came
    /// early.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Sends a request. The connection goes on with the body of the answer, which gives it back to `slot` at its end.
    pub(super) fn send(
        mut self,
        request: Request<Body>,
        slot: Arc<Slot>,
    ) -> impl Future<Output = Result<Response<Body>, TrySendError<Request<Body>>>> + Send {
        // What the request wakes is moved when the answer is asked for.
        self.driver.relay.task.take();
        let settled = request.body().is_end_stream();
        let answer = self.sender.try_send_request(request);
        let (on_way, many) = OnWay::new(slot);
        let waited = !many;
        Sent { answer, http1: Some(self), on_way, settled, waited }
    }

    /// Leaves the connection to a task: for what follows an upgrade, and for requests whose bodies may still be on their way
    /// when nobody asks for more of their answers.
    fn detach(&mut self) {
        if let Some(connection) = self.driver.connection.take() {
            // Ends when the peer closes, or nobody has a use for the connection.
            tokio::spawn(connection);
        }
    }
}

/// A request on its way, until the head of its answer is there.
///
/// Not an async block: that would keep hyper's future, and with it the request, twice.
#[pin_project]
struct Sent<F> {
    #[pin]
    answer: F,
    /// Taken with the answer.
    http1: Option<Http1>,
    on_way: OnWay,
    /// Whether the request has been sent as a whole when its head has been.
    settled: bool,
    /// Whether others have been read meanwhile, or need not be.
    waited: bool,
}

/// A request that has no answer yet.
struct OnWay {
    slot: Arc<Slot>,
}

impl OnWay {
    /// Also says whether there are many.
    fn new(slot: Arc<Slot>) -> (Self, bool) {
        let many = slot.traffic().begin();
        (Self { slot }, many)
    }
}

impl Drop for OnWay {
    fn drop(&mut self) {
        self.slot.traffic().end();
    }
}

/// How many requests have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    now: AtomicUsize,
    /// The most that there were lately: it falls by one with each request.
    lately: AtomicUsize,
}

/// So many requests on their way are worth being sent together.
const MANY: usize = 8;

impl Traffic {
    /// Counts a request. True if there are many lately: between two batches there are none for a moment.
    fn begin(&self) -> bool {
        // Relaxed, and not in one step: if two threads count at once, the peak is off by one.
        let now = self.now.fetch_add(1, Ordering::Relaxed);
        let lately = self.lately.load(Ordering::Relaxed);
        let peak = now.max(lately.saturating_sub(1));
        if peak != lately {
            self.lately.store(peak, Ordering::Relaxed);
        }
        peak >= MANY
    }

    fn end(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<F> Future for Sent<F>
where
    F: Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>>,
{
    type Output = Result<Response<Body>, TrySendError<Request<Body>>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if !mem::replace(this.waited, true) {
            // Behind all that can go on at this moment.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(http1) = this.http1 else { return Poll::Pending };
        let response = ready!(http1.driver.poll(cx, |silent| this.answer.as_mut().poll(silent)))?;
        let Some(mut http1) = this.http1.take() else { return Poll::Pending };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // After an upgrade the connection belongs to others.
            http1.detach();
            return Poll::Ready(Ok(response.map(Body::from)));
        }
        if !*this.settled {
            http1.detach();
        }
        Poll::Ready(Ok(response.map(|body| Answer::body(body, http1, Arc::clone(&this.on_way.slot)))))
    }
}

/// What moves the bytes of a connection.
struct Driver {
    /// None if it has ended, or a task has it.
    connection: Option<Moves>,
    /// What the connection wakes.
    relay: Arc<Relay>,
    /// Of the relay.
    waker: Waker,
}

/// A connection that ends when it is closed. Its type has no name.
type Moves = BoxFuture<'static, Result<(), hyper::Error>>;

impl Driver {
    fn new(connection: Moves) -> Self {
        let relay = Relay::called();
        let waker = Waker::from(Arc::clone(&relay));
        Self { connection: Some(connection), relay, waker }
    }

    /// Moves bytes until `outcome` is ready. As long as nobody but the connection makes it so, it is asked without a waker.
    fn poll<T>(&mut self, cx: &Context<'_>, mut outcome: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let silent = &mut Context::from_waker(Waker::noop());
        for _ in 0..TURNS {
            self.relay.task.take();
            self.drive();
            if self.connection.is_none() {
                // A task has it, or it has ended and told everybody.
                return outcome(&mut Context::from_waker(cx.waker()));
            }
            if let Poll::Ready(outcome) = outcome(silent) {
                return Poll::Ready(outcome);
            }
            self.relay.task.register(cx.waker());
            if !self.relay.has_called() {
                return Poll::Pending;
            }
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves what can be moved.
    fn drive(&mut self) {
        self.relay.take();
        let Some(connection) = &mut self.connection else { return };
        // What went wrong is told to the request and to the body of its answer.
        if connection.as_mut().poll(&mut Context::from_waker(&self.waker)).is_ready() {
            self.connection = None;
        }
    }

    /// The same if the connection has asked for it.
    fn catch_up(&mut self) {
        if self.relay.has_called() {
            self.drive();
        }
    }
}

/// How often a connection that always has more to do is moved before others have their turn.
const TURNS: u32 = 4;

/// The body of an answer, which moves the bytes of its connection and gives it back at its end.
pub(super) struct Answer {
    incoming: Incoming,
    /// What had come with the head.
    first: Option<Result<Frame<Bytes>, hyper::Error>>,
    /// Taken when it is given back.
    http1: Option<Http1>,
    slot: Arc<Slot>,
    ended: bool,
}

impl Answer {
    /// The body of an answer that came on `http1`.
    fn body(incoming: Incoming, http1: Http1, slot: Arc<Slot>) -> Body {
        let mut answer = Self { incoming, first: None, http1: Some(http1), slot, ended: false };
        // One that has come as a whole, as small ones do, gives its connection back at once.
        if answer.incoming.is_end_stream() {
            return Body::empty();
        }
        let silent = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut answer.incoming).poll_frame(silent) {
            match frame {
                None => {
                    answer.ended = true;
                    return Body::empty();
                }
                Some(Ok(frame)) if answer.incoming.is_end_stream() && frame.is_data() => {
                    return frame.into_data().unwrap_or_default().into();
                }
                first => answer.first = first,
            }
        }
        let within = answer.slot.body_within();
        Body::answer(Box::new(answer), within)
    }

    pub(super) fn poll_frame(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { incoming, first, http1, .. } = self;
        if let Some(first) = first.take() {
            return Poll::Ready(Some(first.map_err(Into::into)));
        }
        let mut read = |cx: &mut Context<'_>| Pin::new(&mut *incoming).poll_frame(cx);
        let frame = match read(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => frame,
            Poll::Pending => match http1 {
                Some(http1) => ready!(http1.driver.poll(cx, read)),
                // Nobody reads on after the end.
                None => None,
            },
        };
        self.ended = frame.is_none();
        Poll::Ready(frame.map(|it| it.map_err(Into::into)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let mut hint = self.incoming.size_hint();
        let first = self.first.as_ref().and_then(|first| first.as_ref().ok()).and_then(Frame::data_ref);
        if let Some(first) = first {
            let first = first.len() as u64;
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper + first);
            }
            hint.set_lower(hint.lower() + first);
        }
        hint
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Some(mut http1) = self.http1.take() else { return };
        if !self.ended && !self.incoming.is_end_stream() {
            // Nobody wants the rest: the connection is closed.
            return;
        }
        http1.driver.relay.task.take();
        if !http1.is_ready() {
            // It has not looked for the next request since the end of the answer.
            http1.driver.drive();
        }
        self.slot.put(http1);
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("ended", &self.ended).finish_non_exhaustive()
    }
}
