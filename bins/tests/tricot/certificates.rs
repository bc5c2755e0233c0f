//! Certificates: one order for each name in the whole fleet, renewal, and an authority that is not well.

use std::collections::BTreeMap;
use std::time::Duration;

use meshlib::test_util::PebbleOptions;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::ask::Client;
use crate::ask::page;
use crate::first::Cluster;
use crate::load::Connections;
use crate::load::Load;
use crate::process::SOON;
use crate::process::Tricot;
use crate::process::until;
use crate::process::until_within;
use crate::site::Site;

const HOST: &str = "app.example.com";
const TAG: &str = "tricot app.example.com";

/// The sum of a metric's samples whose labels hold a text.
pub(crate) async fn metric(tricot: &Tricot, name: &str, labels: &str) -> f64 {
    let text = page(tricot.metrics, "/metrics").await.text();
    let samples = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let values = samples.filter(|line| line.contains(labels)).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<f64>().unwrap()).sum()
}

/// A cluster with a site, and whoever serves it.
async fn site(options: PebbleOptions, tags: &[&str]) -> Option<(Cluster, Site)> {
    let cluster = Cluster::start(options).await?;
    let site = Site::start("one").await;
    cluster.consul.service("n1", "web", "web-1", site.port(), tags).await;
    Some((cluster, site))
}

async fn is_served(client: &Client) -> bool {
    client.status(HOST, "/").await == Some(200)
}

