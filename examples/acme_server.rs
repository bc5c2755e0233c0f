//! An HTTPS server that gets its own certificate.
//!
//! Shows `tls::acme` in a server of your own: what has to be proven is answered on the HTTP port, the certificate is kept
//! in a directory and renewed at half of its life, and until it has come clients see a self-signed one. Several servers on
//! one machine may share the directory; with Consul instead of it they may be anywhere (`meshlib_consul::ConsulKv`).
//!
//! Run it with the name, the directory of the authority (`https://acme-v02.api.letsencrypt.org/directory`), where to keep
//! things, and the two addresses to listen at:
//!
//! ```text
//! cargo run -p examples --example acme_server -- www.example.com URL ./certificates [::]:80 [::]:443
//! ```
//!
//! The name must lead to this machine, and the authority must reach its port 80.

use std::env;
use std::sync::Arc;

use http::Request;
use http::Response;
use meshlib::Drain;
use meshlib::Error;
use meshlib::Server;
use meshlib::TlsLayer;
use meshlib::http::Body;
use meshlib::http::HttpServer;
use meshlib::store::DirStore;
use meshlib::tls;
use meshlib::tls::acme::AcmeOptions;
use meshlib::tls::acme::Manager;
use meshlib::tls::acme::Terminate;
use tower::Layer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [name, directory, folder, http, https] = &args[..] else {
        return Err("five arguments: NAME DIRECTORY-URL FOLDER HTTP-ADDR HTTPS-ADDR".into());
    };
    let drain = Drain::on_signals();

    let trust = tls::client_config(tls::provider(), tls::native_roots()?)?;
    let store = Arc::new(DirStore::open(folder).await?);
    let manager = Manager::new(store, AcmeOptions::new(trust).with_directory(directory))?;
    manager.want([name])?;
    let certificates = tokio::spawn({
        let (manager, draining) = (manager.clone(), drain.draining());
        async move { manager.run(draining).await }
    });

    let hello =
        tower::service_fn(async |_: Request<Body>| Ok::<_, Error>(Response::new(Body::from("hello\n"))));
    let config = tls::http_server_config(tls::provider(), manager.certificates())?;
    let plain = HttpServer::new(manager.challenges().layer(hello));
    let secure = TlsLayer::new(Terminate::new(manager.certificates(), config)).layer(HttpServer::new(hello));
    let (http, https) = (Server::bind(http).await?, Server::bind(https).await?);
    println!("listening at {}", http.local_addr());
    println!("listening for TLS at {}", https.local_addr());
    tokio::try_join!(http.serve(plain, drain.clone()), https.serve(secure, drain.clone()))?;
    certificates.await?;
    Ok(())
}
