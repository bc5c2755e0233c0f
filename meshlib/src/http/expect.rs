//! Bodies that wait until a server wants them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Request;
use http::StatusCode;
use http::header::EXPECT;
use http_body::Body as HttpBody;
use http_body::Frame;
use http_body::SizeHint;
use tokio::sync::Notify;
use tokio::time;
use tower::BoxError;

use super::Body;

/// A server that says nothing for so long gets the body unasked, as RFC 9110 section 10.1.1 wants of clients.
const UNASKED: Duration = Duration::from_secs(1);

/// Holds the body of a request that expects `100-continue` back until the server says that it wants it. Who sent us the
/// request learns of it when its body is first asked for.
pub(super) fn holding_back(mut request: Request<Body>) -> Request<Body> {
    let expects = request.headers()[EXPECT].as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !expects || request.body().is_end_stream() {
        return request;
    }
    let wanted = Arc::new(Notify::new());
    let says = Arc::clone(&wanted);
    hyper::ext::on_informational(&mut request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            says.notify_one();
        }
    });
    request.map(|body| {
        let wait = async move {
            // Asked or not, it goes.
            let _ = time::timeout(UNASKED, wanted.notified()).await;
        };
        Body::new(HeldBack { body, wait: Some(Box::pin(wait)) })
    })
}

struct HeldBack {
    body: Body,
    wait: Option<BoxFuture<'static, ()>>,
}

impl HttpBody for HeldBack {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
