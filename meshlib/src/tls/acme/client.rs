//! Requests to the authority, over the library's own HTTP client.
//!
//! Each request has a limit in time, each answer one in size. What the network or the authority's server broke is tried
//! three times. A POST may then arrive twice, which its nonce turns into a refusal that is answered with a new nonce.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header::RETRY_AFTER;
use http::uri::Scheme;
use instant_acme::BodyWrapper;
use instant_acme::BytesResponse;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time;
use tower::Layer;
use tower::ServiceExt;

use super::clock;
use super::clock::Clock;
use super::options::AcmeOptions;
use crate::backoff::Backoff;
use crate::connect::TcpConnector;
use crate::endpoint::Endpoint;
use crate::error::Chain;
use crate::http::Body;
use crate::http::ClientLayer;
use crate::http::HttpClient;
use crate::resolve::Resolver;
use crate::resolve::Update;
use crate::session::Session;
use crate::session::To;
use crate::tls::ClientTls;
use crate::tls::ConnectTls;
use crate::tls::TlsPolicy;

/// How long one exchange may take, to the last byte of the answer.
const WITHIN: Duration = Duration::from_secs(30);
/// How long one of several addresses may take.
const ADDRESS_WITHIN: Duration = Duration::from_secs(10);
/// How long finding the addresses may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
/// Most bytes of an answer; chains are the longest, at some 10 KiB.
const MAX_BYTES: usize = 1 << 20;
/// How often a request is tried.
const TRIES: u32 = 3;
/// The longest `Retry-After` of a broken server that a request itself waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("{0} is not an https URL")]
    Url(Uri),
    #[error("{0} has no address")]
    Resolve(String),
    #[error("the exchange took longer than {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Exchange(#[from] crate::error::Error),
    #[error("the answer broke off")]
    Body(#[source] crate::http::HttpError),
    #[error("the authority answered {0}")]
    Status(StatusCode),
}

/// Sends requests to the authority. A clone uses the same connections.
#[derive(Clone)]
pub(super) struct Client {
    http: HttpClient<TcpConnector>,
    resolver: Arc<dyn Resolver<String>>,
    clock: Arc<dyn Clock>,
}

/// TLS with the host of the request, which its session names.
struct ToAuthority(Arc<ClientConfig>);

impl TlsPolicy for ToAuthority {
    fn connect(&self, to: &To<Session>) -> ConnectTls {
        let host = to.request.server_name.as_deref().unwrap_or_default();
        match ServerName::try_from(host.to_owned()) {
            Ok(name) => ConnectTls::Required(ClientTls::new(Arc::clone(&self.0), name)),
            Err(_) => ConnectTls::Refuse,
        }
    }
}

impl Client {
    pub(super) fn new(options: &AcmeOptions) -> Self {
        let layer = ClientLayer::new().tls(ToAuthority(Arc::clone(&options.tls)));
        Self {
            http: layer.layer(TcpConnector::default()),
            resolver: Arc::clone(&options.resolver),
            clock: Arc::clone(&options.clock),
        }
    }

    /// Sends a request until there is an answer that is not the server's own failure.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, RequestError> {
        let (head, body) = request.into_parts();
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
        for left in (0..TRIES).rev() {
            let attempt = time::timeout(WITHIN, self.attempt(&head, &body)).await;
            let outcome = attempt.unwrap_or(Err(RequestError::Timeout(WITHIN)));
            let mut pause = backoff.next_delay();
            match outcome {
                Ok(answer) if !answer.status().is_server_error() || left == 0 => return Ok(answer),
                Ok(answer) => match self.retry_after(answer.headers()) {
                    Some(wait) if wait > PATIENCE => return Ok(answer),
                    wait => pause = pause.max(wait.unwrap_or_default()),
                },
                Err(error @ RequestError::Url(_)) => return Err(error),
                Err(error) if left == 0 => return Err(error),
                Err(error) => tracing::debug!(uri = %head.uri, error = %Chain(&error), "trying again"),
            }
            time::sleep(pause).await;
        }
        Err(RequestError::Timeout(WITHIN))
    }

    /// The JSON of an answer that says 200.
    pub(super) async fn get(&self, url: &str) -> Result<Response<Bytes>, RequestError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = url.parse().map_err(|_| RequestError::Url(Uri::default()))?;
        let answer = self.send(request).await?;
        if answer.status() == StatusCode::OK {
            Ok(answer)
        } else {
            Err(RequestError::Status(answer.status()))
        }
    }

    pub(super) fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        clock::retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, self.clock.now())
    }

    /// Sends it to one address after the other, until one takes it.
    async fn attempt(
        &self,
        head: &http::request::Parts,
        body: &Bytes,
    ) -> Result<Response<Bytes>, RequestError> {
        let uri = &head.uri;
        let host = uri.host().filter(|_| uri.scheme() == Some(&Scheme::HTTPS));
        let host = host.ok_or_else(|| RequestError::Url(uri.clone()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut last = RequestError::Resolve(host.to_owned());
        for addr in self.addresses(host, uri.port_u16().unwrap_or(443)).await? {
            let mut request = Request::new(Body::from(body.clone()));
            *request.method_mut() = head.method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = head.headers.clone();
            request.extensions_mut().insert(Session::default().with_server_name(host));
            match time::timeout(ADDRESS_WITHIN, self.exchange(addr, request)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_) => last = RequestError::Timeout(ADDRESS_WITHIN),
            }
        }
        Err(last)
    }

    async fn exchange(
        &self,
        addr: SocketAddr,
        request: Request<Body>,
    ) -> Result<Response<Bytes>, RequestError> {
        let to = To::new(Endpoint::new(addr), request);
        let (head, body) = self.http.clone().oneshot(to).await?.into_parts();
        let body = body.collect(MAX_BYTES).await.map_err(RequestError::Body)?;
        Ok(Response::from_parts(head, body))
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, RequestError> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let mut resolution = self.resolver.resolve(format!("{host}:{port}"));
        let found = async {
            // Failed look-ups are followed by others.
            while let Some(update) = resolution.next().await {
                match update {
                    Ok(Update::Endpoints(endpoints)) => {
                        return endpoints.iter().map(|endpoint| endpoint.addr).collect();
                    }
                    Ok(_) => return Vec::new(),
                    Err(error) => tracing::debug!(host, error = %Chain(&error), "cannot resolve"),
                }
            }
            Vec::new()
        };
        time::timeout(RESOLVE_WITHIN, found).await.map_err(|_| RequestError::Resolve(host.to_owned()))
    }
}

