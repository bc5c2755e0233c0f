//! HTTP/1 connections to endpoints.
//!
//! Nearly all requests are sent at once: they have no body, or one that is here as a whole. Whoever sends such a request
//! writes it and reads its answer, and then so does whoever reads the answer's body: nothing is handed from task to task,
//! and what it takes stays in the processor's cache. All others, whose bodies come by and by or whose connections are used
//! for something else afterwards, are [`streamed`].

use std::fmt;
use std::io;
use std::io::IoSlice;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;

use bytes::Bytes;
use bytes::BytesMut;
use http::Method;
use http::Request;
use http::Response;
use http::Version;
use http::header;
use hyper::client::conn::TrySendError;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio_util::io::poll_read_buf;
use tower::BoxError;

pub(super) use self::answer::Answer;
use self::head::Head;
pub(super) use self::traffic::Traffic;
use super::Body;
use super::form;
use super::pool::Slot;
use crate::io::Io;

mod answer;
mod framing;
mod head;
pub(super) mod streamed;
mod traffic;

/// Why there is no answer, or not all of one.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the connection was closed before the end of the answer")]
    Cut,
    #[error("the connection broke")]
    Io(#[source] io::Error),
    #[error("the answer cannot be read: {0}")]
    Unreadable(httparse::Error),
    #[error("the answer is malformed: {0}")]
    Malformed(&'static str),
    #[error("the head of the answer is too large")]
    TooLarge,
}

/// A connection for one request at a time.
pub(super) struct Http1 {
    io: Io,
    /// What was read and belongs to an answer that has not been taken yet.
    input: BytesMut,
    /// How much of that has been looked at and holds no whole head.
    seen: usize,
    /// Where heads are made.
    output: Vec<u8>,
}

/// What a connection that waits may keep for its next request.
const MOST_KEPT: usize = 16 * 1024;
/// How much is read at first.
const HEAD_ROOM: usize = 8 * 1024;

impl Http1 {
    pub(super) fn new(io: Io) -> Self {
        Self { io, input: BytesMut::new(), seen: 0, output: Vec::new() }
    }

    /// Gets ready for the time until the next request. False if there is to be none: the server has said something that it
    /// was not asked for.
    pub(super) fn rest(&mut self) -> bool {
        if !self.input.is_empty() {
            return false;
        }
        if self.output.capacity() > MOST_KEPT {
            self.output = Vec::new();
        }
        if self.input.capacity() > MOST_KEPT {
            self.input = BytesMut::new();
        }
        true
    }

    /// Whether the server has closed it, or says something unasked, as far as the kernel has told. If not, `waker` is woken
    /// when the server does.
    pub(super) fn is_closed(&mut self, waker: &Waker) -> bool {
        let mut byte = [0];
        let mut unasked = ReadBuf::new(&mut byte);
        Pin::new(&mut self.io).poll_read(&mut Context::from_waker(waker), &mut unasked).is_ready()
    }

    /// Sends a request with a body that is here as a whole.
    pub(super) fn send(self, request: Request<Body>, body: Bytes, slot: Arc<Slot>) -> Exchange {
        let many = slot.traffic().begin();
        let shared = request.version() == Version::HTTP_2;
        let closes = head::closes(request.headers());
        let request = form::in_http1(request);
        Exchange {
            request: Some(request),
            method: None,
            closes,
            body,
            http1: Some(self),
            slot,
            waited: !many,
            gathered: !(many && shared),
            written: 0,
            head: None,
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        self.input.reserve(room);
        poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input)
    }
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("io", &self.io).finish_non_exhaustive()
    }
}

/// Whether a request leaves its connection as it was, and does not wait for a word of the server before its body goes.
pub(super) fn is_plain(request: &Request<Body>) -> bool {
    let headers = request.headers();
    request.method() != Method::CONNECT
        && !headers.contains_key(header::UPGRADE)
        && !headers.contains_key(header::EXPECT)
}

/// A request on its way, until the head of its answer is there.
///
/// Where many are on their way, one waits until those that came in with it have been read: they are then sent one after the
/// other, and endpoints on the same machine, which each would wake from sleep, are woken once. An answer to an HTTP/2 client
/// does the same: those that came in together then leave in one write.
pub(super) struct Exchange {
    /// Until it is begun.
    request: Option<Request<Body>>,
    /// Its method, from then on.
    method: Option<Method>,
    /// Whether it asks the server to close the connection.
    closes: bool,
    body: Bytes,
    /// Taken with the answer.
    http1: Option<Http1>,
    slot: Arc<Slot>,
    /// Whether others have been read meanwhile, or need not be.
    waited: bool,
    /// The same for its answer, if the client's connection has many.
    gathered: bool,
    /// How much of its head and body.
    written: usize,
    /// That of an answer that came before all was written.
    head: Option<Head>,
}

