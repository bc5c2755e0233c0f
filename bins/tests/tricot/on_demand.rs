//! Certificates for names that only a wildcard stands for.

use std::net::Ipv6Addr;
use std::time::Duration;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::PebbleOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::or_skip;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::ask::Client;
use crate::first::Cluster;
use crate::process::Tricot;
use crate::process::command;
use crate::process::until;
use crate::process::until_within;
use crate::relay::Relay;
use crate::relay::Trouble;
use crate::site::Site;
use crate::site::SiteOptions;

const WILDCARD: &str = "tricot *.w.example.test";

/// A proxy in front of a site with these tags.
async fn serving(tags: &[&str], variables: &[(&str, &str)]) -> Option<(Cluster, Site, Tricot, Client)> {
    let cluster = Cluster::start(PebbleOptions::default()).await?;
    let site = Site::start("one").await;
    cluster.consul.service("n1", "web", "web-1", site.port(), tags).await;
    let tricot = cluster.tricot(variables).await;
    let client = cluster.client(&tricot).await;
    Some((cluster, site, tricot, client))
}

/// Answers with a status, and keeps what it was asked.
async fn judge(status: &str) -> (Site, String) {
    let judge = Site::start_with(SiteOptions { status: status.into(), ..SiteOptions::default() }).await;
    let tag = format!("tricot-on-demand-tls-ask http://{}/check", judge.addr);
    (judge, tag)
}

#[tokio::test]
async fn a_name_that_is_allowed_gets_a_certificate_with_its_first_client() {
    let (judge, tag) = judge("200 Yes").await;
    let Some((cluster, _site, tricot, client)) = serving(&[WILDCARD, &tag], &[]).await else { return };

    let lenient = Client::lenient(tricot.https);
    assert_eq!(lenient.status("a.w.example.test", "/").await, Some(200), "at once, with a self-signed one");
    until("a certificate", async || client.status("a.w.example.test", "/").await == Some(200)).await;

    assert!(
        judge.last().head.starts_with("GET /check?domain=a.w.example.test HTTP/1.1\r\n"),
        "{:?}",
        judge.last()
    );
    assert_eq!((judge.count(), cluster.pebble.orders()), (1, 1));
    // Neither the parent nor another host is a name that the wildcard stands for.
    for name in ["w.example.test", "other.example.test"] {
        assert!(client.connect(name).await.is_err());
    }
    assert_eq!((judge.count(), cluster.pebble.orders()), (1, 1));
}

#[tokio::test]
async fn a_first_client_may_wait_for_the_certificate() {
    let (_judge, tag) = judge("204 Yes").await;
    let wait = [("TRICOT_ON_DEMAND_WAIT", "15s")];
    let Some((_cluster, _site, _tricot, client)) = serving(&[WILDCARD, &tag], &wait).await else { return };

    let began = Instant::now();
    assert_eq!(client.status("a.b.w.example.test", "/").await, Some(200));

    println!("the first client waited {:?}", began.elapsed());
}

#[tokio::test]
async fn who_waits_for_a_certificate_that_is_denied_waits_no_longer() {
    let (judge, tag) = judge("404 No").await;
    let wait = [("TRICOT_ON_DEMAND_WAIT", "60s")];
    let Some((_cluster, _site, tricot, _client)) = serving(&[WILDCARD, &tag], &wait).await else { return };

    for _ in 0..2 {
        let asked = Client::lenient(tricot.https);
        let answer = tokio::time::timeout(Duration::from_secs(30), asked.status("a.w.example.test", "/"));
        assert_eq!(answer.await, Ok(Some(200)), "half of the time that it might have waited");
    }

    assert_eq!(judge.count(), 1);
}

#[tokio::test]
async fn a_host_of_its_own_is_not_for_others_to_decide_about() {
    let (judge, tag) = judge("404 No").await;
    let tags = [WILDCARD, &tag, "tricot own.w.example.test"];
    let Some((cluster, _site, tricot, client)) = serving(&tags, &[]).await else { return };

    assert!(Client::lenient(tricot.https).status("own.w.example.test", "/").await.is_some());
    until("a certificate", async || client.status("own.w.example.test", "/").await == Some(200)).await;

    assert_eq!((judge.count(), cluster.pebble.orders()), (0, 1));
}

#[tokio::test]
async fn a_name_that_is_denied_gets_none_and_is_not_asked_about_again() {
    for status in ["404 No", "302 Elsewhere"] {
        let (judge, tag) = judge(status).await;
        let Some((cluster, _site, tricot, client)) = serving(&[WILDCARD, &tag], &[]).await else { return };
        let lenient = Client::lenient(tricot.https);

        assert_eq!(lenient.status("a.w.example.test", "/").await, Some(200));
        tricot.logs("asked whether a name").await;
        for _ in 0..10 {
            assert!(client.connect("a.w.example.test").await.is_err(), "it is self-signed");
        }

        assert_eq!((judge.count(), cluster.pebble.orders()), (1, 0));
    }
}