/// What the answers to the calls of one order said besides their content.
#[derive(Debug, Default)]
pub(super) struct Notes {
    retry_after: Mutex<Option<Duration>>,
}

impl Notes {
    /// The `Retry-After` of the last answer.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, retry_after: Option<Duration>) {
        *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner) = retry_after;
    }
}

/// The client as the ACME protocol's implementation wants it.
pub(super) struct Recorded {
    pub(super) client: Client,
    pub(super) notes: Arc<Notes>,
}

type AnswerFuture = Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>>;

impl instant_acme::HttpClient for Recorded {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> AnswerFuture {
        let (client, notes) = (self.client.clone(), Arc::clone(&self.notes));
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = Body::new(body).collect(MAX_BYTES).await;
            let body = body.map_err(|error| instant_acme::Error::Other(Box::new(error)))?;
            notes.set(None);
            let answer = client.send(Request::from_parts(head, body)).await;
            let answer = answer.map_err(|error| instant_acme::Error::Other(Box::new(error)))?;
            notes.set(client.retry_after(answer.headers()));
            let (parts, body) = answer.into_parts();
            // What is no problem document would be reported as bad JSON.
            if (parts.status.is_client_error() || parts.status.is_server_error()) && !is_object(&body) {
                let error = RequestError::Status(parts.status);
                return Err(instant_acme::Error::Other(Box::new(io::Error::other(error))));
            }
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

fn is_object(json: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(json).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::drain::Drain;
    use crate::error::Error;
    use crate::http::HttpServer;
    use crate::serve::Server;
    use crate::test_util::TestCa;
    use crate::tls::Terminate;
    use crate::tls::TlsLayer;

    /// A server that fails so often with 503, then answers with so many bytes; and how often it was asked.
    async fn serving(failures: u32, bytes: usize) -> (Client, String, Arc<AtomicU32>) {
        let (ca, asked) = (TestCa::new(), Arc::<AtomicU32>::default());
        let service = tower::service_fn({
            let asked = Arc::clone(&asked);
            move |_: Request<Body>| {
                let fails = asked.fetch_add(1, Ordering::SeqCst) < failures;
                let mut response = Response::new(Body::from(vec![b'x'; bytes]));
                if fails {
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    response.headers_mut().insert(RETRY_AFTER, 0.into());
                }
                std::future::ready(Ok::<_, Error>(response))
            }
        });
        let server = Server::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/dir", server.local_addr().port());
        let policy = Terminate::new(ca.server_config(["localhost"]));
        tokio::spawn(server.serve(TlsLayer::new(policy).layer(HttpServer::new(service)), Drain::new()));
        (Client::new(&AcmeOptions::new(ca.client_config())), url, asked)
    }

    #[tokio::test]
    async fn a_server_that_fails_is_asked_again() {
        let (client, url, asked) = serving(2, 10).await;

        assert_eq!(client.get(&url).await.unwrap().body().len(), 10);
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_server_that_goes_on_failing_is_left_alone() {
        let (client, url, asked) = serving(u32::MAX, 10).await;

        let error = client.get(&url).await.unwrap_err();
        assert!(matches!(error, RequestError::Status(StatusCode::SERVICE_UNAVAILABLE)), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), TRIES);
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_not_collected() {
        let (client, url, _) = serving(0, MAX_BYTES + 1).await;

        let error = client.get(&url).await.unwrap_err();
        assert!(matches!(error, RequestError::Body(_)), "{error}");
    }

    #[tokio::test]
    async fn nothing_is_sent_in_plaintext_or_to_whom_is_not_trusted() {
        let (client, url, asked) = serving(0, 10).await;
        let (other, ..) = serving(0, 10).await;

        let plain = url.replace("https", "http");
        assert!(matches!(client.get(&plain).await, Err(RequestError::Url(_))));
        assert!(matches!(client.get("/dir").await, Err(RequestError::Url(_))));
        assert!(matches!(other.get(&url).await, Err(RequestError::Exchange(_))));
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }
}
