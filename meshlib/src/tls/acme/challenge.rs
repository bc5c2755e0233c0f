//! Answers to the authority's question for a file (RFC 8555 section 8.3).

use std::fmt;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::ALLOW;
use http::header::CONTENT_TYPE;
use tower::Layer;
use tower::Service;

use super::layout::Layout;
use super::lookup::Lookup;
use crate::http::Body;

const PATH: &str = "/.well-known/acme-challenge/";

/// Answers for whichever node has placed the order. A clone is the same.
///
/// It is a layer, too: around a service of requests it answers those for challenges and passes the others on.
#[derive(Clone)]
pub struct Challenges {
    lookup: Arc<Lookup>,
    layout: Arc<Layout>,
}

impl Challenges {
    pub(super) fn new(lookup: Arc<Lookup>, layout: Arc<Layout>) -> Self {
        Self { lookup, layout }
    }

    /// What proves that a token is known. Nothing for one that is not, or if the store does not say within 2 s.
    ///
    /// The store is asked at most once a second for a token that is not there, and by at most 50 requests at a time. What
    /// cannot be a token is not looked for.
    pub async fn http01(&self, token: &str) -> Option<Bytes> {
        if !is_token(token) {
            return None;
        }
        self.lookup.value(&self.layout.token(token)).await
    }

    /// The answer to a request for a challenge; nothing if it is for something else.
    pub async fn answer(&self, request: &Request<Body>) -> Option<Response<Body>> {
        let token = request.uri().path().strip_prefix(PATH)?;
        Some(self.respond(request.method(), token).await)
    }

    async fn respond(&self, method: &Method, token: &str) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        if method != Method::GET && method != Method::HEAD {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match self.http01(token).await {
            Some(proof) => {
                let kind = HeaderValue::from_static("application/octet-stream");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                *response.body_mut() = proof.into();
            }
            None => *response.status_mut() = StatusCode::NOT_FOUND,
        }
        response
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Challenges {
    type Service = Answering<S>;

    fn layer(&self, inner: S) -> Answering<S> {
        Answering { inner, challenges: self.clone() }
    }
}

/// Answers requests for challenges and passes the others on; made by [`Challenges`] as a layer.
#[derive(Clone, Debug)]
pub struct Answering<S> {
    inner: S,
    challenges: Challenges,
}

impl<S> Service<Request<Body>> for Answering<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(token) = request.uri().path().strip_prefix(PATH) else {
            return Box::pin(self.inner.call(request));
        };
        let (challenges, token, method) =
            (self.challenges.clone(), token.to_owned(), request.method().clone());
        Box::pin(async move { Ok(challenges.respond(&method, &token).await) })
    }
}

/// RFC 8555 section 8.3: the base64url alphabet.
pub(super) fn is_token(token: &str) -> bool {
    (1..=128).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests;
