//! What requests and answers carry.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use futures::Stream;
use http_body::Body as HttpBody;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use pin_project::pin_project;
use tokio::runtime::Handle;
use tokio::time;
use tokio::time::Sleep;
use tower::BoxError;

use super::HttpError;
use super::exchange::Answer;
use crate::error::Side;

/// A stream of bytes with an end, of known length or not.
///
/// An enum, so that what is passed on as it came in is not boxed.
pub struct Body {
    kind: Kind,
    /// What lives until the body has ended.
    held: Option<Box<dyn Send>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    Answer(Box<Answer>),
    Timed(Box<Timed>),
    Boxed(Pin<Box<dyn HttpBody<Data = Bytes, Error = BoxError> + Send>>),
    /// A body that several requests may use; the first that reads it has it.
    Shared(Arc<Mutex<Option<Body>>>, SizeHint),
}

impl Body {
    /// No bytes.
    pub const fn empty() -> Self {
        Self { kind: Kind::Empty, held: None }
    }

    /// Any other body.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Kind::Boxed(Box::pin(MapError { body })).into()
    }

    /// Chunks as they come, of unknown length.
    pub fn from_stream(stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        Kind::Boxed(Box::pin(Chunks { stream })).into()
    }

    /// Whether all of it is here: nobody has to be waited for.
    pub fn is_whole(&self) -> bool {
        matches!(self.kind, Kind::Empty | Kind::Full(_))
    }

    /// The bytes, if they are few and all of them are here or can be had without waiting. They stay in the body.
    pub(super) fn whole(&mut self) -> Option<Bytes> {
        match &mut self.kind {
            Kind::Empty => return Some(Bytes::new()),
            Kind::Full(bytes) => return (bytes.len() as u64 <= MOST_WHOLE).then(|| bytes.clone()),
            Kind::Shared(cell, _) => {
                return cell.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.whole();
            }
            _ => {}
        }
        if self.size_hint().exact().is_none_or(|length| length > MOST_WHOLE) {
            return None;
        }
        let frame = Pin::new(&mut *self).poll_frame(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(frame) = frame else { return None };
        let bytes = match frame.map(|frame| frame.map(Frame::into_data)) {
            None => Bytes::new(),
            Some(Ok(Ok(bytes))) if self.is_end_stream() => bytes,
            first => {
                // Back to where it was.
                let first = first.map(|it| it.map(|it| it.map_or_else(|frame| frame, Frame::data)));
                let Self { kind, held } = std::mem::take(self);
                self.held = held;
                self.kind = Kind::Boxed(Box::pin(Begun { first, rest: kind.into() }));
                return None;
            }
        };
        self.kind = Kind::Full(bytes.clone());
        Some(bytes)
    }

    /// Keeps a value until the body has been read or dropped.
    #[must_use]
    pub fn holding(mut self, guard: impl Send + 'static) -> Self {
        self.held = Some(match self.held.take() {
            None => Box::new(guard),
            Some(held) => Box::new((guard, held)),
        });
        self
    }

    /// The same body once more. Whichever is read first has it, and reading the other is an error.
    pub(super) fn share(&mut self) -> Self {
        match &self.kind {
            Kind::Empty => Self::empty(),
            Kind::Full(bytes) => bytes.clone().into(),
            Kind::Shared(cell, hint) => Kind::Shared(Arc::clone(cell), *hint).into(),
            _ => {
                let hint = self.size_hint();
                let body = std::mem::take(self);
                let cell = Arc::new(Mutex::new(Some(body)));
                self.kind = Kind::Shared(Arc::clone(&cell), hint);
                Kind::Shared(cell, hint).into()
            }
        }
    }

    /// The body of an answer on a connection that it moves itself. Its endpoint may be silent for so long in the middle of
    /// it, or for ever.
    pub(super) fn answer(answer: Box<Answer>, within: Option<Duration>) -> Self {
        match within {
            None => Kind::Answer(answer).into(),
            Some(within) => Timed::body(Source::Answer(answer), Side::Server, within, Unread::Left),
        }
    }

    /// The same for an answer on a connection that it shares.
    pub(super) fn shared_answer(incoming: Incoming, within: Option<Duration>) -> Self {
        match within {
            Some(within) if !incoming.is_end_stream() => {
                Timed::body(Source::Incoming(incoming), Side::Server, within, Unread::Left)
            }
            _ => incoming.into(),
        }
    }

    /// The body of a client that may be silent for as long as this in the middle of it.
    pub(super) fn timed(incoming: Incoming, within: Duration, unread: Unread) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Timed::body(Source::Incoming(incoming), Side::Client, within, unread)
    }

    /// All bytes at once.
    ///
    /// # Errors
    ///
    /// [`HttpError::TooLarge`] above `limit` bytes, else what [`chunk`](Self::chunk) says.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, HttpError> {
        if let Kind::Full(bytes) = self.kind {
            return if bytes.len() > limit { Err(HttpError::TooLarge { limit }) } else { Ok(bytes) };
        }
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > limit {
                return Err(HttpError::TooLarge { limit });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// The next bytes; `None` at the end. Trailers are passed over.
    ///
    /// # Errors
    ///
    /// [`HttpError::Silent`] if the peer that sends it is silent for too long, [`HttpError::Body`] if it breaks off in
    /// another way.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(error.downcast().map_or_else(HttpError::Body, |error| *error));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = match &mut this.kind {
            Kind::Empty => None,
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            Kind::Incoming(incoming) => {
                ready!(Pin::new(incoming).poll_frame(cx)).map(|it| it.map_err(Into::into))
            }
            Kind::Answer(answer) => ready!(answer.poll_frame(cx)),
            Kind::Timed(timed) => ready!(timed.poll_frame(cx)),
            Kind::Boxed(body) => ready!(body.as_mut().poll_frame(cx)),
            Kind::Shared(cell, _) => {
                let body = cell.lock().unwrap_or_else(PoisonError::into_inner).take();
                let Some(Self { kind, held }) = body else {
                    return Poll::Ready(Some(Err("the body was sent already".into())));
                };
                this.kind = kind;
                if let Some(held) = held {
                    *this = std::mem::take(this).holding(held);
                }
                return Pin::new(this).poll_frame(cx);
            }
        };
        if frame.is_none() {
            *this = Self::empty();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Answer(answer) => answer.is_end_stream(),
            Kind::Timed(timed) => timed.source.as_ref().is_none_or(Source::is_end_stream),
            Kind::Boxed(body) => body.is_end_stream(),
            Kind::Shared(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Answer(answer) => answer.size_hint(),
            Kind::Timed(timed) => timed.source.as_ref().map_or_else(SizeHint::default, Source::size_hint),
            Kind::Boxed(body) => body.size_hint(),
            Kind::Shared(_, hint) => *hint,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Self {
        Self { kind, held: None }
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Kind::Incoming(incoming).into()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Kind::Full(bytes).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "Empty",
            Kind::Full(_) => "Full",
            Kind::Incoming(_) | Kind::Answer(_) | Kind::Timed(_) => "Incoming",
            Kind::Boxed(_) => "Boxed",
            Kind::Shared(..) => "Shared",
        };
        write!(f, "Body::{kind}")
    }
}

