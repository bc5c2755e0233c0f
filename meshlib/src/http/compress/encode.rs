//! A body that is encoded as it is read.

use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use async_compression::Level;
use async_compression::tokio::write::BrotliEncoder;
use async_compression::tokio::write::GzipEncoder;
#[cfg(feature = "compress-zstd")]
use async_compression::tokio::write::ZstdEncoder;
use bytes::Buf;
use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as HttpBody;
use http_body::Frame;
use tokio::io::AsyncWrite;
use tokio::time;
use tokio::time::Instant;
use tokio::time::Sleep;
use tower::BoxError;

use super::CompressOptions;
use super::Effort;
use super::negotiate::Coding;
use crate::http::Body;

/// What is left of a body, encoded.
///
/// Holds one chunk of the inner body and what the encoder makes of a [`PIECE`] of it, not more.
pub(super) struct Encoded {
    inner: Body,
    encoder: Box<dyn Encoder>,
    /// What was read of the inner body and is not encoded yet.
    chunk: Bytes,
    state: State,
    /// When bytes went into the encoder that may not have come out again.
    unflushed: Option<Unflushed>,
    flush_after: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

enum State {
    Reading,
    /// The encoder has to say its last words; then come the trailers.
    Ending(Option<HeaderMap>),
    Trailers(HeaderMap),
    Done,
}

#[derive(Clone, Copy)]
struct Unflushed {
    first: Instant,
    last: Instant,
}

impl Encoded {
    pub(super) fn new(inner: Body, coding: Coding, options: &CompressOptions) -> Self {
        Self {
            inner,
            encoder: encoder(coding, options.effort),
            chunk: Bytes::new(),
            state: State::Reading,
            unflushed: None,
            flush_after: options.flush_after,
            timer: None,
        }
    }

    /// Encodes until there is something to send, or nothing to be read.
    fn poll_encoded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // A chunk may be large and become almost nothing: others want to run meanwhile.
        let mut budget = BUDGET;
        while matches!(self.state, State::Reading) {
            if !self.chunk.is_empty() {
                if budget == 0 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                budget -= 1;
                let piece = &self.chunk[..self.chunk.len().min(PIECE)];
                let taken = ready!(Pin::new(&mut self.encoder).poll_write(cx, piece))?;
                if taken == 0 {
                    return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::WriteZero).into())));
                }
                self.chunk.advance(taken);
                let now = Instant::now();
                let first = self.unflushed.map_or(now, |unflushed| unflushed.first);
                self.unflushed = Some(Unflushed { first, last: now });
                // Little is kept back until more of it is there.
                if self.encoder.output().len() >= ENOUGH {
                    break;
                }
                continue;
            }
            match Pin::new(&mut self.inner).poll_frame(cx)? {
                Poll::Pending if self.encoder.output().is_empty() => {
                    ready!(self.poll_stalled(cx))?;
                    if self.encoder.output().is_empty() {
                        return Poll::Pending;
                    }
                    break;
                }
                Poll::Pending => break,
                Poll::Ready(None) => self.state = State::Ending(None),
                Poll::Ready(Some(frame)) => match frame.into_data() {
                    Ok(data) => self.chunk = data,
                    Err(frame) => self.state = State::Ending(frame.into_trailers().ok()),
                },
            }
        }
        if let State::Ending(trailers) = &mut self.state {
            ready!(Pin::new(&mut self.encoder).poll_shutdown(cx))?;
            let trailers = trailers.take();
            self.state = trailers.map_or(State::Done, State::Trailers);
            // What it holds until its end may go.
            self.inner = Body::empty();
        }
        let output = std::mem::take(self.encoder.output());
        if !output.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(output.into()))));
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            _ => Poll::Ready(None),
        }
    }

    /// Waits until what is in the encoder has waited long enough, and gets it out. Pending for ever if nothing is.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let deadlines = self.unflushed.map(|Unflushed { first, last }| {
            let most = self.flush_after.saturating_mul(MOST_STALLS);
            [last.checked_add(self.flush_after), first.checked_add(most)]
        });
        // None: there is nothing, or no end to the time that it may take.
        let Some(deadline) = deadlines.into_iter().flatten().flatten().min() else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        self.unflushed = None;
        Pin::new(&mut self.encoder).poll_flush(cx)
    }
}

impl HttpBody for Encoded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(this.poll_encoded(cx));
        if let Some(Err(_)) = &frame {
            this.state = State::Done;
            this.encoder.output().clear();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // The last output goes out with the change to this state.
        matches!(self.state, State::Done)
    }
}

/// Encodes what is written to it. Never waits: its output is memory.
trait Encoder: AsyncWrite + Send + Unpin {
    fn output(&mut self) -> &mut Vec<u8>;
}

impl Encoder for GzipEncoder<Vec<u8>> {
    fn output(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }
}

impl Encoder for BrotliEncoder<Vec<u8>> {
    fn output(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }
}

#[cfg(feature = "compress-zstd")]
impl Encoder for ZstdEncoder<Vec<u8>> {
    fn output(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }
}

fn encoder(coding: Coding, effort: Effort) -> Box<dyn Encoder> {
    let level = |fast, balanced, small| match effort {
        Effort::Fast => Level::Precise(fast),
        Effort::Balanced => Level::Precise(balanced),
        Effort::Small => Level::Precise(small),
    };
    match coding {
        Coding::Gzip => Box::new(GzipEncoder::with_quality(Vec::new(), level(1, 5, 9))),
        Coding::Brotli => {
            let params = async_compression::brotli::EncoderParams::default()
                .quality(level(1, 4, 6))
                .window_size(WINDOW_LOG);
            Box::new(BrotliEncoder::with_params(Vec::new(), params))
        }
        #[cfg(feature = "compress-zstd")]
        Coding::Zstd => {
            let params = [async_compression::zstd::CParameter::window_log(WINDOW_LOG.unsigned_abs())];
            Box::new(ZstdEncoder::with_quality_and_params(Vec::new(), level(1, 3, 8), &params))
        }
    }
}

/// How many bytes are encoded at a time: 16 KiB, what a connection is read in.
const PIECE: usize = 16 * 1024;

/// How many pieces are encoded before others may run: 256 KiB take a few milliseconds.
const BUDGET: usize = 16;

/// How much output is sent on while more could be encoded: 8 KiB, half a TLS record.
const ENOUGH: usize = 8 * 1024;

/// After how many times the time to flush a chunk's first byte goes out, although there is always a further one.
const MOST_STALLS: u32 = 20;

/// The logarithm of how far back encoders look: 512 KiB. The usual 4 MiB of brotli and 2 MiB of zstd would be held by each
/// answer that is on its way.
const WINDOW_LOG: i32 = 19;
