//! A small router for a program's own pages: metrics, readiness, shutdown.
//!
//! Paths are matched exactly. `HEAD` is answered like `GET` without the body. A request that changes something, which is
//! every other method, is refused if a web page of another origin made it: an admin port on the loopback address is in
//! reach of every page its operator opens. A page of the same origin may change something if it was opened at an address
//! or at `localhost`: other names are in the hand of whoever owns them.
//!
//! # Examples
//!
//! ```
//! use meshlib::http::Body;
//! use meshlib::http::admin::{Access, Router, text};
//!
//! let router = Router::new()
//!     .get("/live", |_| text("live\n"))
//!     .post("/shutdown", Access::Loopback, |_| text("bye\n"));
//! # let _ = router;
//! ```

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use futures::future::Ready;
use futures::future::ready;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http::uri::Authority;
use tower::Service;

use super::Accepted;
use super::Body;
use crate::error::Error;

/// Who may use a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Whoever reaches the port.
    Anybody,
    /// Who connects from this machine.
    Loopback,
}

/// Gives each request to the page of its method and path.
#[derive(Clone, Default)]
pub struct Router {
    pages: Arc<HashMap<&'static str, Vec<Page>>>,
    hide_methods: bool,
}

#[derive(Clone)]
struct Page {
    method: Method,
    access: Access,
    answer: Arc<Answer>,
}

type Answer = dyn Fn(&Request<Body>) -> Response<Body> + Send + Sync;

impl Router {
    /// No pages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a page that anybody may read.
    #[must_use]
    pub fn get(
        self,
        path: &'static str,
        answer: impl Fn(&Request<Body>) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        self.page(path, Method::GET, Access::Anybody, answer)
    }

    /// Adds a page that does something.
    #[must_use]
    pub fn post(
        self,
        path: &'static str,
        access: Access,
        answer: impl Fn(&Request<Body>) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        self.page(path, Method::POST, access, answer)
    }

    /// Adds a page of another method.
    #[must_use]
    pub fn page(
        mut self,
        path: &'static str,
        method: Method,
        access: Access,
        answer: impl Fn(&Request<Body>) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let page = Page { method, access, answer: Arc::new(answer) };
        Arc::make_mut(&mut self.pages).entry(path).or_default().push(page);
        self
    }

    /// Answers a wrong method like a wrong path, with 404 instead of 405.
    #[must_use]
    pub fn hiding_methods(mut self) -> Self {
        self.hide_methods = true;
        self
    }

    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        let Some(pages) = self.pages.get(request.uri().path()) else {
            return status(StatusCode::NOT_FOUND);
        };
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let Some(page) = pages.iter().find(|page| page.method == *method) else {
            if self.hide_methods {
                return status(StatusCode::NOT_FOUND);
            }
            let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
            let mut allow: Vec<_> = pages.iter().map(|page| page.method.as_str()).collect();
            if allow.contains(&"GET") {
                allow.push("HEAD");
            }
            if let Ok(allow) = HeaderValue::from_str(&allow.join(", ")) {
                response.headers_mut().insert(header::ALLOW, allow);
            }
            return response;
        };
        let peer = request.extensions().get::<Accepted>().and_then(|accepted| accepted.session().peer);
        if page.access == Access::Loopback && !peer.is_some_and(|peer| peer.ip().is_loopback()) {
            return status(StatusCode::FORBIDDEN);
        }
        if page.method != Method::GET && is_cross_origin(request) {
            return status(StatusCode::FORBIDDEN);
        }
        (page.answer)(request)
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("paths", &self.pages.keys()).finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Router {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Ready<Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(self.answer(&request)))
    }
}

/// An answer without a body.
pub fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An answer of plain text.
pub fn text(text: impl Into<String>) -> Response<Body> {
    typed("text/plain; charset=utf-8", text)
}

/// An answer of JSON.
pub fn json(text: impl Into<String>) -> Response<Body> {
    typed("application/json", text)
}

/// An answer of another media type. One that no header can carry is left out.
pub fn typed(content_type: &str, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::from(text.into()));
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}

