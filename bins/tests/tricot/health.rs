//! Which instances get requests: those that Consul and experience say are well.

use std::time::Duration;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::or_skip;
use tokio::time::Instant;

use crate::ask::Client;
use crate::ask::page;
use crate::certificates::metric;
use crate::first::Port;
use crate::load::Connections;
use crate::load::Load;
use crate::process::Tricot;
use crate::process::command;
use crate::process::until;
use crate::process::until_within;
use crate::site::Site;

const HOST: &str = "app.example.com";
const TAG: &str = "tricot app.example.com";

async fn consul() -> Option<Consul> {
    or_skip(Consul::start(ConsulOptions::default()).await)
}

/// Registers an instance with weights for its two states.
async fn weighted(consul: &Consul, id: &str, port: u16, passing: u32, warning: u32) {
    consul
        .register(&format!(
            r#"{{"Node": "n1", "Address": "127.0.0.1", "SkipNodeUpdate": true,
                "Service": {{"Service": "web", "ID": "{id}", "Port": {port}, "Tags": ["{TAG}"],
                    "Weights": {{"Passing": {passing}, "Warning": {warning}}}}}}}"#
        ))
        .await;
}

/// Waits until the host is answered with a status.
async fn answers(client: &Client, host: &str, status: u16) {
    until(&format!("{status} for {host}"), async || client.status(host, "/").await == Some(status)).await;
}

/// Asks so often, and returns how many of the answers each of the sites gave.
async fn shares<const N: usize>(client: &Client, sites: [&Site; N], requests: usize) -> [usize; N] {
    let before = sites.map(Site::count);
    let mut conn = client.connect(HOST).await.unwrap();
    for _ in 0..requests {
        assert_eq!(conn.get(HOST, "/").await.unwrap().status, 200);
    }
    std::array::from_fn(|n| sites[n].count() - before[n])
}

#[tokio::test]
async fn whatever_makes_an_instance_unfit_is_a_503_until_it_is_over() {
    let Some(consul) = consul().await else { return };
    let site = Site::start("one").await;
    consul.service("n1", "web", "web-1", site.port(), &[TAG]).await;
    let tricot = Tricot::start(&consul).await;
    let client = Client::lenient(tricot.https);
    answers(&client, HOST, 200).await;

    for (id, check) in [
        ("web-1", "web"),
        ("", "serfHealth"),
        ("web-1", "_service_maintenance:web-1"),
        ("", "_node_maintenance"),
    ] {
        consul.check("n1", id, check, "critical").await;
        answers(&client, HOST, 503).await;
        let page = client.get(HOST, "/").await.unwrap();
        assert_eq!(page.field("retry-after"), Some("5"), "{check}");
        assert_eq!(page.field("content-type"), Some("text/plain; charset=utf-8"));
        // The end of maintenance is the end of its check.
        consul.deregister(&format!(r#"{{"Node": "n1", "CheckID": "{check}"}}"#)).await;
        answers(&client, HOST, 200).await;
    }
    assert_eq!(client.status("other.example.com", "/").await, Some(404));
}

#[tokio::test]
async fn a_path_that_nobody_serves_is_a_404_beside_one_that_nobody_can_serve() {
    let Some(consul) = consul().await else { return };
    let site = Site::start("one").await;
    consul.service("n1", "web", "web-1", site.port(), &["tricot app.example.com/api"]).await;
    consul.check("n1", "web-1", "web", "critical").await;
    let tricot = Tricot::start(&consul).await;
    let client = Client::lenient(tricot.https);

    assert_eq!(client.status(HOST, "/api/x?y").await, Some(503));
    assert_eq!(client.status(HOST, "/other").await, Some(404));
    assert_eq!(site.count(), 0);
}

#[tokio::test]
async fn a_warning_counts_by_its_weight_or_not_at_all() {
    let Some(consul) = consul().await else { return };
    let (well, ill) = (Site::start("well").await, Site::start("ill").await);
    weighted(&consul, "well", well.port(), 3, 3).await;
    weighted(&consul, "ill", ill.port(), 9, 1).await;
    consul.check("n1", "ill", "c", "warning").await;
    let usual = Tricot::start_with(&consul, &[("TRICOT_LB", "rr")]).await;
    let strict = Tricot::start_with(&consul, &[("TRICOT_LB", "rr"), ("TRICOT_HEALTH", "passing")]).await;

    let [of_well, of_ill] = shares(&Client::lenient(usual.https), [&well, &ill], 80).await;
    assert!(of_well.abs_diff(60) <= 1 && of_ill.abs_diff(20) <= 1, "{of_well} and {of_ill}");
    assert_eq!(shares(&Client::lenient(strict.https), [&well, &ill], 20).await, [20, 0]);
}

#[tokio::test]
async fn shares_follow_weights_and_a_new_weight_is_taken_at_once() {
    let Some(consul) = consul().await else { return };
    let (one, two) = (Site::start("one").await, Site::start("two").await);
    weighted(&consul, "one", one.port(), 3, 1).await;
    weighted(&consul, "two", two.port(), 1, 1).await;
    let tricot = Tricot::start_with(&consul, &[("TRICOT_LB", "rr")]).await;
    let client = Client::lenient(tricot.https);

    let [first, second] = shares(&client, [&one, &two], 400).await;
    assert!(first.abs_diff(300) <= 1 && second.abs_diff(100) <= 1, "{first} and {second}");

    weighted(&consul, "one", one.port(), 1, 1).await;
    let rules = async || page(tricot.metrics, "/rules").await.text();
    until("the weight in the rules", async || !rules().await.contains("\"weight\":3")).await;
    let [first, second] = shares(&client, [&one, &two], 100).await;
    assert!(first.abs_diff(50) <= 1 && second.abs_diff(50) <= 1, "{first} and {second}");
}

#[tokio::test]
async fn nothing_is_said_about_sites_before_consul_has_answered() {
    let Some(consul) = consul().await else { return };
    let site = Site::start("one").await;
    consul.service("n1", "web", "web-1", site.port(), &[TAG]).await;
    consul.pause();
    let tricot = Tricot::spawn(&mut command(consul.addr()));
    let client = Client::lenient(tricot.https);

    let began = Instant::now();
    let early = client.get(HOST, "/").await.unwrap();
    assert_eq!((early.status, early.field("retry-after")), (503, Some("1")));
    assert!(began.elapsed() > Duration::from_millis(1500), "it was waited for");
    assert_eq!(page(tricot.metrics, "/healthz").await.status, 503);

    // A request that came before is answered by the site.
    let (page_of_site, ()) = tokio::join!(client.get(HOST, "/"), async { consul.resume() });
    let first = page_of_site.unwrap().status;
    assert!(matches!(first, 200 | 503), "{first}");
    answers(&client, HOST, 200).await;
    assert_eq!(page(tricot.metrics, "/healthz").await.status, 200);
}

#[tokio::test]
async fn ports_that_are_none_are_left_out() {
    let Some(consul) = consul().await else { return };
    let site = Site::start("one").await;
    for (id, port) in [("zero", 0), ("beyond", 70_000), ("good", u32::from(site.port()))] {
        consul
            .register(&format!(
                r#"{{"Node": "n1", "Address": "127.0.0.1",
                    "Service": {{"Service": "web", "ID": "{id}", "Port": {port}, "Tags": ["{TAG}"]}}}}"#
            ))
            .await;
    }
    let tricot = Tricot::start(&consul).await;

    let client = Client::lenient(tricot.https);
    for _ in 0..10 {
        assert_eq!(client.status(HOST, "/").await, Some(200));
    }
    let rules = page(tricot.metrics, "/rules").await.text();
    assert!(!rules.contains("\"zero\"") && !rules.contains("\"beyond\""), "{rules}");
    let warned = |id: &str| tricot.log().all().iter().any(|line| line.contains("WARN") && line.contains(id));
    assert!(warned("zero") && warned("beyond"), "{:#?}", tricot.log().all());
}

