//! What a proxy changes in the heads of requests and answers.

use std::fmt;
use std::fmt::Write;
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
use http::uri::Authority;
use hyper::ext::Protocol;
use pin_project::pin_project;
use tower::Layer;
use tower::Service;

use super::Accepted;
use super::Body;
use super::HttpError;
use crate::error::Error;

/// Makes requests and answers fit to be passed on.
///
/// A request:
///
/// - must have exactly one host and exactly one way to tell where its body ends, or it is refused as
///   [malformed](HttpError::Malformed), like one that asks for a tunnel (`CONNECT`) to a place of its own choice;
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

type Trusts = dyn Fn(IpAddr) -> bool + Send + Sync;

/// How an endpoint learns who sent a request.
///
/// What a client says about itself in these fields is dropped, unless the client is [trusted](HeadersLayer::trusting);
/// then its `X-Forwarded-For` and `Forwarded` are extended and the others are left as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forwarded {
    /// Not at all. What is there goes through as it is.
    Untouched,
    /// By `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Real-IP`.
    #[default]
    X,
    /// By these, `X-Forwarded-Port`, and `Forwarded` of RFC 7239.
    Rfc7239,
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
            self.tell(headers, &fields, host.as_ref(), accepted.as_ref());
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

    /// Says who sent the request.
    fn tell(
        &self,
        headers: &mut HeaderMap,
        fields: &Fields,
        host: Option<&HeaderValue>,
        accepted: Option<&Accepted>,
    ) {
        let session = accepted.map(Accepted::session);
        let peer = session.and_then(|session| session.peer).map(|peer| peer.ip().to_canonical());
        let trusted = fields.forwarded
            && peer.is_some_and(|peer| self.trusts.as_ref().is_some_and(|trusts| trusts(peer)));
        if fields.forwarded && !trusted {
            for name in
                [&X_FORWARDED_FOR, &X_FORWARDED_PROTO, &X_FORWARDED_HOST, &X_FORWARDED_PORT, &X_REAL_IP]
            {
                headers.remove(name);
            }
            headers.remove(header::FORWARDED);
        }
        // At once instead of one by one.
        headers.reserve(TOLD);
        let proto = if session.is_some_and(|session| session.tls.is_some()) { "https" } else { "http" };
        let proto = HeaderValue::from_static(proto);
        if let Some(peer) = peer
            && let Some(text) = accepted.and_then(Accepted::peer)
        {
            if self.forwarded == Forwarded::Rfc7239
                && let Ok(member) = HeaderValue::try_from(forwarded(peer, &proto, host))
            {
                append_to_list(headers, &header::FORWARDED, member);
            }
            headers.entry(&X_REAL_IP).or_insert_with(|| text.clone());
            append_to_list(headers, &X_FORWARDED_FOR, text.clone());
        }
        if self.forwarded == Forwarded::Rfc7239
            && let Some(port) = session.and_then(|session| session.local)
        {
            headers.entry(&X_FORWARDED_PORT).or_insert_with(|| port.port().into());
        }
        headers.entry(&X_FORWARDED_PROTO).or_insert(proto);
        if let Some(host) = host {
            headers.entry(&X_FORWARDED_HOST).or_insert_with(|| host.clone());
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

/// Most fields that are added.
const TOLD: usize = 6;
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
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

fn malformed(why: &'static str) -> Error {
    Error::Http(Box::new(HttpError::Malformed(why)))
}

/// There must be one way to tell where a body ends, and it must be one that every server reads alike.
///
/// The server has refused lengths that differ, codings that do not end in `chunked` and line breaks in values already,
/// and has dropped a length beside a coding.
fn check_framing(request: &Request<Body>) -> Result<(), Error> {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(malformed("its transfer coding is not chunked alone")),
    }
}

/// A proxy that balances over endpoints opens no tunnels to wherever clients want (`CONNECT` of RFC 9110 section 9.3.6), but
/// for those that carry a protocol inside HTTP/2 (RFC 8441). And `*` is a target for `OPTIONS` only (RFC 9112 section 3.2.4).
fn check_target(request: &Request<Body>) -> Result<(), Error> {
    if *request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none() {
        return Err(malformed("it asks for a tunnel"));
    }
    if request.uri().path() == "*" && *request.method() != Method::OPTIONS {
        return Err(malformed("its target is for OPTIONS only"));
    }
    Ok(())
}

/// RFC 9110 section 7.6.2: `OPTIONS` and `TRACE` go over so many proxies and no further. The last one answers itself, and
/// others count down.
fn last_hop(request: &mut Request<Body>) -> Option<Response<Body>> {
    if !matches!(*request.method(), Method::OPTIONS | Method::TRACE) {
        return None;
    }
    let field = request.headers().get(header::MAX_FORWARDS)?;
    let left: u64 = field.to_str().ok()?.trim().parse().ok()?;
    if let Some(left) = left.checked_sub(1) {
        request.headers_mut().insert(header::MAX_FORWARDS, left.into());
        return None;
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = if *request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT
    } else {
        // To reflect what a client sent, its credentials among it, helps attackers only.
        StatusCode::METHOD_NOT_ALLOWED
    };
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("OPTIONS"));
    Some(answer)
}

