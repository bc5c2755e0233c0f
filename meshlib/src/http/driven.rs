//! HTTP/1 connections to endpoints that have no task of their own.
//!
//! Whoever sends a request moves the bytes of its connection, and then so does whoever reads the answer. A request thus
//! goes to its endpoint in the same turn in which it came in, and so does its answer: nothing is handed from task to task,
//! and what a request needs stays in the processor's cache.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use http::Request;
use http::Response;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::Connection;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tower::BoxError;

use super::Body;
use super::pool::Slot;
use crate::io::Io;

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

    /// Sends a request and waits for the head of its answer.
    pub(super) fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> + Send {
        let driver = &mut self.driver;
        // What the request wakes is moved right below.
        driver.relay.task.take();
        let answer = self.sender.try_send_request(request);
        async move {
            let mut answer = std::pin::pin!(answer);
            std::future::poll_fn(|cx| driver.poll(cx, |silent| answer.as_mut().poll(silent))).await
        }
    }

    /// Leaves the connection to a task: for what follows an upgrade, and for requests whose bodies may still be on their way
    /// when nobody asks for more of their answers.
    pub(super) fn detach(&mut self) {
        if let Some(connection) = self.driver.connection.take() {
            // Ends when the peer closes, or nobody has a use for the connection.
            tokio::spawn(connection);
        }
    }
}

/// What moves the bytes of a connection.
struct Driver {
    /// None if it has ended, or a task has it.
    connection: Option<Moves>,
    relay: Arc<Relay>,
    /// Of the relay.
    waker: Waker,
}

/// A connection that ends when it is closed. Its type has no name.
type Moves = BoxFuture<'static, Result<(), hyper::Error>>;

/// Passes on to a task that the connection can go on, unless the task is at it: then it only notes that.
///
/// The connection holds this one waker for as long as it lives, whichever task uses it.
#[derive(Default)]
struct Relay {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the task is woken, and read by it after it has registered: one of both is seen.
        self.woken.store(true, Ordering::SeqCst);
        self.task.wake();
    }
}

impl Driver {
    fn new(connection: Moves) -> Self {
        let relay = Arc::<Relay>::default();
        let waker = Waker::from(Arc::clone(&relay));
        // It has not been asked yet and tells nothing before that.
        relay.woken.store(true, Ordering::SeqCst);
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
            if !self.relay.woken.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves what can be moved.
    fn drive(&mut self) {
        self.relay.woken.store(false, Ordering::SeqCst);
        let Some(connection) = &mut self.connection else { return };
        // What went wrong is told to the request and to the body of its answer.
        if connection.as_mut().poll(&mut Context::from_waker(&self.waker)).is_ready() {
            self.connection = None;
        }
    }

    /// The same if the connection has asked for it.
    fn catch_up(&mut self) {
        if self.relay.woken.load(Ordering::SeqCst) {
            self.drive();
        }
    }
}

/// How often a connection that always has more to do is moved before others have their turn.
const TURNS: u32 = 4;

/// The body of an answer, which moves the bytes of its connection and gives it back at its end.
pub(super) struct Answer {
    incoming: Incoming,
    /// Taken when it is given back.
    http1: Option<Http1>,
    slot: Arc<Slot>,
    ended: bool,
}

impl Answer {
    /// The body of an answer that came on `http1`.
    pub(super) fn body(incoming: Incoming, http1: Http1, slot: Arc<Slot>) -> Body {
        let answer = Self { incoming, http1: Some(http1), slot, ended: false };
        // One that has ended gives its connection back at once.
        if answer.incoming.is_end_stream() { Body::empty() } else { Body::answer(Box::new(answer)) }
    }

    pub(super) fn poll_frame(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { incoming, http1, .. } = self;
        let mut read = |cx: &mut Context<'_>| Pin::new(&mut *incoming).poll_frame(cx);
        let frame = match read(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => frame,
            Poll::Pending => match http1 {
                Some(http1) => std::task::ready!(http1.driver.poll(cx, read)),
                // Nobody reads on after the end.
                None => None,
            },
        };
        self.ended = frame.is_none();
        Poll::Ready(frame.map(|it| it.map_err(Into::into)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
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
