//! How namerd is asked.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::Uri;
use http::header::HOST;
use http::uri::Authority;
use http::uri::Scheme;
use meshlib::BalanceLayer;
use meshlib::Error;
use meshlib::TcpConnector;
use meshlib::TimeoutLayer;
use meshlib::balance::Accrual;
use meshlib::connect::SocketOptions;
use meshlib::http::Body;
use meshlib::http::ClientLayer;
use meshlib::observe::Observer;
use meshlib::resolve::Dns;
use meshlib::resolve::ResolveError;
use meshlib::tls;
use tokio::time;
use tower::ServiceBuilder;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::watch::Values;

/// Asks namerd for the addresses of names.
///
/// A [`Resolver`](meshlib::Resolver) of paths such as `/svc/web`. A clone shares the connections. Streams must be polled
/// inside a tokio runtime.
#[derive(Clone)]
pub struct Namerd {
    pub(crate) base: Arc<Base>,
    pub(crate) options: Options,
    tls: Option<tls::ClientTls>,
    connect_timeout: Duration,
    /// Made with the first resolution, of the options as they are then.
    asker: Arc<OnceLock<Asker>>,
}

#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) namespace: Arc<str>,
    pub(crate) period: Duration,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) watch: Watch,
    pub(crate) mode: Mode,
    pub(crate) on_negative: OnNegative,
    pub(crate) observer: Arc<dyn Observer>,
}

/// Whether namerd is watched for changes between polls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Watch {
    /// Yes; one that does not stream its answers is asked to less and less often, at last once a minute. The default.
    #[default]
    Auto,
    /// Yes, and asked to every second as long as it does not.
    Always,
    /// No: changes take effect with the next poll.
    Never,
}

/// Which calls resolve a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// `resolve`: namerd decides on one name by drawing lots, anew for each request. The default, as linkerd-tcp has it.
    #[default]
    Resolve,
    /// `bind` and `addr`: weights and alternatives of the name are applied to each connection. A name that is bound to more
    /// than 1,000 leaves is a bad answer, and the last good set stays.
    Bind,
}

/// What it means that namerd knows no such name although it had endpoints before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnNegative {
    /// A mishap: the last good set stays. The default, as linkerd-tcp has it.
    #[default]
    Keep,
    /// What it says: there are no endpoints.
    Empty,
}

/// A URL that namerd cannot have. Says nothing of one that may have a password in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct InvalidUrl(#[from] UrlProblem);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum UrlProblem {
    #[error("{0:?} is not http://HOST:PORT or https://HOST:PORT")]
    Form(String),
    #[error("the URL of namerd has a user in it; expected http://HOST:PORT or https://HOST:PORT")]
    User,
}

impl InvalidUrl {
    fn new(url: &str) -> Self {
        let problem = if url.contains('@') { UrlProblem::User } else { UrlProblem::Form(url.to_owned()) };
        Self(problem)
    }
}

/// The address that everything is asked of.
#[derive(Debug)]
pub(crate) struct Base {
    /// Host and port, for DNS and for messages.
    pub(crate) authority: Arc<str>,
    host: HeaderValue,
    path: String,
    secure: bool,
}

impl Namerd {
    /// Asks the namerd at a URL: `http` or `https`, host, perhaps port and a path in front of namerd's own.
    ///
    /// The defaults: namespace `default`, a poll every 20 s, watching in between.
    ///
    /// # Errors
    ///
    /// If it is no such URL, or has a user in it: namerd asks for none.
    pub fn new(url: &str) -> Result<Self, InvalidUrl> {
        let invalid = || InvalidUrl::new(url);
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(invalid()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
        let authority = uri.authority().map(Authority::as_str);
        let authority = authority.filter(|authority| !authority.contains('@')).ok_or_else(invalid)?;
        let port = match uri.port_u16() {
            Some(port) => port,
            None if authority.len() > host.len() => return Err(invalid()),
            None if secure => 443,
            None => 80,
        };
        let base = Base {
            authority: format!("{host}:{port}").into(),
            host: HeaderValue::from_str(authority).map_err(|_| invalid())?,
            path: uri.path().trim_end_matches('/').to_owned(),
            secure,
        };
        let options = Options {
            namespace: "default".into(),
            period: Duration::from_secs(20),
            request_timeout: None,
            watch: Watch::default(),
            mode: Mode::default(),
            on_negative: OnNegative::default(),
            observer: Arc::new(()),
        };
        Ok(Self {
            base: Arc::new(base),
            options,
            tls: None,
            connect_timeout: Duration::from_secs(1),
            asker: Arc::default(),
        })
    }

    /// Sets the dtab namespace. Default `default`.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<Arc<str>>) -> Self {
        self.options.namespace = namespace.into();
        self
    }

