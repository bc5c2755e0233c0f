//! A deadline for clients that take no bytes.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time;
use tokio::time::Sleep;

/// A stream whose writes fail when none has gone through for a while.
///
/// A write that goes through at once costs nothing. The first one that has to wait allocates a timer, and the next one
/// that goes through drops it.
#[derive(Debug)]
pub(super) struct WriteDeadline<T> {
    inner: T,
    within: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    lifted: Lift,
}

/// Takes the deadline off a stream that somebody else holds by then.
#[derive(Clone, Debug, Default)]
pub(super) struct Lift(Arc<AtomicBool>);

impl Lift {
    /// From here on writes may wait for as long as they like.
    pub(super) fn lift(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_lifted(&self) -> bool {
        // Relaxed: nothing hangs on when exactly this is seen; a timer that was set in between asks again at its end.
        self.0.load(Ordering::Relaxed)
    }
}

impl<T> WriteDeadline<T> {
    /// Lets writes wait up to `within`.
    pub(super) fn new(inner: T, within: Duration) -> (Self, Lift) {
        let lifted = Lift::default();
        (Self { inner, within, timer: None, lifted: lifted.clone() }, lifted)
    }

    /// The stream itself.
    pub(super) fn into_inner(self) -> T {
        self.inner
    }

    /// Turns what has to wait into an error once it has waited for too long.
    fn limit<R>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if outcome.is_ready() || self.lifted.is_lifted() {
            self.timer = None;
            return outcome;
        }
        let within = self.within;
        let timer = self.timer.get_or_insert_with(|| Box::pin(time::sleep(within)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, format!("no byte was taken for {within:?}"))))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WriteDeadline<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.limit(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.limit(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        self.limit(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.limit(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::io::DuplexStream;
    use tokio::time::Instant;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);
    const PAGE: [u8; 4096] = [b'x'; 4096];

    fn pair() -> (WriteDeadline<DuplexStream>, Lift, DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        let (near, lift) = WriteDeadline::new(near, WITHIN);
        (near, lift, far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_fails_at_the_deadline() {
        let (mut near, _, _far) = pair();
        let began = Instant::now();

        let error = near.write_all(&PAGE).await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), WITHIN.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn each_byte_that_is_taken_begins_the_time_anew() {
        let (mut near, _, mut far) = pair();
        let began = Instant::now();
        let slow = tokio::spawn(async move {
            let mut taken = 0;
            while taken < PAGE.len() {
                time::sleep(WITHIN - Duration::from_secs(1)).await;
                taken += far.read(&mut [0; 64]).await.unwrap();
            }
        });

        near.write_all(&PAGE).await.unwrap();

        slow.await.unwrap();
        assert!(began.elapsed() > 60 * (WITHIN - Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_between_writes_is_no_fault_of_the_client() {
        let (mut near, _, mut far) = pair();
        near.write_all(b"one").await.unwrap();
        assert!(near.timer.is_none(), "nothing had to wait");

        time::sleep(2 * WITHIN).await;
        near.write_all(b"two").await.unwrap();

        let mut taken = [0; 6];
        far.read_exact(&mut taken).await.unwrap();
        assert_eq!(&taken, b"onetwo");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_was_lifted_ends_nothing_even_in_the_middle_of_a_write() {
        let (mut near, lift, mut far) = pair();
        let writing = tokio::spawn(async move { near.write_all(&PAGE).await });
        time::sleep(WITHIN / 2).await;

        lift.lift();
        time::sleep(10 * WITHIN).await;

        far.read_exact(&mut [0; PAGE.len()]).await.unwrap();
        writing.await.unwrap().unwrap();
    }
}