#[tokio::test]
async fn two_proxies_order_each_name_once() {
    const NAMES: usize = 20;
    // At most two orders of a registered domain are made at a time.
    let tags: Vec<String> = (0..NAMES).map(|n| format!("tricot www.site-{n}.example")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let Some((cluster, _site)) = site(PebbleOptions::default(), &tags).await else { return };

    let began = Instant::now();
    let (one, two) = tokio::join!(
        cluster.tricot(&[("TRICOT_NODE_NAME", "n1")]),
        cluster.tricot(&[("TRICOT_NODE_NAME", "n2")])
    );
    for tricot in [&one, &two] {
        until_within("20 certificates", Duration::from_secs(60), async || {
            metric(tricot, "tricot_certificates", r#"state="valid""#).await == NAMES as f64
        })
        .await;
    }

    let ordered = [
        metric(&one, "tricot_acme_orders_total", r#"result="ok""#).await,
        metric(&two, "tricot_acme_orders_total", r#"result="ok""#).await,
    ];
    println!("20 certificates on both after {:?}, ordered by each: {ordered:?}", began.elapsed());
    assert_eq!(cluster.pebble.orders(), NAMES);
    assert_eq!(ordered.iter().sum::<f64>(), NAMES as f64);
}

/// May take as long as the documentation says: twice the time to live, 15 s, and 60 s.
#[tokio::test]
async fn slow_an_order_of_a_node_that_died_is_taken_over() {
    let Some((cluster, _site)) = site(PebbleOptions::default(), &[TAG]).await else { return };
    let quick = ("TRICOT_LOCK_TTL", "10s");
    cluster.pebble.pause();
    let mut first = cluster.tricot(&[quick, ("TRICOT_NODE_NAME", "n1")]).await;
    until("the lock of the order", async || {
        let kept = cluster.consul.get("/v1/kv/tricot/renew_lock?recurse").await;
        kept.body.contains(r#""Session""#)
    })
    .await;
    let second = cluster.tricot(&[quick, ("TRICOT_NODE_NAME", "n2")]).await;

    first.kill();
    let died = Instant::now();
    cluster.pebble.resume();
    let client = cluster.client(&second).await;
    let within = Duration::from_secs(2 * 10 + 15 + 60);
    until_within("a certificate from the other node", within, async || is_served(&client).await).await;

    println!("the other node had the certificate {:?} after the first had died", died.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewal_breaks_no_handshake() {
    let options = PebbleOptions::default().with_lifetime_secs(20);
    let Some((cluster, _site)) = site(options, &[TAG]).await else { return };
    let tricot = cluster.tricot(&[]).await;
    let client = cluster.client(&tricot).await;
    until("a page with a certificate", async || is_served(&client).await).await;
    let first = client.connect(HOST).await.unwrap().certificate;

    let load = Load::start(&client, HOST, 2, Connections::New);
    let began = Instant::now();
    for nth in ["second", "third"] {
        let before = client.connect(HOST).await.unwrap().certificate;
        until(nth, async || client.connect(HOST).await.unwrap().certificate != before).await;
        println!("the {nth} certificate was served after {:?}", began.elapsed());
    }
    assert_ne!(client.connect(HOST).await.unwrap().certificate, first);
    load.more(20).await;

    load.stop().await.assert_all_ok();
}

#[tokio::test]
async fn without_an_authority_there_is_a_page_with_a_self_signed_certificate() {
    let Some((mut cluster, _site)) = site(PebbleOptions::default(), &[TAG]).await else { return };
    cluster.pebble.kill();
    let tricot = cluster.tricot(&[]).await;

    assert!(is_served(&Client::lenient(tricot.https)).await);
    until("a pause before the next order", async || {
        metric(&tricot, "tricot_certificates", r#"state="backing_off""#).await == 1.0
    })
    .await;
    assert!(metric(&tricot, "tricot_acme_orders_total", "result=").await >= 1.0);
    assert!(is_served(&Client::lenient(tricot.https)).await);
}

#[tokio::test]
async fn slow_an_authority_that_comes_back_is_found_again() {
    let Some((mut cluster, _site)) = site(PebbleOptions::default(), &[TAG]).await else { return };
    cluster.pebble.kill();
    let tricot = cluster.tricot(&[]).await;
    tricot.logs("cannot order a certificate").await;

    cluster.pebble.restart().await;
    let client = cluster.client(&tricot).await;
    let took =
        until_within("a certificate", Duration::from_secs(100), async || is_served(&client).await).await;

    println!("the certificate came {took:?} after the authority was back");
}

#[tokio::test]
async fn refused_nonces_are_no_obstacle() {
    let Some((cluster, _site)) = site(PebbleOptions::default().with_bad_nonces(30), &[TAG]).await else {
        return;
    };
    let tricot = cluster.tricot(&[]).await;
    let client = cluster.client(&tricot).await;

    until("a page with a certificate", async || is_served(&client).await).await;

    assert_eq!(cluster.pebble.orders(), 1);
}

#[tokio::test]
async fn a_challenge_that_fails_is_not_tried_again_at_once() {
    let Some((cluster, _site)) = site(PebbleOptions::default(), &[TAG]).await else { return };
    cluster.pebble.set_a(HOST, &["127.0.0.99".parse().unwrap()]).await;
    let tricot = cluster.tricot(&[]).await;

    until("a pause before the next order", async || {
        metric(&tricot, "tricot_certificates", r#"state="backing_off""#).await == 1.0
    })
    .await;

    assert!(is_served(&Client::lenient(tricot.https)).await);
    assert!(cluster.client(&tricot).await.connect(HOST).await.is_err(), "its certificate is self-signed");
    let kept = cluster.consul.get("/v1/kv/tricot/acme?keys&recurse").await.body;
    assert!(kept.contains("backoff"), "{kept}");
    let left = cluster.consul.get("/v1/kv/tricot/challenge?keys&recurse").await;
    assert_eq!(left.status, 404, "no challenge is left: {}", left.body);
    // One that starts later keeps to the pause, too.
    let later = cluster.tricot(&[]).await;
    until("the same pause", async || {
        metric(&later, "tricot_certificates", r#"state="backing_off""#).await == 1.0
    })
    .await;
    assert_eq!(cluster.pebble.orders(), 1);
}

#[tokio::test]
async fn an_old_certificate_is_served_while_none_can_be_ordered() {
    let options = PebbleOptions::default().with_lifetime_secs(24);
    let Some((mut cluster, _site)) = site(options, &[TAG]).await else { return };
    let tricot = cluster.tricot(&[]).await;
    let client = cluster.client(&tricot).await;
    until("a page with a certificate", async || is_served(&client).await).await;

    cluster.pebble.kill();
    until_within("an order that fails", SOON, async || {
        metric(&tricot, "tricot_acme_orders_total", "").await > 1.0
    })
    .await;

    assert!(is_served(&client).await);
}

#[tokio::test]
async fn a_restart_needs_no_order() {
    let Some((mut cluster, _site)) = site(PebbleOptions::default(), &[TAG]).await else { return };
    let mut tricot = cluster.tricot(&[]).await;
    let client = cluster.client(&tricot).await;
    until("a page with a certificate", async || is_served(&client).await).await;
    let certificate = client.connect(HOST).await.unwrap().certificate;
    tricot.signal(Signal::TERM);
    assert!(tricot.exit(SOON).await.success());
    let roots = cluster.pebble.issuing_roots().await;
    cluster.pebble.kill();

    let again = cluster.tricot(&[]).await;

    let client = Client::trusting(again.https, roots);
    until("the stored certificate", async || is_served(&client).await).await;
    assert_eq!(client.connect(HOST).await.unwrap().certificate, certificate);
}

#[tokio::test]
async fn an_agent_that_has_forgotten_all_is_given_the_certificates_back() {
    let Some((mut cluster, site)) = site(PebbleOptions::default(), &[TAG]).await else { return };
    let nodes = [
        cluster.tricot(&[("TRICOT_NODE_NAME", "n1")]).await,
        cluster.tricot(&[("TRICOT_NODE_NAME", "n2")]).await,
    ];
    for node in &nodes {
        let client = cluster.client(node).await;
        until("a page with a certificate", async || is_served(&client).await).await;
    }
    let certificate = cluster.client(&nodes[0]).await.connect(HOST).await.unwrap().certificate;
    let kept = async |cluster: &Cluster| {
        let keys = cluster.consul.get("/v1/kv/tricot/?keys").await;
        let mut keys: Vec<String> = serde_json::from_str(&keys.body).unwrap_or_default();
        keys.retain(|key| !key.contains("lock"));
        keys
    };
    let before = kept(&cluster).await;

    cluster.consul.restart().await;
    until("all keys", async || kept(&cluster).await == before).await;
    cluster.consul.service("n1", "web", "web-1", site.port(), &[TAG]).await;
    drop(nodes);
    let fresh = cluster.tricot(&[]).await;

    let client = cluster.client(&fresh).await;
    until("the same certificate", async || is_served(&client).await).await;
    assert_eq!(client.connect(HOST).await.unwrap().certificate, certificate);
    assert_eq!(cluster.pebble.orders(), 1);
}

#[tokio::test]
async fn what_is_kept_in_consul_is_where_it_is_said_to_be() {
    let Some((cluster, _site)) = site(PebbleOptions::default(), &[TAG, "tricot localhost"]).await else {
        return;
    };
    let tricot = cluster.tricot(&[("TRICOT_CONSUL_KV_PREFIX", "edge/")]).await;
    let client = cluster.client(&tricot).await;
    until("a page with a certificate", async || is_served(&client).await).await;

    let keys = cluster.consul.get("/v1/kv/edge/?keys").await.body;
    let keys: Vec<String> = serde_json::from_str(&keys).unwrap();
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for key in &keys {
        *folders.entry(key.split('/').nth(1).unwrap()).or_default() += 1;
    }
    let certificate = keys.iter().find(|key| key.starts_with("edge/certs")).unwrap();
    // Another directory than the usual one has a folder of its own.
    assert!(certificate.starts_with("edge/certs@") && certificate.ends_with(HOST), "{keys:?}");
    let value = cluster.consul.get(&format!("/v1/kv/{certificate}?raw")).await.body;
    let value: serde_json::Value = serde_json::from_str(&value).unwrap();
    for field in ["hostname", "date", "valid_days", "key_pem", "cert_pem", "not_before", "not_after"] {
        assert!(value.get(field).is_some(), "{field}");
    }
    assert!(!keys.iter().any(|key| key.contains("localhost")), "{keys:?}");
    assert_eq!(folders.get("challenge"), None, "{keys:?}");
}