    /// Sets the time between two polls, at least 10 ms. Default 20 s; up to a tenth less, so that many clients do not
    /// ask in step.
    #[must_use]
    pub fn period(mut self, period: Duration) -> Self {
        self.options.period = period.max(Duration::from_millis(10));
        self.changed()
    }

    /// Sets how long an answer may take. Default: 10 s or the period, whichever is longer.
    #[must_use]
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.options.request_timeout = Some(limit);
        self.changed()
    }

    /// Sets how long connecting to namerd may take. Default 1 s.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self.changed()
    }

    /// Says whether to watch. Default [`Watch::Auto`].
    #[must_use]
    pub fn watch(mut self, watch: Watch) -> Self {
        self.options.watch = watch;
        self
    }

    /// Says which calls to use. Default [`Mode::Resolve`].
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.options.mode = mode;
        self
    }

    /// Says what to make of "no such name" after there was one. Default [`OnNegative::Keep`].
    #[must_use]
    pub fn on_negative(mut self, on_negative: OnNegative) -> Self {
        self.options.on_negative = on_negative;
        self
    }

    /// Sets how to speak to an `https` URL. Default: with trust in nobody, which fails.
    #[must_use]
    pub fn tls(mut self, tls: tls::ClientTls) -> Self {
        self.tls = Some(tls);
        self.changed()
    }

    /// Reports each request. Default: to nobody.
    #[must_use]
    pub fn observe(mut self, observer: Arc<dyn Observer>) -> Self {
        self.options.observer = observer;
        self
    }

    /// What all resolutions of this resolver and its clones ask with.
    pub(crate) fn asker(&self) -> Asker {
        self.asker.get_or_init(|| self.make_asker()).clone()
    }

    fn make_asker(&self) -> Asker {
        let connector =
            TcpConnector::new(SocketOptions::default().with_keepalive(Some(Duration::from_secs(30))));
        let client = match &self.tls {
            Some(tls) => ClientLayer::new().tls(tls::Always::new(tls.clone())),
            None if self.base.secure => ClientLayer::new().tls(Untrusted),
            None => ClientLayer::new(),
        };
        let names = Dns::every(Duration::from_secs(5));
        let service = ServiceBuilder::new()
            .layer(BalanceLayer::new(names, Arc::clone(&self.base.authority)).accrual(Accrual::never()))
            .layer(client)
            .layer(TimeoutLayer::connect(self.connect_timeout))
            .service(connector);
        let timeout = self.options.request_timeout;
        Asker {
            service: BoxCloneSyncService::new(service),
            base: Arc::clone(&self.base),
            timeout: timeout.unwrap_or_else(|| self.options.period.max(Duration::from_secs(10))),
        }
    }

    /// The options have changed: what was made of the old ones stays with whoever has it.
    fn changed(mut self) -> Self {
        self.asker = Arc::default();
        self
    }
}

impl fmt::Debug for Namerd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namerd")
            .field("authority", &self.base.authority)
            .field("namespace", &self.options.namespace)
            .finish_non_exhaustive()
    }
}

/// No plaintext where the URL says TLS.
struct Untrusted;

impl tls::TlsPolicy for Untrusted {
    fn connect(&self, _: &meshlib::To<meshlib::Session>) -> tls::ConnectTls {
        tls::ConnectTls::Refuse
    }
}

/// Asks, with a deadline for everything but the end of a watch.
#[derive(Clone)]
pub(crate) struct Asker {
    service: BoxCloneSyncService<Request<Body>, Response<Body>, Error>,
    base: Arc<Base>,
    timeout: Duration,
}