/// Whether a web page from elsewhere may have made this request. Tools other than browsers send neither header.
fn is_cross_origin(request: &Request<Body>) -> bool {
    let headers = request.headers();
    let (site, origin) = (headers.get("sec-fetch-site"), headers.get(header::ORIGIN));
    if site.is_none() && origin.is_none() {
        return false;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(Authority::as_str));
    let Some(host) = host.filter(|host| is_fixed(host)) else {
        return true;
    };
    if site.is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none")) {
        return true;
    }
    let authority = |origin: &HeaderValue| Some(origin.to_str().ok()?.split_once("://")?.1 == host);
    origin.is_some_and(|origin| authority(origin) != Some(true))
}

/// Whether this is the address of a machine, or its own name for itself. Whoever owns another name may point it here,
/// and pages that were loaded under it are then of the same origin (DNS rebinding).
fn is_fixed(host: &str) -> bool {
    !host.contains('@')
        && host.parse::<Authority>().is_ok_and(|authority| {
            let name = authority.host();
            let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
            name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Drain;
    use crate::session::Session;

    fn ask(method: &str, path: &str, headers: &[(&'static str, &'static str)], peer: &str) -> StatusCode {
        answer(method, path, headers, peer).status()
    }

    fn answer(
        method: &str,
        path: &str,
        headers: &[(&'static str, &'static str)],
        peer: &str,
    ) -> Response<Body> {
        let router = Router::new()
            .get("/page", |_| text("here"))
            .post("/do", Access::Anybody, |_| text("done"))
            .post("/local", Access::Loopback, |_| text("done"));
        let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        let session = Session::accepted(peer.parse().unwrap(), "127.0.0.1:1".parse().unwrap());
        request.extensions_mut().insert(Accepted::new(session, Drain::new().draining()));
        router.answer(&request)
    }

    #[test]
    fn pages_are_found_by_method_and_path() {
        assert_eq!(ask("GET", "/page", &[], "192.0.2.1:1"), 200);
        assert_eq!(ask("HEAD", "/page?x=1", &[], "192.0.2.1:1"), 200);
        assert_eq!(ask("POST", "/page", &[], "192.0.2.1:1"), 405);
        assert_eq!(ask("GET", "/other", &[], "192.0.2.1:1"), 404);
        assert_eq!(answer("POST", "/page", &[], "192.0.2.1:1").headers()["allow"], "GET, HEAD");
        assert_eq!(answer("GET", "/do", &[], "192.0.2.1:1").headers()["allow"], "POST");
    }

    #[test]
    fn some_pages_are_for_this_machine_only() {
        assert_eq!(ask("POST", "/local", &[], "192.0.2.1:1"), 403);
        assert_eq!(ask("POST", "/local", &[], "127.0.0.1:1"), 200);
        assert_eq!(ask("POST", "/local", &[], "[::1]:1"), 200);
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let foreign = [("origin", "http://evil.example"), ("host", "127.0.0.1:9990")];
        assert_eq!(ask("POST", "/do", &foreign, "127.0.0.1:1"), 403);
        let own = [("origin", "http://127.0.0.1:9990"), ("host", "127.0.0.1:9990")];
        assert_eq!(ask("POST", "/do", &own, "127.0.0.1:1"), 200);
        assert_eq!(ask("POST", "/do", &[("sec-fetch-site", "cross-site")], "127.0.0.1:1"), 403);
        assert_eq!(ask("POST", "/do", &[("origin", "null"), ("host", "127.0.0.1:9990")], "127.0.0.1:1"), 403);
    }

    #[test]
    fn a_name_that_somebody_may_point_here_is_no_origin_to_be_trusted() {
        for (host, status) in [
            ("127.0.0.1:9990", 200),
            ("[::1]:9990", 200),
            ("192.0.2.1", 200),
            ("localhost:9990", 200),
            ("LocalHost", 200),
            ("evil.example:9990", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example:9990", 403),
            ("evil.example@127.0.0.1", 403),
            ("", 403),
        ] {
            let host = ("host", host);
            assert_eq!(ask("POST", "/do", &[host, ("sec-fetch-site", "same-origin")], "127.0.0.1:1"), status);
            // What is no browser may use any name.
            assert_eq!(ask("POST", "/do", &[host], "127.0.0.1:1"), 200);
            assert_eq!(ask("GET", "/page", &[host, ("sec-fetch-site", "same-origin")], "127.0.0.1:1"), 200);
        }
    }
}
