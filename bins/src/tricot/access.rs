//! What goes around every request: its id, its line in the log, its numbers, and the page if nobody answered it.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::Version;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use meshlib::Error;
use meshlib::http::Accepted;
use meshlib::http::Body;
use pin_project::pin_project;
use tokio::time::Instant;
use tower::BoxError;
use tower::Service;

use super::args::AccessLog;
use super::host;
use super::metrics::Metrics;
use super::metrics::Requests;
use super::page::Refused;
use super::page::RequestId;
use super::send::Served;

/// The outermost service.
#[derive(Clone, Debug)]
pub(super) struct Access<S> {
    inner: S,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    log: AccessLog,
    /// Requests that no instance has answered.
    unserved: Requests,
}

impl<S> Access<S> {
    pub(super) fn new(inner: S, log: AccessLog, metrics: &Metrics) -> Self {
        Self { inner, shared: Arc::new(Shared { log, unserved: metrics.unserved("") }) }
    }
}

impl<S> Service<Request<Body>> for Access<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let record = Record::new(&request, Arc::clone(&self.shared));
        tracing::trace!(target: "tricot", id = %record.id, headers = ?super::masked(request.headers()), "request as it came");
        Answer { answer: self.inner.call(request), record: Some(Box::new(record)) }
    }
}

/// What is known about a request, until its answer has ended.
struct Record {
    shared: Arc<Shared>,
    id: RequestId,
    began: Instant,
    method: Method,
    version: Version,
    /// Only if there will be a line: the rest of what it says.
    line: Option<Line>,
    status: StatusCode,
    served: Option<Served>,
    bytes: u64,
    /// Whether the answer ended as it should.
    complete: bool,
}

struct Line {
    client: Option<IpAddr>,
    host: Option<String>,
    uri: Uri,
}

impl Record {
    fn new(request: &Request<Body>, shared: Arc<Shared>) -> Self {
        let logs = shared.log != AccessLog::Off && tracing::enabled!(target: "tricot", tracing::Level::INFO);
        let line = logs.then(|| Line {
            client: request
                .extensions()
                .get::<Accepted>()
                .and_then(|it| it.session().peer)
                .map(|peer| peer.ip()),
            host: host::of(request).map(str::to_owned),
            uri: request.uri().clone(),
        });
        Self {
            shared,
            id: RequestId::random(),
            began: Instant::now(),
            method: request.method().clone(),
            version: request.version(),
            line,
            status: StatusCode::OK,
            served: None,
            bytes: 0,
            complete: false,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        match &self.served {
            Some(served) => {
                served.backend.metrics().durations.observe(took.as_secs_f64());
                served.backend.requests().count(&self.method, self.status);
            }
            None => self.shared.unserved.count(&self.method, self.status),
        }
        let Some(line) = &self.line else { return };
        let client = line.client.map(|ip| ip.to_canonical().to_string()).unwrap_or_else(|| "-".into());
        let host = line.host.as_deref().unwrap_or("-");
        let (node, service) = match &self.served {
            // Which instance it was is for those who look for faults.
            Some(served) if tracing::enabled!(target: "tricot", tracing::Level::DEBUG) => {
                let instance = served.backend.instance();
                (Some(&*instance.node), Some(&*instance.id))
            }
            _ => (None, None),
        };
        tracing::info!(
            target: "tricot",
            id = %self.id,
            client,
            method = %self.method,
            host,
            path = line.uri.path_and_query().map_or("/", |target| target.as_str()),
            protocol = ?self.version,
            status = self.status.as_u16(),
            bytes = self.bytes,
            duration_ms = took.as_secs_f64() * 1e3,
            complete = self.complete,
            node,
            service,
            "request"
        );
    }
}

/// The answer, with its record on the way to its end.
#[pin_project]
pub(super) struct Answer<F> {
    #[pin]
    answer: F,
    record: Option<Box<Record>>,
}

impl<F> Future for Answer<F>
where
    F: Future<Output = Result<Response<Body>, Error>>,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(cx));
        let Some(mut record) = this.record.take() else { return Poll::Pending };
        let mut answer = answer.unwrap_or_else(|error| {
            let refused = Refused::from(error);
            tell(&refused, record.id);
            refused.answer(record.id)
        });
        if let Some(refused) = answer.extensions_mut().remove::<Arc<Refused>>() {
            tell(&refused, record.id);
            answer = refused.answer(record.id);
        }
        record.status = answer.status();
        record.served = answer.extensions_mut().remove();
        if answer.body().is_end_stream() {
            record.complete = true;
            return Poll::Ready(Ok(answer));
        }
        Poll::Ready(Ok(answer.map(|body| Body::new(Watched { body, record }))))
    }
}

/// Says why a request was not answered by an instance.
fn tell(refused: &Refused, id: RequestId) {
    match refused {
        Refused::Failed(error) => {
            tracing::debug!(target: "tricot", %id, status = %refused.status(), error = %error.chain(), "request failed");
        }
        refused => tracing::debug!(target: "tricot", %id, status = %refused.status(), "{refused}"),
    }
}

/// The body of an answer. The record ends with it.
#[pin_project]
struct Watched {
    #[pin]
    body: Body,
    record: Box<Record>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        match &frame {
            None => this.record.complete = true,
            Some(Ok(frame)) => {
                this.record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                this.record.complete = this.body.is_end_stream();
            }
            Some(Err(error)) => {
                tracing::debug!(target: "tricot", id = %this.record.id, %error, "the answer broke off");
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("id", &self.id).finish_non_exhaustive()
    }
}
