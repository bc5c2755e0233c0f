//! An axum application served over HTTPS.
//!
//! Shows what meshlib does below an [`axum::Router`] that stays as it is. [`HttpServer`] speaks HTTP/1.1 and HTTP/2, as the
//! TLS handshake agrees, within limits on heads, bodies and silence; the certificate comes from files and is exchanged when
//! they change; handlers find out which connection a request came over; and a drain lets every request end. Two lines
//! translate between the types of the two libraries.
//!
//! Run it with the address to listen at (port 0: a free one), the chain of certificates and the key:
//!
//! ```text
//! cargo run -p examples --example axum_server -- 127.0.0.1:8443 chain.pem key.pem
//! curl -k https://127.0.0.1:8443/hello/you
//! curl -k --http1.1 -T - https://127.0.0.1:8443/echo
//! ```
//!
//! The first prints its address and HTTP/2.0; the second gives back what is typed, and Ctrl-C at the server leaves it that
//! until its 10 s are over. A pair for tries:
//!
//! ```text
//! openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out chain.pem
//! ```

use std::convert::Infallible;
use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use axum::routing::put;
use http::Response;
use http::Version;
use meshlib::Drain;
use meshlib::Server;
use meshlib::TlsLayer;
use meshlib::http::Accepted;
use meshlib::http::Body;
use meshlib::http::HttpServer;
use meshlib::tls;
use meshlib::tls::Reloading;
use meshlib::tls::Terminate;
use meshlib::tls::pem;
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let listen = args.next().unwrap_or_else(|| "127.0.0.1:8443".into());
    let chain = args.next().map_or_else(|| "chain.pem".into(), PathBuf::from);
    let key = args.next().map_or_else(|| "key.pem".into(), PathBuf::from);

    let app = Router::new()
        .route("/hello/{name}", get(hello))
        .route("/echo", put(async |body: axum::body::Body| body));
    // A router answers every request, so there is no error to translate.
    let app = ServiceBuilder::new()
        .map_response(|answer: Response<axum::body::Body>| answer.map(Body::new))
        .map_err(|never: Infallible| match never {})
        .service(app);

    let provider = tls::provider();
    let certificate = Reloading::new([chain, key], {
        let provider = Arc::clone(&provider);
        move |files| pem::certified_key(&provider, [&files[0]], &files[1])
    })?;
    let following = Arc::clone(&certificate);
    // Ends with the program.
    tokio::spawn(async move { following.follow(Duration::from_secs(1)).await });
    // It offers HTTP/2 and HTTP/1.1.
    let config = tls::http_server_config(provider, certificate)?;

    let service =
        ServiceBuilder::new().layer(TlsLayer::new(Terminate::new(config))).service(HttpServer::new(app));
    let server = Server::bind(listen).await?;
    println!("listening at {}", server.local_addr());
    server.serve(service, Drain::on_signals()).await?;
    Ok(())
}

async fn hello(Path(name): Path<String>, version: Version, Extension(over): Extension<Accepted>) -> String {
    let session = over.session();
    let tls = session.tls.as_ref().map(|tls| tls.version);
    format!("hello {name} at {:?}, you speak {version:?} in {tls:?}\n", session.peer)
}