#[tokio::test]
async fn an_instance_that_moves_is_followed() {
    let Some(consul) = consul().await else { return };
    let (old, new) = (Site::start("old").await, Site::start("new").await);
    consul.service("n1", "web", "web-1", old.port(), &[TAG]).await;
    let tricot = Tricot::start(&consul).await;
    let client = Client::lenient(tricot.https);
    answers(&client, HOST, 200).await;

    consul.service("n1", "web", "web-1", new.port(), &[TAG]).await;

    until("the new port", async || client.get(HOST, "/").await.is_ok_and(|page| page.text() == "new")).await;
    let asked = old.count();
    assert_eq!(shares(&client, [&old, &new], 10).await, [0, 10]);
    assert_eq!(old.count(), asked);
    consul.deregister(r#"{"Node": "n1", "ServiceID": "web-1"}"#).await;
    answers(&client, HOST, 404).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_dies_unnoticed_costs_no_request() {
    let Some(consul) = consul().await else { return };
    let (one, two) = (Site::start("one").await, Site::start("two").await);
    consul.service("n1", "web", "one", one.port(), &[TAG]).await;
    consul.service("n1", "web", "two", two.port(), &[TAG]).await;
    let tricot = Tricot::start(&consul).await;
    let client = Client::lenient(tricot.https);
    answers(&client, HOST, 200).await;
    let load = Load::start(&client, HOST, 4, Connections::Kept);
    load.more(100).await;

    drop(two);
    load.more(500).await;

    load.stop().await.assert_all_ok();
    assert!(one.count() >= 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_edits_in_a_second_cost_no_request_and_the_last_counts() {
    let Some(consul) = consul().await else { return };
    let site = Site::start("one").await;
    consul.service("n1", "web", "web-1", site.port(), &[TAG]).await;
    let tricot = Tricot::start(&consul).await;
    let client = Client::lenient(tricot.https);
    answers(&client, HOST, 200).await;
    let load = Load::start(&client, HOST, 2, Connections::Kept);

    let began = Instant::now();
    for n in 0..100 {
        let edit = format!("tricot-add-header X-Edit {n}");
        let priority = format!("tricot app.example.com/sub {n}");
        consul.service("n1", "web", "web-1", site.port(), &[TAG, &edit, &priority]).await;
        tokio::time::sleep_until(began + Duration::from_millis(10) * (n + 1)).await;
    }
    let edited = began.elapsed();
    let took = until_within("the last edit", Duration::from_secs(3), async || {
        client.get(HOST, "/").await.is_ok_and(|page| page.field("x-edit") == Some("99"))
    })
    .await;
    println!("a hundred edits in {edited:?}; the last was in force {took:?} later");
    assert!(took < Duration::from_secs(1), "{took:?}");
    load.more(50).await;

    load.stop().await.assert_all_ok();
}

#[tokio::test]
async fn a_dead_instance_is_passed_over_for_one_that_is_farther_or_next_in_line() {
    let Some(consul) = consul().await else { return };
    for (node, site) in [("a", "north"), ("b", "north"), ("c", "south")] {
        let node =
            format!(r#"{{"Node": "{node}", "Address": "127.0.0.1", "NodeMeta": {{"site": "{site}"}}}}"#);
        consul.register(&node).await;
    }
    let alive = Site::start("alive").await;
    // Sockets that are bound and do not listen: connections to them are refused.
    let (own, near) = (Port::take(), Port::take());
    consul.service("a", "web", "own", own.addr().port(), &[TAG]).await;
    consul.service("b", "web", "near", near.addr().port(), &[TAG]).await;
    consul.service("c", "web", "far", alive.port(), &[TAG]).await;
    consul.service("a", "old", "dead", own.addr().port(), &["tricot old.example.com"]).await;
    consul.service("c", "old", "next", alive.port(), &["tricot old.example.com 10"]).await;
    let tricot = Tricot::start_with(&consul, &[("TRICOT_NODE_NAME", "a")]).await;
    let client = Client::lenient(tricot.https);

    for host in [HOST, "old.example.com"] {
        let post = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhello");
        for _ in 0..12 {
            assert_eq!(client.status(host, "/").await, Some(200), "{host}");
            assert_eq!(client.send(host, &post).await.unwrap().status, 200, "{host}");
        }
    }
    assert_eq!(alive.count(), 48);
}

#[tokio::test]
async fn a_request_is_tried_three_times_over_all_its_rules() {
    let Some(consul) = consul().await else { return };
    // Bound, and nobody listens there: connections are refused.
    let dead = [(); 6].map(|()| Port::take());
    for (n, port) in dead.iter().enumerate() {
        let tag = format!("{TAG} {}", n / 2);
        consul.service("n1", "web", &format!("web-{n}"), port.addr().port(), &[&tag]).await;
    }
    let tricot = Tricot::start(&consul).await;

    assert_eq!(Client::lenient(tricot.https).status(HOST, "/").await, Some(502));

    assert_eq!(metric(&tricot, "tricot_backend_errors_total", "").await, 3.0);
    assert_eq!(metric(&tricot, "tricot_retries_total", "").await, 2.0);
}

#[tokio::test]
async fn a_redirect_after_attempts_that_failed_is_none_itself() {
    let Some(consul) = consul().await else { return };
    let dead = Port::take();
    consul.service("n1", "web", "web-1", dead.addr().port(), &[&format!("{TAG} 200")]).await;
    let site = Site::start("one").await;
    let redirect = format!("tricot-add-redirect {HOST} www.example.com");
    consul.service("n1", "old", "old-1", site.port(), &["tricot old.example.com", &redirect]).await;
    let tricot = Tricot::start(&consul).await;
    let client = Client::lenient(tricot.https);

    assert_eq!(client.status(HOST, "/").await, Some(302));

    let failed = metric(&tricot, "tricot_backend_errors_total", "").await;
    assert!(failed > 0.0);
    assert_eq!(metric(&tricot, "tricot_retries_total", "").await, failed - 1.0);
}

#[tokio::test]
async fn a_host_name_is_an_address_too() {
    let Some(consul) = consul().await else { return };
    let site = Site::start("one").await;
    let service = format!(
        r#"{{"Node": "n1", "Address": "192.0.2.1",
            "Service": {{"Service": "web", "ID": "web-1", "Address": "localhost", "Port": {}, "Tags": ["{TAG}"]}}}}"#,
        site.port()
    );
    consul.register(&service).await;
    let tricot = Tricot::start(&consul).await;

    answers(&Client::lenient(tricot.https), HOST, 200).await;
}

#[tokio::test]
async fn an_instance_whose_address_nobody_knows_is_one_that_cannot_be_used() {
    let Some(consul) = consul().await else { return };
    let service = format!(
        r#"{{"Node": "n1", "Address": "192.0.2.1",
            "Service": {{"Service": "web", "ID": "web-1", "Address": "nowhere.invalid", "Port": 80, "Tags": ["{TAG}"]}}}}"#
    );
    consul.register(&service).await;
    let tricot = Tricot::start(&consul).await;

    assert_eq!(Client::lenient(tricot.https).status(HOST, "/").await, Some(503));
    let rules = page(tricot.metrics, "/rules").await.text();
    assert!(rules.contains("nowhere.invalid:80"), "{rules}");
}