impl Asker {
    /// The whole answer.
    pub(crate) fn ask(&self, target: Target) -> BoxFuture<'static, Result<Bytes, ResolveError>> {
        let this = self.clone();
        Box::pin(async move {
            let whole = async {
                let response = this.send(&target, "").await?;
                let body = response.into_body();
                body.collect(Values::MAX_VALUE).await.map_err(|error| this.unreachable(&error))
            };
            time::timeout(this.timeout, whole).await.unwrap_or_else(|_| Err(this.too_slow()))
        })
    }

    /// The beginning of an answer that goes on.
    pub(crate) fn watch(&self, target: Target) -> BoxFuture<'static, Result<Response<Body>, ResolveError>> {
        let this = self.clone();
        Box::pin(async move {
            let head = this.send(&target, "&watch=true");
            time::timeout(this.timeout, head).await.unwrap_or_else(|_| Err(this.too_slow()))
        })
    }

    async fn send(&self, target: &Target, more: &str) -> Result<Response<Body>, ResolveError> {
        let path = format!("{}{}{more}", self.base.path, target.uri);
        let named = || ResolveError::Name { name: Arc::clone(&target.name) };
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().map_err(|_| named())?;
        request.headers_mut().insert(HOST, self.base.host.clone());
        let response =
            self.service.clone().oneshot(request).await.map_err(|error| self.unreachable(&error))?;
        match response.status().as_u16() {
            200 => Ok(response),
            status => Err(ResolveError::Status { name: Arc::clone(&target.name), status }),
        }
    }

    pub(crate) fn unreachable(&self, error: &dyn std::error::Error) -> ResolveError {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        ResolveError::unreachable(Arc::clone(&self.base.authority), std::io::Error::other(text))
    }

    fn too_slow(&self) -> ResolveError {
        ResolveError::Timeout { authority: Arc::clone(&self.base.authority), after: self.timeout }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// As the caller named it.
    pub(crate) name: Arc<str>,
    uri: Arc<str>,
}

impl Target {
    /// A call about a path in a namespace.
    pub(crate) fn new(call: &str, namespace: &str, path: &str) -> Self {
        // namerd takes the namespace as it stands in the URL: neither are slashes its end, nor does it decode anything.
        let uri = format!("/api/1/{call}/{}?path={}", in_path(namespace), encoded(path));
        Self { name: path.into(), uri: uri.into() }
    }
}

/// Text for the path of a URL: what may stand there stands as it is (RFC 3986 section 3.3).
fn in_path(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte) {
            path.push(byte.into());
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// Text for a query, in the form that HTML forms use: everything but letters, digits and `*-._` is escaped.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => encoded.push(byte.into()),
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_the_one_of_the_original() {
        let target = Target::new("resolve", "default", "/svc/#/web");

        assert_eq!(&*target.uri, "/api/1/resolve/default?path=%2Fsvc%2F%23%2Fweb");
        assert_eq!(&*Target::new("bind", "a/b c", "/").uri, "/api/1/bind/a/b%20c?path=%2F");
    }

    #[test]
    fn a_url_is_taken_apart() {
        let namerd = Namerd::new("http://[::1]:4180/namerd/").unwrap();
        assert_eq!(&*namerd.base.authority, "[::1]:4180");
        assert_eq!(namerd.base.path, "/namerd");
        assert_eq!(&*Namerd::new("https://namerd").unwrap().base.authority, "namerd:443");
        for bad in ["namerd:4180", "ftp://namerd", "http://namerd:x", "http://", ""] {
            assert!(Namerd::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_url_with_a_user_is_refused_without_its_password() {
        for bad in [
            "http://user:secret@namerd:4180",
            "https://:secret@namerd",
            "ftp://user:secret@namerd",
            "http://user:sec/secret@namerd",
            "user:secret@namerd",
        ] {
            let error = Namerd::new(bad).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("has a user in it") && !shown.contains("sec"), "{shown}");
        }
        assert!(Namerd::new("http://namerd/user@host").is_ok(), "no user, but a path");
    }
}
