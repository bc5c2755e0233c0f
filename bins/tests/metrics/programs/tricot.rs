//! `tricot` with a real Consul and a real authority, or without both if they are missing here.

use std::net::Ipv4Addr;
use std::net::SocketAddr;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::Pebble;
use meshlib::test_util::PebbleOptions;
use meshlib::test_util::or_skip;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use super::Pages;
use super::Run;
use super::nonsense;
use super::settles;
use crate::ask::Client;
use crate::ask::plain;
use crate::process::Tricot;
use crate::process::command;
use crate::site::Site;

const NAME: &str = "tricot";

pub(super) async fn run() -> Run {
    // The authority asks at this port, so it must be known before the program has it.
    let http = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    http.set_reuse_port(true).unwrap();
    http.set_reuse_address(true).unwrap();
    http.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let http = (http.local_addr().unwrap().as_socket().unwrap(), http);
    let options = PebbleOptions::default().with_http_port(http.0.port());
    let (pebble, consul) = tokio::join!(Pebble::start(options), Consul::start(ConsulOptions::default()));
    match (or_skip(pebble), or_skip(consul)) {
        (Some(pebble), Some(consul)) => whole(&pebble, &consul, http.0).await,
        _ => alone().await,
    }
}

async fn whole(pebble: &Pebble, consul: &Consul, http: SocketAddr) -> Run {
    let site = Site::start("one").await;
    consul.service("n1", "web", "web-1", site.port(), &["tricot app.example.com"]).await;
    consul.service("n1", "gone", "gone-1", 1, &["tricot gone.example.com"]).await;
    let ca = consul.dir().join("acme-ca.pem");
    std::fs::write(&ca, pebble.ca_pem()).unwrap();
    let mut command = command(consul.addr());
    command
        .env("TRICOT_ACME_DIRECTORY", pebble.directory())
        .env("TRICOT_ACME_CA_CERT", ca)
        .env("TRICOT_HTTP_BIND_ADDR", http.to_string());
    let tricot = Tricot::spawn(&mut command);
    tricot.has_table().await;
    settles(tricot.metrics, "tricot_certificates", &[("state", "valid")], 2.0).await;

    let client = Client::trusting(tricot.https, pebble.issuing_roots().await);
    let anybody = Client::lenient(tricot.https);
    let mut pages = Vec::new();
    for round in 1..=2 {
        assert_eq!(client.status("app.example.com", &format!("/{round}")).await, Some(200));
        assert_eq!(client.status("gone.example.com", &format!("/{round}")).await, Some(502));
        let odd = format!("ODD{round} / HTTP/1.1\r\nHost: app.example.com\r\n\r\n");
        assert_eq!(client.send("app.example.com", &odd).await.unwrap().status, 200);
        let stranger = format!("no-{round}.example.com");
        assert!(anybody.status(&stranger, "/").await.is_some_and(|status| status >= 400));
        let page = format!("GET /{round} HTTP/1.1\r\nHost: {stranger}\r\nConnection: close\r\n\r\n");
        assert_eq!(plain(tricot.http, &page).await.unwrap().status, 301);
        // A client that does not like the certificate it is shown.
        assert!(client.connect(&stranger).await.is_err());
        nonsense(tricot.https).await;
        settles(tricot.metrics, "tricot_requests_total", &[], f64::from(4 * round)).await;
        settles(tricot.metrics, "tricot_tls_handshakes_total", &[("result", "failed")], f64::from(round))
            .await;
        settles(tricot.metrics, "tricot_connections", &[], 0.0).await;
        pages.push(Pages::fetch(tricot.metrics).await);
    }
    let [first, last] = pages.try_into().ok().expect("two rounds");
    Run { name: NAME, first, last, is_whole: true }
}

/// Nobody answers it, and nothing can be sent through.
async fn alone() -> Run {
    let tricot = Tricot::spawn(&mut command(SocketAddr::from(([127, 0, 0, 1], 1))));
    let [first, last] = [Pages::fetch(tricot.metrics).await, Pages::fetch(tricot.metrics).await];
    Run { name: NAME, first, last, is_whole: false }
}