/// A body whose peer must not be silent for long.
///
/// What is there at once costs nothing. The first frame that has to be waited for allocates a timer, and its arrival drops
/// it.
struct Timed {
    /// None after its end.
    source: Option<Source>,
    /// Who sends it.
    side: Side,
    within: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    unread: Unread,
}

/// Where a body comes from.
enum Source {
    Incoming(Incoming),
    Answer(Box<Answer>),
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Incoming(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Into::into),
            Self::Answer(answer) => answer.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Incoming(incoming) => incoming.is_end_stream(),
            Self::Answer(answer) => answer.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(incoming) => incoming.size_hint(),
            Self::Answer(answer) => answer.size_hint(),
        }
    }
}

/// What becomes of a body that nobody reads to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The connection sees to it.
    Left,
    /// It is read and thrown away for a while. On HTTP/2 the stream is reset otherwise, and some clients then take the
    /// answer, which they have, for lost.
    Discarded,
}

/// How much of an unread body is thrown away, and for how long.
const DISCARDED: (usize, Duration) = (16 * 1024 * 1024, Duration::from_secs(10));

impl Timed {
    fn body(source: Source, side: Side, within: Duration, unread: Unread) -> Body {
        Kind::Timed(Box::new(Self { source: Some(source), side, within, timer: None, unread })).into()
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = source.poll_frame(cx) {
            self.timer = None;
            if !matches!(frame, Some(Ok(_))) {
                self.source = None;
            }
            return Poll::Ready(frame);
        }
        let within = self.within;
        let timer = self.timer.get_or_insert_with(|| Box::pin(time::sleep(within)));
        ready!(timer.as_mut().poll(cx));
        self.source = None;
        Poll::Ready(Some(Err(Box::new(HttpError::Silent { side: self.side, after: within }))))
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let Some(Source::Incoming(incoming)) = self.source.take() else { return };
        if self.unread == Unread::Left || incoming.is_end_stream() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            // Ends with the time.
            runtime.spawn(time::timeout(DISCARDED.1, discard(incoming)));
        }
    }
}

async fn discard(mut incoming: Incoming) {
    let mut left = DISCARDED.0;
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(read) {
            Some(now) => left = now,
            None => return,
        }
    }
}

/// Larger bodies are not sent at once: a server may read them no faster than it is read itself.
const MOST_WHOLE: u64 = 16 * 1024;

/// A body of which a frame has been read.
struct Begun {
    first: Option<Result<Frame<Bytes>, BoxError>>,
    rest: Body,
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.rest.size_hint();
        if let Some(Ok(first)) = &self.first
            && let Some(data) = first.data_ref()
            && let Some(rest) = hint.exact()
        {
            hint.set_exact(rest + data.len() as u64);
        }
        hint
    }
}

/// A body whose errors are boxed.
#[pin_project]
struct MapError<B> {
    #[pin]
    body: B,
}

impl<B> HttpBody for MapError<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project().body.poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[pin_project]
struct Chunks<S> {
    #[pin]
    stream: S,
}

impl<S: Stream<Item = Result<Bytes, BoxError>>> HttpBody for Chunks<S> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project().stream.poll_next(cx).map_ok(Frame::data)
    }
}
