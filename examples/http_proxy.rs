//! An HTTP reverse proxy that lets in only who has a token.
//!
//! Shows the layers between a server and a client: one of your own that refuses, one that makes heads fit to be passed
//! on, one that grants upgrades (WebSocket), the balancer, and the client with its pool. HTTP/1.1 and HTTP/2 come in on
//! the same port.
//!
//! Run it with the address to listen at (port 0: a free one), the backends and the token:
//!
//! ```text
//! cargo run -p examples --example http_proxy -- 127.0.0.1:8080 127.0.0.1:9001,127.0.0.1:9002 sesame
//! curl -i -H 'authorization: Bearer sesame' http://127.0.0.1:8080/
//! curl -i http://127.0.0.1:8080/
//! ```
//!
//! The first is answered by a backend, which is told who asked (`X-Forwarded-For`); the second is 401.

use std::env;
use std::time::Duration;

use http::Request;
use http::Response;
use http::StatusCode;
use http::header::AUTHORIZATION;
use meshlib::BalanceLayer;
use meshlib::Drain;
use meshlib::Server;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::TimeoutLayer;
use meshlib::http::Body;
use meshlib::http::ClientLayer;
use meshlib::http::HeadersLayer;
use meshlib::http::HttpServer;
use meshlib::http::UpgradeLayer;
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
        .layer(BalanceLayer::new(backends, "backends"))
        .layer(ClientLayer::new())
        .layer(TimeoutLayer::connect(Duration::from_secs(5)))
        .service(TcpConnector::default());
    let guarded = tower::service_fn(move |request: Request<Body>| {
        let proxy = proxy.clone();
        // A real one would compare in constant time.
        let allowed = request.headers().get(AUTHORIZATION).is_some_and(|token| *token == *expected);
        async move {
            if allowed {
                return proxy.oneshot(request).await;
            }
            let mut refused = Response::new(Body::from("who are you?\n"));
            *refused.status_mut() = StatusCode::UNAUTHORIZED;
            Ok(refused)
        }
    });

    let server = Server::bind(listen).await?;
    let drain = Drain::on_signals();
    println!("listening at {}", server.local_addr());
    server.serve(HttpServer::new(guarded), drain).await?;
    Ok(())
}
