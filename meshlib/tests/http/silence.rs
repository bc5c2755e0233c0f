//! Endpoints that fall silent or never say a word.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use meshlib::BalanceLayer;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Fault;
use meshlib::Metadata;
use meshlib::Phase;
use meshlib::Protocol;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::TimeoutLayer;
use meshlib::To;
use meshlib::balance::View;
use meshlib::http::Body;
use meshlib::http::ClientLayer;
use meshlib::http::HttpClient;
use meshlib::http::HttpError;
use meshlib::http::PoolOptions;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::Layer;
use tower::ServiceExt;

use super::wire::Wire;
use super::wire::soon;

const LIMIT: Duration = Duration::from_millis(100);

/// A client, and an endpoint that listens.
struct Rig {
    listener: TcpListener,
    client: HttpClient<TcpConnector>,
    endpoint: Endpoint,
}

impl Rig {
    async fn new(options: PoolOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new(listener.local_addr().unwrap());
        Self { listener, client: ClientLayer::new().pool(options).layer(TcpConnector::default()), endpoint }
    }

    async fn http2(options: PoolOptions) -> Self {
        let Self { listener, client, endpoint } = Self::new(options).await;
        let endpoint = endpoint.with_metadata(Metadata::new().with_protocol(Protocol::Http2));
        Self { listener, client, endpoint }
    }

    fn ask(&self) -> JoinHandle<Result<Response<Body>, Error>> {
        let request = Request::get("/").header("host", "a").body(Body::empty()).unwrap();
        tokio::spawn(self.client.clone().oneshot(To::new(self.endpoint.clone(), request)))
    }
}

/// What is read of a body before it breaks off.
async fn broken(mut body: Body) -> (Vec<u8>, HttpError) {
    let mut read = Vec::new();
    loop {
        match soon(body.chunk()).await {
            Ok(Some(bytes)) => read.extend(bytes),
            Ok(None) => panic!("the body ended after {read:?}"),
            Err(error) => return (read, error),
        }
    }
}

#[tokio::test]
async fn an_answer_over_http1_breaks_off_when_its_endpoint_is_silent() {
    let rig = Rig::new(PoolOptions::default().with_body_within(Some(LIMIT))).await;
    let asked = rig.ask();
    let mut backend = Wire::accept(&rig.listener).await;
    backend.head().await;
    backend.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc").await;

    let (read, error) = broken(soon(asked).await.unwrap().unwrap().into_body()).await;

    assert_eq!(read, b"abc");
    assert!(matches!(error, HttpError::Silent { after: LIMIT, .. }), "{error:?}");
    assert_eq!(error.fault(), Fault::Server);
    assert_eq!(backend.rest().await, b"", "the connection is closed");
}

#[tokio::test]
async fn an_answer_over_http2_breaks_off_when_its_endpoint_is_silent() {
    let rig = Rig::http2(PoolOptions::default().with_body_within(Some(LIMIT))).await;
    let asked = rig.ask();
    let mut backend = h2::server::handshake(Wire::accept(&rig.listener).await.io).await.unwrap();
    let (_, mut stream) = soon(backend.accept()).await.unwrap().unwrap();
    let mut sending = stream.send_response(Response::new(()), false).unwrap();
    sending.send_data(Bytes::from("abc"), false).unwrap();
    let another = tokio::spawn(async move { backend.accept().await.unwrap().unwrap() });

    let (read, error) = broken(soon(asked).await.unwrap().unwrap().into_body()).await;

    assert_eq!(read, b"abc");
    assert!(matches!(error, HttpError::Silent { after: LIMIT, .. }), "{error:?}");
    assert_eq!(error.fault(), Fault::Server);
    let _again = rig.ask();
    soon(another).await.expect("the connection goes on with other requests");
}

#[tokio::test]
async fn an_http2_endpoint_that_answers_no_ping_is_given_up() {
    let rig = Rig::http2(PoolOptions::default().with_ping(LIMIT, LIMIT)).await;
    let asked = rig.ask();
    let mut backend = h2::server::handshake(Wire::accept(&rig.listener).await.io).await.unwrap();
    let _request = soon(backend.accept()).await.unwrap().unwrap();

    // Nobody moves the bytes of the endpoint's connection from here on, which stays open.
    let error = soon(asked).await.unwrap().unwrap_err();

    assert!(matches!(error, Error::Http(_)), "{error:?}");
    assert_eq!(error.fault(), Fault::Server);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_loses_trust_by_a_limit_below_the_balancer_only() {
    let hanging =
        tower::service_fn(|_: To<Request<Body>>| std::future::pending::<Result<Response<Body>, Error>>());
    let limit = || TimeoutLayer::new(Phase::Request, LIMIT);
    let balance = || BalanceLayer::new(Static::new(["127.0.0.1:1".parse().unwrap()]), "web");
    let below = balance().layer(limit().layer(hanging));
    let inside = balance().layer(hanging);
    let above = limit().layer(inside.clone());

    let below_error = below.clone().oneshot(Request::new(Body::empty())).await.unwrap_err();
    let above_error = above.oneshot(Request::new(Body::empty())).await.unwrap_err();

    for error in [below_error, above_error] {
        assert!(matches!(error, Error::Timeout { phase: Phase::Request, .. }), "{error:?}");
    }
    let failed = |view: View| view.state().unwrap().replicas.replicas()[0].failed();
    assert_eq!((failed(below.view()), failed(inside.view())), (1, 0));
}
