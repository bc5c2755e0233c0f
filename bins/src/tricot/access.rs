//! What goes around every request: its id, its line in the log, its numbers, and the page if nobody answered it.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::Version;
use http::header::HOST;
use http::uri::Authority;
use http::uri::PathAndQuery;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use hyper::ext::Protocol;
use meshlib::Error;
use meshlib::http::Accepted;
use meshlib::http::Body;
use pin_project::pin_project;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tower::BoxError;
use tower::Service;
use tracing::Level;

use super::args::AccessLog;
use super::metrics::Metrics;
use super::metrics::Requests;
use super::page::Refused;
use super::page::RequestId;
use super::route::Current;
use super::send::Served;
use crate::kit::log;

/// The outermost service.
#[derive(Clone, Debug)]
pub(super) struct Access<S> {
    inner: S,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    log: AccessLog,
    /// Requests that no instance has answered and no rule is for.
    unserved: Requests,
    metrics: Metrics,
    /// For what was given up before a rule was found by the way.
    current: Arc<Current>,
}

impl<S> Access<S> {
    pub(super) fn new(inner: S, log: AccessLog, metrics: &Metrics, current: Arc<Current>) -> Self {
        Self {
            inner,
            shared: Arc::new(Shared {
                log,
                unserved: metrics.unserved("", ""),
                metrics: metrics.clone(),
                current,
            }),
        }
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
        // Before anything else looks at it: a tunnel to anywhere would be found malformed, which it is not.
        let answer = (!is_for_proxies(&request)).then(|| self.inner.call(request));
        Answer { answer, record: Some(Box::new(record)) }
    }
}

/// The requests that one counts among which no instance of its rule has answered: an extension of answers on their way
/// to the client.
#[derive(Clone, Debug)]
pub(super) struct Unserved(pub(super) Arc<Requests>);

/// What is known about a request, until its answer has ended.
struct Record {
    shared: Arc<Shared>,
    id: RequestId,
    began: Instant,
    method: Method,
    version: Version,
    uri: Uri,
    /// What the client wrote into `Host`, unless the URI has it.
    host: Option<HeaderValue>,
    /// Only if there will be a line: the rest of what it says.
    line: Option<Line>,
    /// [`UNANSWERED`] until there is an answer.
    status: StatusCode,
    served: Option<Served>,
    /// What it counts among if no instance has answered it.
    unserved: Option<Unserved>,
    bytes: u64,
    /// Whether the answer ended as it should.
    complete: bool,
    /// Whether it was the instance that broke it off.
    broken: bool,
}

struct Line {
    client: Option<IpAddr>,
    /// Why the proxy has answered itself.
    reason: Option<String>,
}

impl Record {
    fn new(request: &Request<Body>, shared: Arc<Shared>) -> Self {
        let logs = match shared.log {
            AccessLog::Off => false,
            AccessLog::Stdout => tracing::enabled!(target: "tricot", Level::INFO),
            AccessLog::Json | AccessLog::Text => true,
        };
        let line = logs.then(|| Line {
            client: request
                .extensions()
                .get::<Accepted>()
                .and_then(|it| it.session().peer)
                .map(|peer| peer.ip()),
            reason: None,
        });
        let in_uri = request.uri().authority().is_some();
        Self {
            shared,
            id: RequestId::random(),
            began: Instant::now(),
            method: request.method().clone(),
            version: request.version(),
            uri: request.uri().clone(),
            host: request.headers().get(HOST).filter(|_| !in_uri).cloned(),
            line,
            status: UNANSWERED,
            served: None,
            unserved: None,
            bytes: 0,
            complete: false,
            broken: false,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let is_cut = !self.complete && self.shared.metrics.cut.incomplete();
        let cut_by = match (self.complete, self.broken, is_cut) {
            (true, ..) => None,
            (_, true, _) => Some("instance"),
            (_, _, true) => Some("shutdown"),
            _ => Some("client"),
        };
        if self.status == UNANSWERED && self.served.is_none() {
            self.given_up();
        }
        match &self.served {
            Some(served) => {
                served.backend.metrics().durations.observe(took.as_secs_f64());
                served.backend.requests().count(&self.method, self.status);
            }
            None => {
                let requests = self.unserved.as_ref().map_or(&self.shared.unserved, |unserved| &*unserved.0);
                requests.count(&self.method, self.status);
            }
        }
        if self.line.is_some() {
            self.write(took, cut_by);
        }
    }
}

impl Record {
    /// The page for a request that was not answered by an instance, after the log was told why.
    fn refuse(&mut self, refused: &Refused) -> Response<Body> {
        let (id, status) = (self.id, refused.status());
        let reason = match refused {
            // Clients are not told what is behind.
            Refused::Failed(error) => error.chain().to_string(),
            refused => refused.to_string(),
        };
        tracing::debug!(target: "tricot", %id, %status, reason, "request failed");
        if let Some(line) = &mut self.line {
            line.reason = Some(reason);
        }
        refused.answer(id)
    }

    /// Finds out about a request that was dropped before there was an answer.
    fn given_up(&mut self) {
        let path = self.uri.path_and_query().map_or("/", PathAndQuery::path);
        self.unserved = self.shared.current.unserved(self.host().unwrap_or_default(), path);
        if let Some(line) = &mut self.line {
            line.reason = Some("the client left or the grace was over before there was an answer".into());
        }
    }

    /// The body of the answer came to no end.
    fn broke_off(&mut self, error: &BoxError) {
        tracing::debug!(target: "tricot", id = %self.id, %error, "the answer broke off");
        // Pages of our own are whole.
        let Some(served) = &self.served else { return };
        let error = log::chain(&**error);
        served.backend.broke_off(&self.shared.metrics, &error);
        self.broken = true;
        if let Some(line) = &mut self.line {
            line.reason = Some(error);
        }
    }