#[tokio::test]
async fn one_with_an_address_of_ipv6_may_be_asked_over_tls() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let ca = TestCa::new();
    let judge = Site::start_with(SiteOptions {
        status: "404 No".into(),
        tls: Some(ca.server_config(["::1"])),
        listen: Some((Ipv6Addr::LOCALHOST, 0).into()),
        ..SiteOptions::default()
    })
    .await;
    let roots = consul.dir().join("roots.pem");
    std::fs::write(&roots, ca.pem()).unwrap();
    let ask = format!("tricot-on-demand-tls-ask https://{}/check", judge.addr);
    consul.service("n1", "web", "web-1", 9, &[WILDCARD, &ask]).await;
    let tricot = Tricot::start_with(&consul, &[("SSL_CERT_FILE", roots.to_str().unwrap())]).await;

    let _ = Client::lenient(tricot.https).status("a.w.example.test", "/").await;
    tricot.logs("asked whether a name").await;

    assert!(judge.last().head.starts_with("GET /check?domain=a.w.example.test "), "{:?}", judge.last());
}

#[tokio::test]
async fn one_who_does_not_answer_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tag = format!("tricot-on-demand-tls-ask http://{}/check", silent.local_addr().unwrap());
    let Some((cluster, _site, tricot, _client)) = serving(&[WILDCARD, &tag], &[]).await else { return };
    let lenient = Client::lenient(tricot.https);

    let began = Instant::now();
    for n in 0..20 {
        assert_eq!(lenient.status(&format!("n{n}.w.example.test"), "/").await, Some(200));
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    tricot.logs("no answer about a name of a wildcard").await;

    assert_eq!(cluster.pebble.orders(), 0);
}

#[tokio::test]
async fn a_slow_store_holds_up_no_other_name() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let (judge, ask) = judge("404 No").await;
    consul.service("n1", "web", "web-1", 9, &[WILDCARD, &ask]).await;
    consul.service("n1", "free", "free-1", 9, &["tricot *.free.example.test"]).await;
    let relay = Relay::start(consul.addr(), "on_demand/", Trouble::Stall).await;
    let tricot = Tricot::spawn(&mut command(relay.addr));
    tricot.has_table().await;
    let lenient = Client::lenient(tricot.https);

    // This one is counted in the store.
    let _ = lenient.status("a.free.example.test", "/").await;
    let _ = lenient.status("a.w.example.test", "/").await;

    until_within("a question", Duration::from_secs(3), async || judge.count() == 1).await;
}

#[tokio::test]
async fn a_store_that_fails_is_a_warning_each_time_it_begins_to() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    consul.service("n1", "web", "web-1", 9, &[WILDCARD]).await;
    let relay = Relay::start(consul.addr(), "on_demand/", Trouble::Cut).await;
    let mut command = command(relay.addr);
    let tricot = Tricot::spawn(command.env("RUST_LOG", "tricot=debug"));
    tricot.has_table().await;
    let lenient = Client::lenient(tricot.https);
    let warnings = || tricot.log().count("cannot count names of wildcards");

    for n in 0..3 {
        let _ = lenient.status(&format!("n{n}.w.example.test"), "/").await;
    }
    until("all three", async || tricot.log().count("cannot count a name of a wildcard") == 2).await;
    assert_eq!(warnings(), 1);

    relay.set(Trouble::None);
    let _ = lenient.status("n3.w.example.test", "/").await;
    tricot.logs("without asking anybody").await;
    relay.set(Trouble::Cut);
    let _ = lenient.status("n4.w.example.test", "/").await;
    until("another warning", async || warnings() == 2).await;
}

#[tokio::test]
async fn without_anybody_to_ask_few_are_ordered() {
    const LIMIT: usize = 20;
    let Some((cluster, _site, tricot, _client)) = serving(&[WILDCARD], &[]).await else { return };
    let lenient = Client::lenient(tricot.https);

    for n in 0..LIMIT + 5 {
        assert_eq!(lenient.status(&format!("n{n}.w.example.test"), "/").await, Some(200));
    }
    until("the limit", async || tricot.log().count("this hour's limit is reached") == 5).await;

    assert_eq!(tricot.log().count("without asking anybody"), LIMIT);
    assert!(cluster.pebble.orders() <= LIMIT, "{}", cluster.pebble.orders());
}
