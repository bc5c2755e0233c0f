//! What an authority may want, and how the program does it: proofs, accounts, profiles, suggestions.

use std::net::Ipv4Addr;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::Pebble;
use meshlib::test_util::PebbleOptions;
use meshlib::test_util::or_skip;
use serde_json::Value;

use crate::ask::Client;
use crate::certificates::metric;
use crate::first::Cluster;
use crate::first::Port;
use crate::front::Front;
use crate::process::until;
use crate::site::Site;

const HOST: &str = "app.example.com";
const TAG: &str = "tricot app.example.com";

async fn site(consul: &Consul) -> Site {
    let site = Site::start("one").await;
    consul.service("n1", "web", "web-1", site.port(), &[TAG]).await;
    site
}

async fn is_served(client: &Client) -> bool {
    client.status(HOST, "/").await == Some(200)
}

#[tokio::test]
async fn a_host_may_be_proved_over_tls_alone() {
    let https = Port::take();
    // HTTP challenges would go where nobody listens.
    let options = PebbleOptions::default().with_tls_port(https.addr().port());
    let Some(pebble) = or_skip(Pebble::start(options).await) else { return };
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let cluster = Cluster { consul, pebble, http: Port::take() };
    let _site = site(&cluster.consul).await;
    let addr = https.addr().to_string();

    let tricot =
        cluster.tricot(&[("TRICOT_ACME_CHALLENGES", "tls-alpn-01"), ("TRICOT_HTTPS_BIND_ADDR", &addr)]).await;

    let client = cluster.client(&tricot).await;
    until("a page with a certificate", async || is_served(&client).await).await;
    assert_eq!(cluster.pebble.orders(), 1);
}

#[tokio::test]
async fn an_external_account_is_bound() {
    let (id, key) = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");
    let options = PebbleOptions::default().with_external_account(id, key);
    let Some(cluster) = Cluster::start(options).await else { return };
    let _site = site(&cluster.consul).await;

    let without = cluster.tricot(&[]).await;
    until("a refusal", async || {
        metric(&without, "tricot_acme_orders_total", r#"result="external_account""#).await == 1.0
    })
    .await;
    drop(without);
    // What was refused is not asked for again before a pause is over.
    cluster.consul.request("DELETE", "/v1/kv/tricot/?recurse", "").await.unwrap();
    let with = cluster.tricot(&[("TRICOT_ACME_EAB_KID", id), ("TRICOT_ACME_EAB_HMAC_KEY", key)]).await;

    let client = cluster.client(&with).await;
    until("a page with a certificate", async || is_served(&client).await).await;
}

/// The variables that lead to an authority by another way.
fn by_way_of(cluster: &Cluster, front: &Front) -> [(&'static str, String); 2] {
    let ca = cluster.consul.dir().join("front.pem");
    std::fs::write(&ca, front.ca_pem()).unwrap();
    let directory = format!("https://{}/dir", front.addr);
    [("TRICOT_ACME_DIRECTORY", directory), ("TRICOT_ACME_CA_CERT", ca.to_str().unwrap().to_owned())]
}

/// The orders among what the authority was sent.
fn orders(front: &Front) -> Vec<Value> {
    let payloads = front.payloads().into_iter();
    payloads.filter(|payload| payload.get("identifiers").is_some()).collect()
}

#[tokio::test]
async fn the_profile_is_in_the_order() {
    let Some(cluster) = Cluster::start(PebbleOptions::default()).await else { return };
    let _site = site(&cluster.consul).await;
    let front = Front::start(&cluster.pebble, (Ipv4Addr::LOCALHOST, 0).into(), "127.0.0.1").await.unwrap();
    let [directory, ca] = by_way_of(&cluster, &front);

    let tricot = cluster
        .tricot(&[("TRICOT_ACME_PROFILE", "shortlived"), (directory.0, &directory.1), (ca.0, &ca.1)])
        .await;
    let client = cluster.client(&tricot).await;
    until("a page with a certificate", async || is_served(&client).await).await;

    let orders = orders(&front);
    assert_eq!((orders.len(), &orders[0]["profile"]), (1, &"shortlived".into()), "{orders:?}");
}

#[tokio::test]
async fn a_suggested_renewal_says_what_it_replaces() {
    let options = PebbleOptions::default().with_renewal_info();
    let Some(cluster) = Cluster::start(options).await else { return };
    let _site = site(&cluster.consul).await;
    let front = Front::start(&cluster.pebble, (Ipv4Addr::LOCALHOST, 0).into(), "127.0.0.1").await.unwrap();
    let [directory, ca] = by_way_of(&cluster, &front);

    let tricot = cluster.tricot(&[(directory.0, &directory.1), (ca.0, &ca.1)]).await;
    until("a certificate and another one", async || {
        metric(&tricot, "tricot_acme_orders_total", r#"result="ok""#).await == 2.0
    })
    .await;

    let orders = orders(&front);
    assert_eq!(orders.len(), 2, "{orders:?}");
    assert!(orders[0].get("replaces").is_none() && orders[1]["replaces"].is_string(), "{orders:?}");
    assert!(is_served(&cluster.client(&tricot).await).await);
}