    /// As of [`super::host::of`].
    fn host(&self) -> Option<&str> {
        let authority = self.uri.authority().map(Authority::as_str);
        authority.or_else(|| self.host.as_ref().and_then(|host| host.to_str().ok()))
    }

    /// Writes the line about the request where lines go. `cut_by` is who ended the answer before its end.
    fn write(&self, took: Duration, cut_by: Option<&str>) {
        let Some(line) = &self.line else { return };
        let instance = self.served.as_ref().map(|served| served.backend.instance());
        let unserved = || self.unserved.as_ref().map(|unserved| &**unserved.0.service());
        let service = instance.map(|it| &*it.service).or_else(unserved);
        // Which instance it was is for those who look for faults, unless the fault is the instance's.
        let instance = instance.filter(|_| self.broken || tracing::enabled!(target: "tricot", Level::DEBUG));
        let reason = line.reason.as_deref();
        let client = line.client.map_or_else(|| "-".to_owned(), |ip| ip.to_canonical().to_string());
        let host = self.host().unwrap_or("-");
        let path = self.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        let (status, bytes, complete) = (self.status.as_u16(), self.bytes, self.complete);
        let text = match self.shared.log {
            AccessLog::Off => return,
            AccessLog::Stdout => {
                tracing::info!(
                    target: "tricot",
                    id = %self.id,
                    client,
                    method = %self.method,
                    host,
                    path,
                    protocol = ?self.version,
                    status,
                    bytes,
                    duration_ms,
                    complete,
                    cut_by,
                    service,
                    reason,
                    node = instance.map(|it| &*it.node),
                    instance = instance.map(|it| &*it.id),
                    "request"
                );
                return;
            }
            AccessLog::Json => {
                let time = rfc3339(SystemTime::now());
                let mut json = serde_json::json!({
                    "time": time, "id": self.id.to_string(), "client": client, "method": self.method.as_str(),
                    "host": host, "path": path, "protocol": format!("{:?}", self.version), "status": status,
                    "bytes": bytes, "duration_ms": duration_ms, "complete": complete, "service": service,
                });
                if let Some(json) = json.as_object_mut() {
                    if let Some(cut_by) = cut_by {
                        json.insert("cut_by".into(), cut_by.into());
                    }
                    if let Some(reason) = reason {
                        json.insert("reason".into(), reason.into());
                    }
                    if let Some(instance) = instance {
                        json.insert("node".into(), (*instance.node).into());
                        json.insert("instance".into(), (*instance.id).into());
                    }
                }
                json.to_string()
            }
            AccessLog::Text => {
                let time = rfc3339(SystemTime::now());
                let cut = cut_by.map(|by| format!(" cut={by}")).unwrap_or_default();
                let service = service.unwrap_or("-");
                let to = instance.map(|it| format!(" {} {}", it.node, it.id)).unwrap_or_default();
                let why = reason.map(|reason| format!(" {reason:?}")).unwrap_or_default();
                let (method, version, id) = (&self.method, self.version, self.id);
                format!(
                    "{time} {client} {method} {host} {path:?} {version:?} {status} {bytes} {duration_ms}ms {id} {service}{cut}{to}{why}"
                )
            }
        };
        // Nobody is left to be told if stdout is gone.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }
}

/// The status that requests without an answer have in the log and in numbers, as with other proxies. It is never sent.
const UNANSWERED: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => unreachable!(),
};

/// Whether a method speaks to proxies themselves: TRACE, and CONNECT other than for a protocol inside HTTP/2 (RFC 8441).
fn is_for_proxies(request: &Request<Body>) -> bool {
    let tunnels = request.extensions().get::<Protocol>().is_some();
    *request.method() == Method::TRACE || (*request.method() == Method::CONNECT && !tunnels)
}

/// A moment in RFC 3339, in UTC. Times that have no such form have none.
fn rfc3339(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

/// The answer, with its record on the way to its end.
#[pin_project]
pub(super) struct Answer<F> {
    /// Nothing for a request that is not passed on.
    #[pin]
    answer: Option<F>,
    record: Option<Box<Record>>,
}

impl<F> Future for Answer<F>
where
    F: Future<Output = Result<Response<Body>, Error>>,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = match this.answer.as_pin_mut() {
            Some(answer) => Some(ready!(answer.poll(cx))),
            None => None,
        };
        let Some(mut record) = this.record.take() else { return Poll::Pending };
        let mut answer = match answer {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => record.refuse(&Refused::from(error)),
            None => record.refuse(&Refused::Method),
        };
        record.unserved = answer.extensions_mut().remove();
        if let Some(refused) = answer.extensions_mut().remove::<Arc<Refused>>() {
            answer = record.refuse(&refused);
        }
        record.status = answer.status();
        record.served = answer.extensions_mut().remove();
        if answer.body().is_end_stream() {
            record.complete = true;
            return Poll::Ready(Ok(answer));
        }
        // On HTTP/2 it may have to wait for the client's credit; and of an answer to HEAD nothing is sent.
        if answer.body().is_whole() && record.version < Version::HTTP_2 && record.method != Method::HEAD {
            record.bytes = answer.body().size_hint().lower();
            record.complete = true;
            return Poll::Ready(Ok(answer));
        }
        Poll::Ready(Ok(answer.map(|body| Body::new(Watched { body, record }))))
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
            Some(Err(error)) => this.record.broke_off(error),
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
