//! Answers made smaller on their way to clients that can read them so.
//!
//! What a client wants is read in `negotiate`, what may be compressed is decided in `eligible`, and `encode` does it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::header;
use pin_project::pin_project;
use tower::Layer;
use tower::Service;

use self::negotiate::Coding;
use super::Body;

mod eligible;
mod encode;
mod media_type;
mod negotiate;
#[cfg(test)]
mod tests;

pub use media_type::InvalidMediaType;
pub use media_type::MediaTypes;

/// What is compressed, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CompressOptions {
    /// The types of content that are compressed. Default: text, scripts, JSON, XML, SVG and TrueType fonts; see
    /// [`MediaTypes::default`].
    pub types: MediaTypes,
    /// Answers known to be shorter are left as they are: they fit into one packet anyway. Default 1,024 bytes.
    pub min_bytes: u64,
    /// How much work is put into a byte. Default [`Effort::Balanced`].
    pub effort: Effort,
    /// How long what was read of an answer may wait for more of it, before it is sent on. An answer that goes on in small
    /// pieces for ever is sent on after twenty times as long. Default 50 ms; zero sends whatever is there.
    pub flush_after: Duration,
}

impl Default for CompressOptions {
    fn default() -> Self {
        Self {
            types: MediaTypes::default(),
            min_bytes: 1024,
            effort: Effort::default(),
            flush_after: Duration::from_millis(50),
        }
    }
}

impl CompressOptions {
    /// Sets which types of content are compressed.
    #[must_use]
    pub fn with_types(mut self, types: MediaTypes) -> Self {
        self.types = types;
        self
    }

    /// Sets from how many bytes on an answer is compressed.
    #[must_use]
    pub fn with_min_bytes(mut self, min_bytes: u64) -> Self {
        self.min_bytes = min_bytes;
        self
    }

    /// Sets how much work is put into a byte.
    #[must_use]
    pub fn with_effort(mut self, effort: Effort) -> Self {
        self.effort = effort;
        self
    }

    /// Sets how long what was read may wait for more.
    #[must_use]
    pub fn with_flush_after(mut self, flush_after: Duration) -> Self {
        self.flush_after = flush_after;
        self
    }
}

/// How much work is put into a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effort {
    /// As little as is worth it: gzip 1, brotli 1, zstd 1.
    Fast,
    /// What pays off while a client waits: gzip 5, brotli 4, zstd 3.
    #[default]
    Balanced,
    /// What pays off on narrow lines only: gzip 9, brotli 6, zstd 8.
    Small,
}

/// Compresses the answers of a service for clients that can read them so.
///
/// Goes around any service that answers HTTP requests. It looks at what the client accepts
/// ([RFC 9110 section 12.5.3](https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3)) and at what the answer is, and
/// encodes its body with zstd (feature `compress-zstd`), brotli or gzip while it streams through.
///
/// An answer is eligible if
///
/// - its status is 2xx, but not 204, 205 or 206, and its request was no `CONNECT`,
/// - its `Content-Type`, without parameters, is one of [`CompressOptions::types`] and not `text/event-stream`,
/// - it has no `Content-Encoding` but `identity`, no `Content-Range`, and no `Cache-Control: no-transform`,
/// - its length is unknown, or at least [`CompressOptions::min_bytes`].
///
/// Eligible answers get `Vary: Accept-Encoding`. They are compressed if the request is no `HEAD` and has an
/// `Accept-Encoding` that names a coding with a weight above zero; a client that prefers `identity` gets that. A
/// compressed answer has a `Content-Encoding`, its `ETag` is weak, and what spoke of the bytes that are no longer sent is
/// gone: `Content-Length`, `Accept-Ranges` and digests. An answer is never refused because no coding fits.
///
/// # Examples
///
/// What `curl --compressed` asks for, and what it gets:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), meshlib::Error> {
/// use http::{Request, Response};
/// use meshlib::Error;
/// use meshlib::http::{Body, CompressLayer, CompressOptions};
/// use tower::{Layer, ServiceExt};
///
/// let pages = tower::service_fn(|_: Request<Body>| async {
///     let mut page = Response::new(Body::from("<p>hello</p>".repeat(1000)));
///     page.headers_mut().insert("content-type", http::HeaderValue::from_static("text/html; charset=utf-8"));
///     Ok::<_, Error>(page)
/// });
/// let service = CompressLayer::new(CompressOptions::default()).layer(pages);
///
/// let mut request = Request::new(Body::empty());
/// request.headers_mut().insert("accept-encoding", http::HeaderValue::from_static("deflate, gzip, br;q=0.5"));
/// let page = service.oneshot(request).await?;
///
/// assert_eq!(page.headers()["content-encoding"], "gzip");
/// assert_eq!(page.headers()["vary"], "Accept-Encoding");
/// assert!(page.into_body().collect(12_000).await.is_ok_and(|bytes| bytes.len() < 200));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "layers do nothing unless applied"]
pub struct CompressLayer {
    options: Arc<CompressOptions>,
}

impl CompressLayer {
    /// Compresses with these options.
    pub fn new(options: CompressOptions) -> Self {
        Self { options: Arc::new(options) }
    }
}

impl Default for CompressLayer {
    fn default() -> Self {
        Self::new(CompressOptions::default())
    }
}

impl<S> Layer<S> for CompressLayer {
    type Service = Compress<S>;

    fn layer(&self, inner: S) -> Compress<S> {
        Compress { inner, options: Arc::clone(&self.options) }
    }
}

/// A service whose answers are compressed; made by [`CompressLayer`].
///
/// The body of an answer holds an encoder from its first byte to its last, however long it is: 0.3 MB for gzip; for brotli
/// and zstd at most 1 MB with [`Effort::Fast`], 2.5 MB with [`Effort::Balanced`] and 6 MB with [`Effort::Small`]. Errors
/// of the body are passed on as they are.
#[derive(Clone, Debug)]
pub struct Compress<S> {
    inner: S,
    options: Arc<CompressOptions>,
}

impl<S> Service<Request<Body>> for Compress<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = CompressFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let wish = match *request.method() {
            // The answer has no body, or is followed by something else.
            Method::CONNECT => Wish::Untouched,
            Method::HEAD => Wish::Plain,
            _ => negotiate::coding(request.headers()).map_or(Wish::Plain, Wish::Coded),
        };
        CompressFuture { inner: self.inner.call(request), wish, options: Arc::clone(&self.options) }
    }
}

/// What the answer to a request should be if it is eligible.
#[derive(Clone, Copy, Debug)]
enum Wish {
    /// As it is.
    Untouched,
    /// As it is, with the remark that others may get something else.
    Plain,
    /// Encoded.
    Coded(Coding),
}

/// The answer of a [`Compress`] service.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct CompressFuture<F> {
    #[pin]
    inner: F,
    wish: Wish,
    options: Arc<CompressOptions>,
}

impl<F, E> Future for CompressFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        Poll::Ready(Ok(compressed(response, *this.wish, this.options)))
    }
}

fn compressed(mut response: Response<Body>, wish: Wish, options: &CompressOptions) -> Response<Body> {
    if matches!(wish, Wish::Untouched) || !eligible::is_eligible(&response, options) {
        return response;
    }
    eligible::vary(response.headers_mut());
    let Wish::Coded(coding) = wish else {
        return response;
    };
    eligible::forget_identity(response.headers_mut());
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    response.map(|body| Body::new(encode::Encoded::new(body, coding, options)))
}