/// Makes one field of a length that is told several times. HTTP/2 lets that through as long as all are the same, and an
/// HTTP/1 server may refuse it.
fn one_length(headers: &mut HeaderMap) -> Result<(), Error> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(first), Some(second)) = (lengths.next(), lengths.next()) else { return Ok(()) };
    if first != second || lengths.any(|length| length != first) {
        return Err(malformed("its lengths differ"));
    }
    let first = first.clone();
    headers.insert(header::CONTENT_LENGTH, first);
    Ok(())
}

/// The host that a request is for, as it will be told to the endpoint.
fn host(request: &mut Request<Body>, fields: u32) -> Result<Option<HeaderValue>, Error> {
    let field = request.headers().get(header::HOST).cloned();
    if fields > 1 {
        return Err(malformed("it has more than one Host"));
    }
    if let Some(field) = &field
        && !is_host(field.as_bytes())
    {
        return Err(malformed("its Host is not one"));
    }
    let authority = request.uri().authority().map(Authority::as_str);
    let Some(authority) = authority else {
        let needed = request.version() != Version::HTTP_10 && request.version() != Version::HTTP_09;
        return if field.is_none() && needed { Err(malformed("it has no host")) } else { Ok(field) };
    };
    if !is_host(authority.as_bytes()) {
        return Err(malformed("its authority is not a host"));
    }
    if field.is_none() && request.version() == Version::HTTP_11 {
        // RFC 9112 section 3.2: also if the target has an authority.
        return Err(malformed("it has no host"));
    }
    // RFC 9112 section 3.2.3: an authority alone is the target of CONNECT only. Else it is a path without its slash.
    if request.uri().scheme().is_none() && request.method() != Method::CONNECT {
        return Err(malformed("its target is an authority alone"));
    }
    if request.version() == Version::HTTP_2
        && field.as_ref().is_some_and(|field| !field.as_bytes().eq_ignore_ascii_case(authority.as_bytes()))
    {
        return Err(malformed("its authority and its Host differ"));
    }
    // RFC 9112 section 3.2.2: a proxy goes by the authority, and replaces what Host says.
    let host = HeaderValue::from_str(authority).map_err(|_| malformed("its authority is not a host"))?;
    request.headers_mut().insert(header::HOST, host.clone());
    Ok(Some(host))
}

/// A name, an IPv4 address or an IPv6 address in brackets, with a port or without (RFC 3986 section 3.2.2).
fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let (address, after) = rest.split_at(end);
            let address = address.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
            return address
                && matches!(&after[1..], [] | [b':', ..])
                && is_port(after.get(2..).unwrap_or_default());
        }
        _ => match text.iter().position(|byte| *byte == b':') {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, &b""[..]),
        },
    };
    let allowed = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            )
    };
    !host.is_empty() && host.iter().all(allowed) && is_port(port)
}

fn is_port(text: &[u8]) -> bool {
    text.len() <= 5 && text.iter().all(u8::is_ascii_digit)
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

/// Adds a member to a list.
fn append_to_list(headers: &mut HeaderMap, name: &HeaderName, member: HeaderValue) {
    let mut list = Vec::new();
    for field in headers.get_all(name).iter().filter(|field| field.to_str().is_ok()) {
        list.extend_from_slice(field.as_bytes());
        list.extend_from_slice(b", ");
    }
    let value = if list.is_empty() {
        Some(member)
    } else {
        list.extend_from_slice(member.as_bytes());
        HeaderValue::try_from(list).ok()
    };
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

/// RFC 7239 section 4: an address of IPv6 is quoted and in brackets.
fn forwarded(peer: IpAddr, proto: &HeaderValue, host: Option<&HeaderValue>) -> String {
    let mut text = match peer {
        IpAddr::V4(peer) => format!("for={peer}"),
        IpAddr::V6(peer) => format!("for=\"[{peer}]\""),
    };
    if let Some(host) = host.and_then(|host| host.to_str().ok()) {
        // A host has no character that would have to be escaped.
        let _ = write!(text, ";host=\"{host}\"");
    }
    let _ = write!(text, ";proto={}", proto.to_str().unwrap_or_default());
    text
}
