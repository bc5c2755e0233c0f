//! An HTTP server with pages for its operator.
//!
//! Shows two servers under one [`Drain`]: the program's own requests at one address, and at another a [`Router`] with a
//! count, a sign of life and a button. When the drain starts, from Ctrl-C or from the button, both stop accepting,
//! answer what was asked and end.
//!
//! Run it with the two addresses to listen at (port 0: a free one):
//!
//! ```text
//! cargo run -p examples --example http_hello -- 127.0.0.1:8080 127.0.0.1:9990
//! curl http://127.0.0.1:8080/some/page
//! curl http://127.0.0.1:9990/count
//! curl -X POST http://127.0.0.1:9990/shutdown
//! ```
//!
//! The button works from this machine only, and not from pages of other web sites.

use std::env;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use http::Request;
use http::Response;
use meshlib::Drain;
use meshlib::Error;
use meshlib::Server;
use meshlib::http::Accepted;
use meshlib::http::Body;
use meshlib::http::HttpServer;
use meshlib::http::admin;
use meshlib::http::admin::Access;
use meshlib::http::admin::Router;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let listen_admin = env::args().nth(2).unwrap_or_else(|| "127.0.0.1:9990".into());
    let drain = Drain::on_signals();

    let greeted = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&greeted);
    let hello = tower::service_fn(move |request: Request<Body>| {
        count.fetch_add(1, Ordering::Relaxed);
        // The facts about the connection travel with each of its requests.
        let peer = request.extensions().get::<Accepted>().and_then(|accepted| accepted.session().peer);
        let text = format!("hello {peer:?}, this is {}\n", request.uri().path());
        async { Ok::<_, Error>(Response::new(Body::from(text))) }
    });

    let button = drain.clone();
    let admin = Router::new()
        .get("/live", |_| admin::text("live\n"))
        .get("/count", move |_| admin::text(format!("{}\n", greeted.load(Ordering::Relaxed))))
        .post("/shutdown", Access::Loopback, move |_| {
            button.start();
            admin::text("bye\n")
        });

    let server = Server::bind(listen).await?;
    println!("listening at {}", server.local_addr());
    let admin_server = Server::bind(listen_admin).await?;
    println!("admin pages at {}", admin_server.local_addr());
    tokio::try_join!(
        server.serve(HttpServer::new(hello), drain.clone()),
        admin_server.serve(HttpServer::new(admin), drain),
    )?;
    Ok(())
}
