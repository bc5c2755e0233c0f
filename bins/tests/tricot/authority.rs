//! What an authority may want, and how the program does it: proofs, accounts, profiles, suggestions.

use std::net::Ipv4Addr;
use std::process::Command;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::Pebble;
use meshlib::test_util::PebbleOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::or_skip;
use rustix::process::Signal;
use serde_json::Value;

use crate::ask::Client;
use crate::certificates::metric;
use crate::first::Cluster;
use crate::first::Port;
use crate::front::Front;
use crate::process::PROGRAM;
use crate::process::SOON;
use crate::process::Tricot;
use crate::process::command;
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

/// The account in the store: its URL and its key.
async fn account(consul: &Consul) -> Value {
    let keys: Vec<String> = serde_json::from_str(&consul.get("/v1/kv/tricot/acme?keys").await.body).unwrap();
    let key = keys.iter().find(|key| key.ends_with("/account.json")).unwrap();
    serde_json::from_str(&consul.get(&format!("/v1/kv/{key}?raw")).await.body).unwrap()
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

#[tokio::test]
async fn an_order_that_has_failed_is_tried_again_when_that_is_asked_for() {
    let Some(cluster) = Cluster::start(PebbleOptions::default()).await else { return };
    let _site = site(&cluster.consul).await;
    // The authority asks elsewhere.
    let mut wrong = cluster.tricot(&[("TRICOT_HTTP_BIND_ADDR", "127.0.0.1:0")]).await;
    wrong.logs("cannot order a certificate").await;
    // It gives the lock of the order back.
    wrong.signal(Signal::TERM);
    assert!(wrong.exit(SOON).await.success());
    let tricot = cluster.tricot(&[]).await;
    until("a pause", async || metric(&tricot, "tricot_certificates", r#"state="backing_off""#).await == 1.0)
        .await;

    tricot.signal(Signal::USR1);

    tricot.logs("USR1: a failed order is tried again").await;
    let client = cluster.client(&tricot).await;
    until("a page with a certificate", async || is_served(&client).await).await;
}

#[tokio::test]
async fn a_directory_that_is_not_trusted_is_said_with_the_variable() {
    let Some(cluster) = Cluster::start(PebbleOptions::default()).await else { return };
    let _site = site(&cluster.consul).await;
    let other = cluster.consul.dir().join("other.pem");
    std::fs::write(&other, TestCa::new().pem()).unwrap();
    let other = other.to_str().unwrap();

    let tricot = cluster.tricot(&[("TRICOT_ACME_CA_CERT", other)]).await;

    tricot.logs("the certificate of the ACME directory is not trusted").await;
    tricot.logs(&format!(r#""trusted":"TRICOT_ACME_CA_CERT is {other}""#)).await;
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

/// The original knows one directory only, that of Let's Encrypt: what it has left is looked at by those alone who use that
/// one. So the authority must answer to its name.
#[tokio::test]
async fn the_account_of_the_original_is_taken_over() {
    const NAME: &str = "acme-v02.api.letsencrypt.org";
    let Some(cluster) = Cluster::start(PebbleOptions::default()).await else { return };
    let first_site = site(&cluster.consul).await;
    let first = cluster.tricot(&[]).await;
    let client = cluster.client(&first).await;
    until("a page with a certificate", async || is_served(&client).await).await;
    let registered = account(&cluster.consul).await;
    drop((first, first_site));
    assert_eq!(cluster.pebble.said().matches("accounts in memory").count(), 1, "{}", cluster.pebble.said());

    // An address of its own, since the port is a fixed one.
    let ip = Ipv4Addr::new(127, fastrand::u8(1..), fastrand::u8(..), fastrand::u8(1..255));
    let front = match Front::start(&cluster.pebble, (ip, 443).into(), NAME).await {
        Ok(front) => front,
        Err(error) => return println!("skipped: cannot listen at port 443: {error}"),
    };
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let pem = pem(registered["key_pkcs8"].as_str().unwrap());
    consul.put("/v1/kv/tricot/letsencrypt_account_key.pem", &pem).await;
    let _site = site(&consul).await;
    let (hosts, ca) = (consul.dir().join("hosts"), consul.dir().join("front.pem"));
    std::fs::write(&hosts, format!("{ip} {NAME}\n")).unwrap();
    std::fs::write(&ca, front.ca_pem()).unwrap();
    // The file is another one for this process only.
    let script = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
    let mut own = Command::new("unshare");
    own.args(["--mount", "sh", "-c", script]).arg(&hosts);
    if !own.arg("true").output().is_ok_and(|output| output.status.success()) {
        return println!("skipped: no name space for files can be had");
    }
    let mut own = Command::new("unshare");
    own.args(["--mount", "sh", "-c", script]).arg(&hosts).arg(PROGRAM);
    own.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
    own.envs(command(consul.addr()).get_envs().filter_map(|(name, value)| Some((name, value?))));
    own.env("TRICOT_ACME_DIRECTORY", "production")
        .env("TRICOT_ACME_CA_CERT", &ca)
        .env("TRICOT_HTTP_BIND_ADDR", cluster.http.addr().to_string());

    let tricot = Tricot::spawn(&mut own);
    let client = cluster.client(&tricot).await;
    until("a page with a certificate", async || is_served(&client).await).await;

    assert_eq!(tricot.log().count("taking over an ACME account"), 1);
    assert_eq!(tricot.log().count("registered an ACME account"), 0);
    let path = |account: &Value| account["id"].as_str().unwrap().rsplit_once('/').unwrap().1.to_owned();
    assert_eq!(path(&account(&consul).await), path(&registered));
    assert_eq!(cluster.pebble.said().matches("accounts in memory").count(), 1, "{}", cluster.pebble.said());
    assert_eq!(consul.get("/v1/kv/tricot/letsencrypt_account_key.pem?raw").await.body, pem);
}

/// A private key in PEM, from base64url.
fn pem(key: &str) -> String {
    let mut text: String = key.chars().map(|c| if c == '-' { '+' } else { c }).collect();
    text = text.replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}
