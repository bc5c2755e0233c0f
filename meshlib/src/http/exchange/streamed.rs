//! Requests whose bodies come by and by, or that may turn their connections into something else.
//!
//! Each has a task that moves its bytes, whether or not somebody waits for the answer: of two streams that depend on each
//! other none must stop the other.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Poll;
use std::task::Waker;

use bytes::BytesMut;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use hyper::client::conn::http1::Builder;
use hyper::client::conn::http1::Connection;
use hyper::client::conn::http1::Parts;
use hyper::client::conn::http1::SendRequest;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::Broken;
use super::Http1;
use super::Unanswered;
use super::head::MAX_HEAD_BYTES;
use crate::http::Body;
use crate::http::form;
use crate::http::pool::Slot;
use crate::io::Io;

/// Sends a request and returns its answer. The connection is kept for others when both have ended.
pub(in crate::http) async fn send(
    mut http1: Http1,
    request: Request<Body>,
    slot: &Arc<Slot>,
) -> Result<Response<Body>, Unanswered> {
    if http1.is_closed(Waker::noop()) {
        return Err(Unanswered::new(Some(request), Broken::Cut));
    }
    let mut builder = Builder::new();
    let handshake = builder.max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(http1.io)).await;
    let (mut sender, connection) = match handshake {
        Ok(both) => both,
        Err(error) => return Err(Unanswered::new(Some(request), error)),
    };
    let request = form::in_http1(request);
    let method = request.method().clone();
    let answer = sender.try_send_request(request);
    let (turned, opened) = oneshot::channel();
    let task = tokio::spawn(exchange(connection, sender, turned, Arc::clone(slot)));
    let mut given_up = Abort(Some(task.abort_handle()));
    let mut answer = answer.await.map_err(Unanswered::from)?;
    given_up.0 = None;
    // Of hyper, which does not give connections to others here.
    answer.extensions_mut().remove::<OnUpgrade>();
    let status = answer.status();
    if status == StatusCode::SWITCHING_PROTOCOLS || (method == Method::CONNECT && status.is_success()) {
        answer.extensions_mut().insert(Opened::new(opened));
    }
    let within = slot.body_within();
    Ok(answer.map(|body| Body::shared_answer(body, within)))
}

/// Moves the bytes of one exchange. Then the connection is kept if it can be used again, or is for who has asked for
/// another protocol.
async fn exchange(
    mut connection: Connection<TokioIo<Io>, Body>,
    mut sender: SendRequest<Body>,
    turned: oneshot::Sender<Io>,
    slot: Arc<Slot>,
) {
    // It asks for another request once it could send that.
    let mut ready = Box::pin(sender.ready());
    let moved = poll_fn(|cx| match connection.poll_without_shutdown(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => ready.as_mut().poll(cx).map(|ready| ready.err().map(Err)),
    });
    let ended = moved.await;
    drop(ready);
    drop(sender);
    let again = ended.is_none();
    let ended = match ended {
        Some(ended) => ended,
        // Nobody can send another one: it ends.
        None => poll_fn(|cx| connection.poll_without_shutdown(cx)).await,
    };
    // What went wrong was told to who waits for the answer or reads its body.
    let Ok(()) = ended else { return };
    let Parts { io, read_buf, .. } = connection.into_parts();
    let io = io.into_inner();
    if !again {
        // Most likely it was just closed, and nobody waits for it.
        let _ = turned.send(io.replaying(BytesMut::from(read_buf)));
    } else if read_buf.is_empty() {
        slot.put(Http1::new(io));
    }
}

/// The connection of an endpoint that has agreed to go on with another protocol: an extension of its answer.
#[derive(Clone)]
pub(in crate::http) struct Opened(Arc<Mutex<Option<oneshot::Receiver<Io>>>>);

impl Opened {
    pub(in crate::http) fn new(opened: oneshot::Receiver<Io>) -> Self {
        Self(Arc::new(Mutex::new(Some(opened))))
    }

    /// The connection; none if it broke before that, or somebody else has it.
    pub(in crate::http) async fn take(self) -> Option<Io> {
        let opened = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        opened.await.ok()
    }
}

/// Ends a task of which nobody waits for the answer any more.
struct Abort(Option<AbortHandle>);

impl Drop for Abort {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
