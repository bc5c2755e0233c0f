//! What a proxy changes in the heads of requests and answers.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Version;
use http::header;
use pin_project::pin_project;
use tower::Layer;
use tower::Service;

use self::check::check_framing;
use self::check::check_target;
use self::check::host;
use self::check::last_hop;
use self::check::one_length;
pub use self::forwarded::Forwarded;
use self::forwarded::Trusts;
use super::Accepted;
use super::Body;
use crate::error::Error;

mod check;
mod forwarded;

/// Makes requests and answers fit to be passed on.
///
/// A request:
///
/// - must have exactly one host and exactly one way to tell where its body ends, or it is refused as
///   [malformed](super::HttpError::Malformed), like one that asks for a tunnel (`CONNECT`) to a place of its own choice;
/// - loses what concerns its connection only: `Connection` and what that names, `Keep-Alive`, `Proxy-*`, `TE` other than
///   `trailers`, `Transfer-Encoding`; and `Upgrade`, unless it asks for one to something else than HTTP
///   ([`UpgradeLayer`](super::UpgradeLayer) grants it);
/// - has its `Cookie` fields joined into one (RFC 9113 section 8.2.3);
/// - tells who sent it: see [`Forwarded`];
/// - is answered here if its `Max-Forwards` is used up (`OPTIONS` and `TRACE`).
///
/// An answer loses what concerns its connection only.
#[derive(Clone)]
#[must_use = "layers do nothing unless applied"]
pub struct HeadersLayer {
    forwarded: Forwarded,
    trusts: Option<Arc<Trusts>>,
    via: Option<Via>,
}

/// The field for each version that a message may have come in.
#[derive(Clone, Debug)]
struct Via {
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    fn of(&self, version: Version) -> HeaderValue {
        match version {
            Version::HTTP_10 => &self.http10,
            Version::HTTP_2 => &self.http2,
            _ => &self.http11,
        }
        .clone()
    }
}

impl HeadersLayer {
    /// Tells by [`Forwarded::X`], trusts nobody, adds no `Via`.
    pub fn new() -> Self {
        Self { forwarded: Forwarded::default(), trusts: None, via: None }
    }

    /// Sets how endpoints learn who sent a request.
    pub fn forwarded(mut self, forwarded: Forwarded) -> Self {
        self.forwarded = forwarded;
        self
    }

    /// Sets whom to believe what it says about those before it: proxies of one's own. Default: nobody.
    pub fn trusting(mut self, trusts: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.trusts = Some(Arc::new(trusts));
        self
    }

    /// Adds a `Via` field with this name to requests and answers (RFC 9110 section 7.6.3). Default: none.
    ///
    /// # Errors
    ///
    /// If a header field cannot carry the name.
    pub fn via(mut self, name: &str) -> Result<Self, header::InvalidHeaderValue> {
        let field = |version| HeaderValue::from_str(&format!("{version} {name}"));
        self.via = Some(Via { http10: field("1.0")?, http11: field("1.1")?, http2: field("2.0")? });
        Ok(self)
    }

    /// Makes a request fit, or answers one that must not be passed on.
    fn request(&self, request: &mut Request<Body>) -> Result<Option<Response<Body>>, Error> {
        let fields = Fields::of(request.headers());
        if fields.codings > 0 {
            check_framing(request)?;
        }
        if fields.lengths > 1 {
            one_length(request.headers_mut())?;
        }
        check_target(request)?;
        let host = host(request, fields.hosts)?;
        if fields.max_forwards
            && let Some(answer) = last_hop(request)
        {
            return Ok(Some(answer));
        }
        let upgrade = if fields.connection { wanted_upgrade(request) } else { None };
        let accepted = request.extensions().get::<Accepted>().cloned();
        let version = request.version();
        let headers = request.headers_mut();
        strip(headers, &fields);
        if let Some(upgrade) = upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, upgrade);
        }
        if fields.cookies > 1 {
            join_cookies(headers);
        }
        if self.forwarded != Forwarded::Untouched {
            let trusts = self.trusts.as_deref();
            self.forwarded.tell(headers, fields.forwarded, trusts, host.as_ref(), accepted.as_ref());
        }
        if let Some(via) = &self.via {
            headers.append(header::VIA, via.of(version));
        }
        Ok(None)
    }

    fn answer(&self, answer: &mut Response<Body>) {
        let upgrade = (answer.status() == StatusCode::SWITCHING_PROTOCOLS)
            .then(|| answer.headers_mut().remove(header::UPGRADE))
            .flatten();
        let fields = Fields::of(answer.headers());
        // RFC 9112 section 6.3: the coding counts.
        if fields.codings > 0 {
            answer.headers_mut().remove(header::CONTENT_LENGTH);
        }
        strip(answer.headers_mut(), &fields);
        if fields.lengths > 1 {
            // Lengths that differ have been refused by the client that read them.
            let _ = one_length(answer.headers_mut());
        }
        if let Some(upgrade) = upgrade {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            answer.headers_mut().insert(header::UPGRADE, upgrade);
        }
        if let Some(via) = &self.via {
            let field = via.of(answer.version());
            answer.headers_mut().append(header::VIA, field);
        }
    }
}

/// Which of the fields that matter here a head has: looked for once, since most heads have hardly any of them.
#[derive(Clone, Copy, Debug, Default)]
struct Fields {
    hosts: u32,
    lengths: u32,
    codings: u32,
    cookies: u32,
    connection: bool,
    /// Any other one that concerns the connection only.
    of_connection: bool,
    /// Any in which a client may say for whom it asks.
    forwarded: bool,
    max_forwards: bool,
}

