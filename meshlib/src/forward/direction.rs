//! One direction of a forwarded connection.

use std::io;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use super::ForwardOptions;
use super::buffer;
use super::link::Link;
#[cfg(target_os = "linux")]
use super::splice::Splice;

/// Which end of a direction failed.
#[derive(Debug)]
pub(super) enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

/// Moves bytes from a source to a sink until the source ends.
#[derive(Default)]
pub(super) struct Direction {
    stage: Stage,
    /// Bytes that the sink has not taken yet. No memory is kept while it is empty.
    rest: Rest,
    moved: u64,
    waits: u64,
    #[cfg(target_os = "linux")]
    splice: Splice,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Flowing,
    /// The source has ended; what is left must reach the sink.
    Ending,
    Ended,
}

impl Direction {
    /// Payload bytes that the sink took.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// How often the sink took fewer bytes than it was given.
    pub(super) fn waits(&self) -> u64 {
        self.waits
    }

    /// Whether the source has said that nothing more comes.
    pub(super) fn input_ended(&self) -> bool {
        self.stage != Stage::Flowing
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Link<'_>,
        sink: &mut Link<'_>,
        options: &ForwardOptions,
        sink_ended: bool,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if self.stage == Stage::Ended {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_rest(cx, sink)).map_err(Broken::Sink)?;
            if self.stage == Stage::Ending {
                // Whoever reads on must be able to tell a cut from an end, as it could without us in between.
                if source.was_truncated() {
                    sink.withhold_close_notify();
                }
                let ended = if sink_ended { sink.poll_farewell(cx) } else { sink.poll_shutdown(cx) };
                ready!(ended).map_err(Broken::Sink)?;
                self.stage = Stage::Ended;
                return Poll::Ready(Ok(()));
            }
            #[cfg(target_os = "linux")]
            if self.splice.is_on() {
                let (Some(from), Some(to)) = (source.plain(), sink.plain()) else {
                    unreachable!("only a direction between two plain sockets is spliced")
                };
                let ended = ready!(self.splice.poll(cx, from, to, &mut self.moved))?;
                if ended {
                    self.stage = Stage::Ending;
                }
                continue;
            }
            ready!(self.poll_copy(cx, source, sink, options))?;
        }
    }

    /// Gives the sink what it refused before.
    fn poll_rest(&mut self, cx: &mut Context<'_>, sink: &mut Link<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let n = ready!(sink.poll_write(cx, self.rest.bytes()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.advance(n);
            self.moved += n as u64;
        }
        sink.poll_flush(cx)
    }

    /// One read, and as much of it written as the sink takes.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Link<'_>,
        sink: &mut Link<'_>,
        options: &ForwardOptions,
    ) -> Poll<Result<(), Broken>> {
        buffer::with_plain(options.buffer_bytes, |buf| {
            let read = ready!(source.poll_read(cx, buf, options.buffer_bytes)).map_err(Broken::Source)?;
            if read == 0 {
                self.stage = Stage::Ending;
                return Poll::Ready(Ok(()));
            }
            let mut written = 0;
            while written < read {
                match sink.poll_write(cx, &buf[written..read]) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(Broken::Sink(io::ErrorKind::WriteZero.into())));
                    }
                    Poll::Ready(Ok(n)) => written += n,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Sink(error))),
                    Poll::Pending => break,
                }
            }
            self.moved += written as u64;
            if written < read {
                self.waits += 1;
                self.rest = Rest::from(&buf[written..read]);
            }
            #[cfg(target_os = "linux")]
            self.splice.saw_read(read, self.moved, options, source, sink);
            Poll::Ready(Ok(()))
        })
    }
}

/// Bytes on their way, in memory only as long as there are any.
#[derive(Default)]
struct Rest {
    bytes: Box<[u8]>,
    done: usize,
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.done..]
    }

    fn advance(&mut self, n: usize) {
        self.done += n;
        if self.done >= self.bytes.len() {
            *self = Self::default();
        }
    }
}

impl From<&[u8]> for Rest {
    fn from(bytes: &[u8]) -> Self {
        Self { bytes: Box::from(bytes), done: 0 }
    }
}