/// A request without an answer, and the request itself if nothing of it was written.
pub(super) struct Unanswered {
    pub(super) request: Option<Box<Request<Body>>>,
    pub(super) error: BoxError,
}

impl Unanswered {
    fn new(request: Option<Request<Body>>, error: impl Into<BoxError>) -> Self {
        Self { request: request.map(Box::new), error: error.into() }
    }
}

impl From<TrySendError<Request<Body>>> for Unanswered {
    fn from(mut error: TrySendError<Request<Body>>) -> Self {
        Self::new(error.take_message(), error.into_error())
    }
}

/// Whether an exchange has failed since its connection ended, and not since anything was wrong with what was said.
pub(super) fn is_closed(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(broken) = error.downcast_ref::<Broken>() {
        return matches!(broken, Broken::Cut | Broken::Io(_));
    }
    error.downcast_ref::<hyper::Error>().is_some_and(|error| {
        let io = std::error::Error::source(error).is_some_and(|source| source.is::<io::Error>());
        error.is_incomplete_message() || error.is_canceled() || error.is_closed() || io
    })
}

impl Future for Exchange {
    type Output = Result<Response<Body>, Unanswered>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !mem::replace(&mut this.waited, true) {
            // Behind all that can go on at this moment.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(http1) = &mut this.http1 else { return Poll::Pending };
        if let Some(request) = this.request.take() {
            if http1.is_closed(cx.waker()) {
                this.request = Some(request);
                return this.fail(Broken::Cut);
            }
            http1.output.clear();
            head::write(&mut http1.output, &request, this.body.len());
            this.method = Some(request.into_parts().0.method);
        }
        let Some(method) = &this.method else { return Poll::Pending };
        let (all, lost) = match http1.poll_write(&this.body, &mut this.written, cx) {
            Poll::Ready(Ok(())) => (true, None),
            Poll::Ready(Err(error)) => (false, Some(error)),
            Poll::Pending => (false, None),
        };
        // Also before all is written: a server may refuse a request of which it has seen enough.
        let head = match this.head.take() {
            Some(head) => Poll::Ready(Ok(head)),
            None => http1.poll_head(method, cx),
        };
        match (head, lost) {
            (Poll::Ready(Ok(mut head)), lost) => {
                let refused =
                    head.response.status().is_client_error() || head.response.status().is_server_error();
                if !all && lost.is_none() && !refused {
                    // It may wait for the rest before it goes on with its answer.
                    this.head = Some(head);
                    return Poll::Pending;
                }
                if !mem::replace(&mut this.gathered, true) {
                    this.head = Some(head);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                head.keep_alive &= all && !this.closes;
                let Some(http1) = this.http1.take() else { return Poll::Pending };
                Poll::Ready(Ok(Answer::body(head, http1, &this.slot)))
            }
            (Poll::Ready(Err(error)), None) => this.fail(error),
            // Why it could not be written says more than that nothing was read.
            (_, Some(error)) => this.fail(Broken::Io(error)),
            (Poll::Pending, None) => Poll::Pending,
        }
    }
}

impl Exchange {
    fn fail(&mut self, error: Broken) -> Poll<Result<Response<Body>, Unanswered>> {
        self.http1 = None;
        Poll::Ready(Err(Unanswered::new(self.request.take(), error)))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.slot.traffic().end();
    }
}

impl Http1 {
    /// Writes what is left of a head and a body.
    fn poll_write(&mut self, body: &[u8], written: &mut usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let all = self.output.len() + body.len();
        while *written < all {
            let head = self.output.get(*written..).unwrap_or_default();
            let body = &body[written.saturating_sub(self.output.len())..];
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let io = Pin::new(&mut self.io);
            let n = ready!(match (head, body) {
                (_, []) => io.poll_write(cx, head),
                ([], _) => io.poll_write(cx, body),
                _ => io.poll_write_vectored(cx, &parts),
            })?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += n;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_head(&mut self, method: &Method, cx: &mut Context<'_>) -> Poll<Result<Head, Broken>> {
        loop {
            if head::may_end(&self.input, self.seen)
                && let Some(head) = head::parse(&mut self.input, method)?
            {
                self.seen = 0;
                return Poll::Ready(Ok(head));
            }
            if self.input.len() > head::MAX_HEAD_BYTES {
                return Poll::Ready(Err(Broken::TooLarge));
            }
            self.seen = self.input.len();
            let n = ready!(self.poll_more(cx, HEAD_ROOM)).map_err(Broken::Io)?;
            if n == 0 {
                return Poll::Ready(Err(Broken::Cut));
            }
        }
    }
}