impl Fields {
    fn of(headers: &HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, _) in headers {
            match name.as_str() {
                "host" => fields.hosts += 1,
                "content-length" => fields.lengths += 1,
                "cookie" => fields.cookies += 1,
                "connection" => fields.connection = true,
                "transfer-encoding" => {
                    fields.codings += 1;
                    fields.of_connection = true;
                }
                "te"
                | "upgrade"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "keep-alive"
                | "proxy-connection" => fields.of_connection = true,
                "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-port"
                | "x-real-ip" | "forwarded" => fields.forwarded = true,
                "max-forwards" => fields.max_forwards = true,
                _ => {}
            }
        }
        fields
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

impl Default for HeadersLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HeadersLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadersLayer")
            .field("forwarded", &self.forwarded)
            .field("via", &self.via)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for HeadersLayer {
    type Service = Headers<S>;

    fn layer(&self, inner: S) -> Headers<S> {
        Headers { inner, layer: Arc::new(self.clone()) }
    }
}

/// Makes requests and answers fit to be passed on; made by [`HeadersLayer`].
#[derive(Clone, Debug)]
pub struct Headers<S> {
    inner: S,
    layer: Arc<HeadersLayer>,
}

impl<S> Service<Request<Body>> for Headers<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = HeadersFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.layer.request(&mut request) {
            Ok(None) => {
                HeadersFuture::Answer { answer: self.inner.call(request), layer: Arc::clone(&self.layer) }
            }
            Ok(Some(answer)) => HeadersFuture::Settled(Some(Ok(answer))),
            Err(error) => HeadersFuture::Settled(Some(Err(error))),
        }
    }
}

/// The answer of [`Headers`].
#[pin_project(project = HeadersFutureProj)]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
#[non_exhaustive]
pub enum HeadersFuture<F> {
    /// The request went on.
    #[doc(hidden)]
    Answer {
        #[pin]
        answer: F,
        layer: Arc<HeadersLayer>,
    },
    /// It did not.
    #[doc(hidden)]
    Settled(Option<Result<Response<Body>, Error>>),
}

impl<F> Future for HeadersFuture<F>
where
    F: Future<Output = Result<Response<Body>, Error>>,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            HeadersFutureProj::Answer { answer, layer } => {
                let mut answer = ready!(answer.poll(cx))?;
                layer.answer(&mut answer);
                Poll::Ready(Ok(answer))
            }
            // Nobody polls it again after that.
            HeadersFutureProj::Settled(outcome) => outcome.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}

/// The protocol that a request wants to go on with: by `Upgrade`, which counts only if `Connection` names it and only in
/// HTTP/1.1 (RFC 9110 section 7.8). None if that carries HTTP itself.
fn wanted_upgrade(request: &mut Request<Body>) -> Option<HeaderValue> {
    let asks = request.version() == Version::HTTP_11
        && request.method() != Method::CONNECT
        && tokens(request.headers(), &header::CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    let upgrade = asks.then(|| request.headers_mut().remove(header::UPGRADE)).flatten();
    upgrade.filter(|upgrade| !carries_http(upgrade.as_bytes()))
}

/// Whether one of these protocols is HTTP in another form: h2c (RFC 9113 section 3.1 took it back), or TLS of RFC 2817.
/// Behind it a client would send requests to the endpoint that nobody has looked at.
pub(super) fn carries_http(protocols: &[u8]) -> bool {
    members(protocols)
        .filter_map(|protocol| protocol.split(|byte| *byte == b'/').next())
        .any(|name| [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|http| name.eq_ignore_ascii_case(http)))
}

/// Removes what concerns one connection only (RFC 9110 section 7.6.1).
fn strip(headers: &mut HeaderMap, fields: &Fields) {
    if fields.connection {
        if !headers.get_all(header::CONNECTION).iter().all(|field| names_nothing(field.as_bytes())) {
            strip_named(headers);
        }
        headers.remove(header::CONNECTION);
    }
    if !fields.of_connection {
        return;
    }
    if headers.contains_key(header::TE) {
        let trailers = tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case(b"trailers"));
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    for name in
        [header::TRANSFER_ENCODING, header::UPGRADE, header::PROXY_AUTHENTICATE, header::PROXY_AUTHORIZATION]
    {
        headers.remove(name);
    }
    headers.remove(&KEEP_ALIVE);
    headers.remove(&PROXY_CONNECTION);
}

/// Takes away what `Connection` names.
fn strip_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter(|token| !names_nothing(token))
        // Nobody may take these away: they say what the message is and who it is for.
        .filter(|token| !token.eq_ignore_ascii_case(b"host"))
        .filter(|token| !token.eq_ignore_ascii_case(b"content-length"))
        .filter(|token| !token.eq_ignore_ascii_case(b"te"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// What nearly every `Connection` says: no field is named so, but one that is removed anyway.
fn names_nothing(token: &[u8]) -> bool {
    token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close")
}

/// The members of a list that may be spread over several fields.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(|field| members(field.as_bytes()))
}

/// The members of a list. As bytes, so that what is no text spoils no more than its own member.
fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// HTTP/2 may carry each cookie in a field of its own; HTTP/1 has one field for all.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Parts of valid values, put together with what is valid in one.
    if let Ok(mut joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}
