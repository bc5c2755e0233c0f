//! Bodies of answers that are read from their connections.

use std::fmt;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use http_body::Frame;
use http_body::SizeHint;
use tower::BoxError;

use super::Broken;
use super::Http1;
use super::framing::Framing;
use super::framing::Taken;
use super::head::Head;
use crate::http::Body;
use crate::http::pool::Slot;

/// The body of an answer. It reads its connection, and gives it back at its end.
pub(in crate::http) struct Answer {
    framing: Framing,
    /// What had come with the head.
    first: Option<Taken>,
    /// Taken when it is given back, and when it is of no use any more.
    http1: Option<Http1>,
    slot: Arc<Slot>,
    keep_alive: bool,
    /// How many bytes the next read may bring.
    room: usize,
}

/// The first read of a body has room for as much, and each that fills its room doubles it.
const FIRST_ROOM: usize = 16 * 1024;
const MOST_ROOM: usize = 64 * 1024;

impl Answer {
    /// The body of the answer with this head, which came on `http1`. One that has come as a whole, as small ones do, gives
    /// the connection back at once.
    pub(super) fn body(head: Head, http1: Http1, slot: &Arc<Slot>) -> http::Response<Body> {
        let Head { response, framing, keep_alive } = head;
        let mut answer = Self {
            framing,
            first: None,
            http1: Some(http1),
            slot: Arc::clone(slot),
            keep_alive,
            room: FIRST_ROOM,
        };
        let (parts, ()) = response.into_parts();
        http::Response::from_parts(parts, answer.whole().unwrap_or_else(|| answer.streamed()))
    }

    /// The body, if all of it is here.
    fn whole(&mut self) -> Option<Body> {
        let input = &mut self.http1.as_mut()?.input;
        if self.framing.left().is_some_and(|left| left > input.len() as u64) {
            return None;
        }
        // What is wrong with it is found again by whoever reads it.
        let data = match self.framing.take(input).ok()? {
            Taken::Data(data) => data,
            Taken::End => Bytes::new(),
            Taken::Nothing => return None,
            trailers @ Taken::Trailers(_) => {
                self.first = Some(trailers);
                return None;
            }
        };
        if !self.framing.is_at_end() {
            self.first = Some(Taken::Data(data));
            return None;
        }
        self.give_back();
        Some(data.into())
    }

    fn streamed(self) -> Body {
        let within = self.slot.body_within();
        Body::answer(Box::new(self), within)
    }

    pub(in crate::http) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(self.poll_taken(cx)) {
            Ok(Taken::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Taken::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Taken::End | Taken::Nothing) => None,
            Err(error) => {
                self.http1 = None;
                Some(Err(error.into()))
            }
        };
        if self.framing.is_at_end() {
            self.give_back();
        }
        Poll::Ready(frame)
    }

    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<Result<Taken, Broken>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(first));
        }
        let Some(http1) = &mut self.http1 else { return Poll::Ready(Ok(Taken::End)) };
        loop {
            match self.framing.take(&mut http1.input) {
                Ok(Taken::Nothing) => {}
                taken => return Poll::Ready(taken),
            }
            let left = self.framing.left().and_then(|left| usize::try_from(left).ok());
            let room = self.room.min(left.unwrap_or(usize::MAX));
            let n = ready!(http1.poll_more(cx, room)).map_err(Broken::Io)?;
            if n == 0 {
                self.http1 = None;
                let ended = self.framing == Framing::UntilClose;
                return Poll::Ready(if ended { Ok(Taken::End) } else { Err(Broken::Cut) });
            }
            if n >= self.room {
                self.room = (2 * self.room).min(MOST_ROOM);
            }
        }
    }

    fn give_back(&mut self) {
        let Some(http1) = self.http1.take().filter(|_| self.keep_alive) else { return };
        self.slot.put(http1);
    }

    pub(in crate::http) fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.framing.is_at_end()
    }

    /// Bodies of a known length have nothing taken from them before they are read.
    pub(in crate::http) fn size_hint(&self) -> SizeHint {
        self.framing.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("framing", &self.framing).finish_non_exhaustive()
    }
}
