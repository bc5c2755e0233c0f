//! An HTTP reverse proxy that lets in only who has a token.
//!
//! Shows the layers between a server and a client: one of your own that refuses, logs and has a page for "nobody is there",
//! one that makes heads fit to be passed on, one that grants upgrades (WebSocket), the balancer, and the client with its
//! pool. HTTP/1.1 and HTTP/2 come in on the same port.
//!
//! Run it with the address to listen at (port 0: a free one), the backends and the token:
//!
//! ```text
//! cargo run -p examples --example http_proxy -- 127.0.0.1:8080 127.0.0.1:9001,127.0.0.1:9002 sesame
//! curl -i -H 'authorization: Bearer sesame' http://127.0.0.1:8080/
//! curl -i http://127.0.0.1:8080/
//! ```
//!
//! The first is answered by a backend, which is told who asked (`X-Forwarded-For`); the second is 401. What was asked and
//! how it was answered goes to the standard error stream.

use std::env;
use std::time::Duration;

use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http::header::WWW_AUTHENTICATE;
use meshlib::BalanceLayer;
use meshlib::Drain;
use meshlib::Error;
use meshlib::Phase;
use meshlib::Server;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::TimeoutLayer;
use meshlib::balance::PeakEwma;
use meshlib::http::Body;
use meshlib::http::ClientLayer;
use meshlib::http::HeadersLayer;
use meshlib::http::HttpServer;
use meshlib::http::UpgradeLayer;
use meshlib::http::status;
use tower::ServiceBuilder;
use tower::ServiceExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let backends = env::args().nth(2).unwrap_or_else(|| "127.0.0.1:9001,127.0.0.1:9002".into());
    let expected = format!("Bearer {}", env::args().nth(3).unwrap_or_else(|| "sesame".into()));

    let backends = Static::new(backends.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?);
    let proxy = ServiceBuilder::new()
        .layer(HeadersLayer::new())
        .layer(UpgradeLayer::new())
        .layer(BalanceLayer::new(backends, "backends").balancer(PeakEwma::new()))
        .layer(ClientLayer::new())
        .layer(TimeoutLayer::connect(Duration::from_secs(5)))
        .service(TcpConnector::default());
    // Above `HeadersLayer`, because it also logs what that refuses. What it asks about may be malformed.
    let guarded = tower::service_fn(move |request: Request<Body>| {
        let proxy = proxy.clone();
        let asked = format!("{} {}", request.method(), request.uri());
        // A real one would compare in constant time.
        let allowed = request.headers().get(AUTHORIZATION).is_some_and(|token| *token == *expected);
        async move {
            let result = if allowed { proxy.oneshot(request).await } else { Ok(who_are_you()) };
            let answer = result.unwrap_or_else(|error| page(&error));
            eprintln!("{asked}: {}", answer.status());
            Ok::<_, Error>(answer)
        }
    });

    let server = Server::bind(listen).await?;
    let drain = Drain::on_signals();
    println!("listening at {}", server.local_addr());
    server.serve(HttpServer::new(guarded), drain).await?;
    Ok(())
}

fn who_are_you() -> Response<Body> {
    let mut refused = Response::new(Body::from("who are you?\n"));
    *refused.status_mut() = StatusCode::UNAUTHORIZED;
    // RFC 9110 section 15.5.2: says how to be let in.
    refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}

/// The answer to a request that no backend has answered.
fn page(error: &Error) -> Response<Body> {
    let answer = status::answer(error);
    match error {
        Error::Unavailable { .. }
        | Error::Connect { .. }
        | Error::Timeout { phase: Phase::Wait | Phase::Connect, .. } => {
            answer.map(|_| Body::from("nobody is there; try again in a moment\n"))
        }
        _ => answer,
    }
}
