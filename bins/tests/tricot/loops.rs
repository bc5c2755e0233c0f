//! A site that leads back to the proxy.

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::or_skip;

use crate::ask::Client;
use crate::certificates::metric;
use crate::process::Tricot;
use crate::process::until;
use crate::site::Site;
use crate::site::SiteOptions;

#[tokio::test]
async fn a_site_that_leads_back_here_is_found_out() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let tricot = Tricot::start(&consul).await;
    let client = Client::lenient(tricot.https);
    let tags = ["tricot-https loop.example.com"];
    consul.service("n1", "round", "round-1", tricot.https.port(), &tags).await;

    until("an answer", async || client.status("loop.example.com", "/").await == Some(508)).await;

    let labels = r#"code="508", host="loop.example.com", method="GET", service="round""#;
    // Eight times further, and the refusal.
    until("all passes", async || metric(&tricot, "tricot_requests_total", labels).await == 9.0).await;
    tricot.logs(r#""reason":"this request has come through here too often"#).await;
}

#[tokio::test]
async fn passes_are_counted_for_instances_that_speak_tls_only() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let config = TestCa::new().server_config(["tls.example.com"]);
    let tls = SiteOptions { body: "tls".into(), tls: Some(config), ..SiteOptions::default() };
    let (plain, tls) = (Site::start("plain").await, Site::start_with(tls).await);
    consul.service("n1", "plain", "plain-1", plain.port(), &["tricot plain.example.com"]).await;
    consul.service("n1", "tls", "tls-1", tls.port(), &["tricot-https tls.example.com"]).await;
    let tricot = Tricot::start(&consul).await;
    let client = Client::lenient(tricot.https);

    for host in ["plain.example.com", "tls.example.com"] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nCDN-Loop: other, tricot\r\n\r\n");
        assert_eq!(client.send(host, &request).await.unwrap().status, 200);
    }

    assert_eq!(plain.last().all("cdn-loop"), ["other, tricot"]);
    assert_eq!(tls.last().all("cdn-loop"), ["other, tricot", "tricot"]);
}
