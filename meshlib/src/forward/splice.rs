//! Moving bytes from socket to socket inside the kernel (Linux).
//!
//! A direction is copied until it proves bulky: more than [`splice_after`](super::ForwardOptions::splice_after) bytes,
//! and two reads in a row that filled the buffer. It goes back to copying when it has become chatty, since splicing
//! costs a system call more per message.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use rustix::pipe::PipeFlags;
use rustix::pipe::SpliceFlags;
use rustix::process::Resource;
use rustix::process::getrlimit;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::ForwardOptions;
use super::direction::Broken;
use super::link::Link;
use super::would_block;

/// What a pipe should hold. The kernel grants it to unprivileged users until about 256 pipes are that large.
const PIPE_BYTES: usize = 256 * 1024;
/// A pipe smaller than this moves less per call than a copy does.
const LEAST_PIPE_BYTES: usize = 64 * 1024;
/// Idle pipes kept per thread: two for each of 32 bulk connections, 128 descriptors.
const POOLED_PIPES: usize = 64;
/// Pipes are made while fewer than one in so many of the descriptors are in use: connections need them more.
const SHARE: u64 = 4;
/// Full reads in a row that make a direction bulky.
const FULL_READS: u8 = 2;
/// A splice that moved less than this was a message, not bulk.
const MESSAGE_BYTES: usize = 4 * 1024;
/// Messages in a row that end splicing.
const MESSAGES: u8 = 16;

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// Whether a direction is spliced, and through what.
#[derive(Default)]
pub(super) struct Splice {
    pipe: Option<Box<Pipe>>,
    /// Bytes in the pipe.
    waiting: usize,
    full_reads: u8,
    messages: u8,
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Splice {
    pub(super) fn is_on(&self) -> bool {
        self.pipe.is_some()
    }

    /// Learns from a copied read; decides to splice from now on.
    pub(super) fn saw_read(
        &mut self,
        read: usize,
        moved: u64,
        options: &ForwardOptions,
        source: &Link<'_>,
        sink: &Link<'_>,
    ) {
        if read < options.buffer_bytes {
            self.full_reads = 0;
            return;
        }
        self.full_reads = self.full_reads.saturating_add(1);
        let bulky = self.full_reads >= FULL_READS && options.splice_after.is_some_and(|after| moved > after);
        if bulky && source.plain().is_some() && sink.plain().is_some() {
            self.full_reads = 0;
            self.messages = 0;
            self.pipe = Pipe::take().map(Box::new);
        }
    }

    /// Moves bytes until a socket would block (pending), the source ends (`true`) or the traffic is no longer bulk.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        moved: &mut u64,
    ) -> Poll<Result<bool, Broken>> {
        let Some(pipe) = &self.pipe else {
            return Poll::Ready(Ok(false));
        };
        loop {
            while self.waiting > 0 {
                ready!(sink.poll_write_ready(cx)).map_err(Broken::Sink)?;
                let sent = sink.try_io(Interest::WRITABLE, || splice(&pipe.read, sink, self.waiting));
                match sent {
                    Ok(0) => return Poll::Ready(Err(Broken::Sink(io::ErrorKind::WriteZero.into()))),
                    Ok(n) => {
                        self.waiting = self.waiting.saturating_sub(n);
                        *moved += n as u64;
                    }
                    Err(error) if would_block(&error) => {}
                    Err(error) => return Poll::Ready(Err(Broken::Sink(error))),
                }
            }
            if self.messages >= MESSAGES {
                self.stop();
                return Poll::Ready(Ok(false));
            }
            ready!(source.poll_read_ready(cx)).map_err(Broken::Source)?;
            match source.try_io(Interest::READABLE, || splice(source, &pipe.write, PIPE_BYTES)) {
                Ok(0) => {
                    self.stop();
                    return Poll::Ready(Ok(true));
                }
                Ok(n) => {
                    self.waiting = n;
                    self.messages = if n < MESSAGE_BYTES { self.messages + 1 } else { 0 };
                }
                Err(error) if would_block(&error) => {}
                Err(error) => return Poll::Ready(Err(Broken::Source(error))),
            }
        }
    }

    /// Gives the pipe back if it is empty; one with bytes in it is closed.
    fn stop(&mut self) {
        if let Some(pipe) = self.pipe.take()
            && self.waiting == 0
        {
            pipe.give_back();
        }
    }
}

impl Drop for Splice {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Pipe {
    /// A pipe of the thread's, or a new one; none if the kernel has none that is worth it.
    fn take() -> Option<Self> {
        if let Some(pipe) = POOL.with_borrow_mut(Vec::pop) {
            return Some(pipe);
        }
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // The lowest number that is free is the next one, so a number says how many are in use.
        let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / SHARE;
        if u64::try_from(write.as_raw_fd()).is_ok_and(|fd| fd >= most) {
            return None;
        }
        let bytes = rustix::pipe::fcntl_setpipe_size(&write, PIPE_BYTES)
            .or_else(|_| rustix::pipe::fcntl_getpipe_size(&write))
            .ok()?;
        (bytes >= LEAST_PIPE_BYTES).then_some(Self { read, write })
    }

    fn give_back(self) {
        // The thread may be ending; then the pipe is closed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < POOLED_PIPES {
                pool.push(self);
            }
        });
    }
}

fn splice(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, bytes: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(rustix::pipe::splice(from, None, to, None, bytes, flags)?)
}
