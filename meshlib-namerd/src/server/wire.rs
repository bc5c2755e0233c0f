//! The bytes of a connection, which may be other than those that the HTTP server writes.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use meshlib::Io;
use meshlib::io::Transport;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time;

use super::fault::Step;

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Close,
    Reset,
}

/// The handle of a connection's requests on its bytes.
#[derive(Debug, Default)]
pub(super) struct Control(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What came since the last request.
    read: BytesMut,
    /// What is sent in place of the next write.
    instead: Option<Vec<Step>>,
    reset: bool,
}

impl Control {
    /// Sends this in place of the next answer, whose head must be all there is to it.
    pub(super) fn replace(&self, steps: Vec<Step>) {
        self.lock().instead = Some(steps);
    }

    /// Makes the end of the connection a reset.
    pub(super) fn reset(&self) {
        self.lock().reset = true;
    }

    /// The head of the request that was read.
    pub(super) fn take_head(&self) -> Bytes {
        let read = &mut self.lock().read;
        let end = read.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let head = end.map_or_else(Bytes::new, |end| read.split_to(end + 4).freeze());
        if read.is_empty() {
            // A watch lives for long and reads nothing more.
            *read = BytesMut::new();
        }
        head
    }

    /// Forgets the body of the request.
    pub(super) fn skip_body(&self) {
        self.lock().read.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that keeps what it reads and may send something else.
pub(super) struct Wire {
    io: Io,
    control: Arc<Control>,
    steps: VecDeque<Step>,
    pause: Option<Pin<Box<time::Sleep>>>,
}

impl Wire {
    pub(super) fn new(io: Io, control: Arc<Control>) -> Self {
        Self { io, control, steps: VecDeque::new(), pause: None }
    }

    /// Goes on with what is sent instead of an answer.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(step) = self.steps.front_mut() {
            match step {
                Step::Send(bytes) => {
                    while !bytes.is_empty() {
                        let n = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
                        bytes.advance(n);
                    }
                    ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                }
                Step::Wait(time) => {
                    let pause = self.pause.get_or_insert_with(|| Box::pin(time::sleep(*time)));
                    ready!(pause.as_mut().poll(cx));
                    self.pause = None;
                }
                Step::Close => {
                    ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Step::Reset => {
                    self.control.reset();
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                // Reading goes on and notices when the client has gone.
                Step::Hang => return Poll::Pending,
            }
            self.steps.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl Transport for Wire {}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.control.lock().reset {
            self.io.reset_on_close();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let read = &mut self.control.lock().read;
        // Heads are smaller than this, and bodies are skipped.
        if read.len() < MAX_KEPT {
            read.extend_from_slice(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    // Writes are not vectored, so that an answer without a body is one write.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.drive(cx))?;
        let instead = self.control.lock().instead.take();
        let Some(instead) = instead else {
            return Pin::new(&mut self.io).poll_write(cx, buf);
        };
        self.steps = instead.into();
        // The answer itself is swallowed. What is left to send is sent by the flush that follows.
        match self.drive(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(buf.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drive(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Most bytes kept of what a connection reads at a time.
const MAX_KEPT: usize = 256 * 1024;
