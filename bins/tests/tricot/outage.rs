//! Consul that is away, silent, empty, or lets nobody in.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::or_skip;
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpStream;
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
const RECOVERY: Duration = Duration::from_secs(10);
const TOKEN: &str = "b1gs33d0-0000-4000-8000-0000000000aa";

/// A proxy with a site, and clients that ask.
struct Busy {
    site: Site,
    tricot: Tricot,
    client: Client,
    load: Load,
}

impl Busy {
    async fn start(consul: &Consul, variables: &[(&str, &str)]) -> Self {
        let site = Site::start("one").await;
        consul.service("n1", "web", "web-1", site.port(), &[TAG]).await;
        let tricot = Tricot::start_with(consul, variables).await;
        let client = Client::lenient(tricot.https);
        // In a cluster the server that is asked may be behind the one that took the registration.
        until("the site", async || client.status(HOST, "/").await == Some(200)).await;
        let load = Load::start(&client, HOST, 2, Connections::Kept);
        load.more(20).await;
        Self { site, tricot, client, load }
    }

    /// Registers the site with one more host, and measures until that is served.
    async fn recovers(&self, consul: &Consul) {
        let host = "new.example.com";
        let service = format!(
            r#"{{"Node": "n1", "Address": "127.0.0.1", "SkipNodeUpdate": true,
                "Service": {{"Service": "web", "ID": "web-1", "Port": {}, "Tags": ["{TAG}", "tricot {host}"]}}}}"#,
            self.site.port()
        );
        // A cluster that has lost its leader takes nothing until it has another.
        until("a registration", async || {
            let answer = consul.request("PUT", "/v1/catalog/register", &service).await;
            answer.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        let took = until_within("the rules as they are now", RECOVERY, async || {
            self.client.status(host, "/").await == Some(200)
        })
        .await;
        println!("what Consul says is in force again after {took:?}");
    }

    async fn has_rule(&self) -> bool {
        page(self.tricot.metrics, "/rules").await.text().contains(HOST)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_on_without_consul() {
    let Some(mut consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let busy = Busy::start(&consul, &[]).await;

    consul.kill();
    busy.tricot.logs("Consul cannot be relied on").await;
    busy.load.more(200).await;
    assert!(busy.has_rule().await);
    assert_eq!(page(busy.tricot.metrics, "/healthz").await.status, 200);
    busy.load.stop().await.assert_all_ok();
    let log = busy.tricot.log().all();
    let lines: Vec<_> = log.iter().filter(|line| line.contains("unreachable")).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line: Value = serde_json::from_str(lines[0]).unwrap();
    let reason = format!("(TRICOT_CONSUL_HOST is http://{})", consul.addr());
    assert!(line["reason"].as_str().is_some_and(|it| it.ends_with(&reason)), "{line}");
    let rules: Value = serde_json::from_slice(&page(busy.tricot.metrics, "/rules").await.body).unwrap();
    assert!(rules["degraded"].as_str().is_some_and(|it| it.ends_with(&reason)), "{rules}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_has_forgotten_all_is_followed_again() {
    let Some(mut consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let busy = Busy::start(&consul, &[]).await;

    consul.restart().await;
    busy.recovers(&consul).await;
    busy.tricot.logs("Consul is back").await;

    busy.load.more(50).await;
    let tally = busy.load.stop().await;
    // Between its start and the registration its catalog is empty indeed, and nobody believes it.
    tally.assert_all_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_outlast_a_consul_that_has_lost_its_data() {
    let Some(mut consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let busy = Busy::start(&consul, &[]).await;
    let other = "other.example.com";
    consul.service("n1", "other", "other-1", busy.site.port(), &["tricot other.example.com"]).await;
    until("the other site", async || busy.client.status(other, "/").await == Some(200)).await;
    let problems = async || {
        let state: Value =
            serde_json::from_str(&page(busy.tricot.metrics, "/state.json").await.text()).unwrap();
        state["problems"].to_string()
    };

    consul.kill();
    busy.tricot.logs("Consul cannot be relied on").await;
    consul.restart().await;

    busy.tricot.logs("Consul has come back empty").await;
    let log = busy.tricot.log().all();
    let line = log.iter().find(|line| line.contains("Consul has come back empty")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["level"], "WARN", "{line}");
    let reason = line["reason"].as_str().unwrap();
    assert!(
        reason.contains("all services with tags for tricot (still missing: 2)")
            && reason.contains("or until 2"),
        "{reason}"
    );
    let shown = problems().await;
    assert!(shown.contains("still missing: 2"), "{shown}");
    assert_eq!(metric(&busy.tricot, "tricot_consul_lost_services", "").await, 2.0);
    // Longer than what is lost is doubted otherwise.
    let both_for_a_while = async || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(14) {
            assert_eq!(busy.client.status(other, "/").await, Some(200));
            busy.load.more(5).await;
        }
    };
    both_for_a_while().await;

    assert_eq!(busy.tricot.log().count("Consul has come back empty"), 1);
    busy.recovers(&consul).await;
    until("one of them back", async || problems().await.contains("still missing: 1")).await;
    // The other one is not there again, and keeps its time.
    both_for_a_while().await;
    assert!(problems().await.contains("still missing: 1"));
    assert_eq!(metric(&busy.tricot, "tricot_consul_lost_services", "").await, 1.0);
    assert_eq!(busy.tricot.log().count("Consul is back"), 0);

    consul.kill();
    let again = async || busy.tricot.log().count("Consul cannot be relied on") == 2;
    until("a failure while one is missing", again).await;
    assert_eq!(metric(&busy.tricot, "tricot_consul_lost_services", "").await, 1.0);
    consul.restart().await;
    busy.recovers(&consul).await;
    consul.service("n1", "other", "other-1", busy.site.port(), &["tricot other.example.com"]).await;
    busy.tricot.logs("Consul is back").await;
    assert_eq!(problems().await, "[]");
    assert_eq!(metric(&busy.tricot, "tricot_consul_lost_services", "").await, 0.0);
    assert_eq!(busy.tricot.log().count("are given up"), 0);
    busy.load.stop().await.assert_all_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rule_is_lost_while_an_agent_reads_its_log() {
    const SITES: usize = 300;
    let options = ConsulOptions::default().with_disk();
    let Some(mut consul) = or_skip(Consul::start(options).await) else { return };
    let register = async |n: usize| {
        let (id, tag) = (format!("site-{n}"), format!("tricot site-{n}.example.com"));
        consul.service("n1", &id, &id, 9, &[&tag]).await;
    };
    stream::iter(0..SITES).for_each_concurrent(32, register).await;
    let busy = Busy::start(&consul, &[]).await;
    let rules = async || {
        let metrics = page(busy.tricot.metrics, "/metrics").await.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("tricot_rules ")).unwrap().to_owned();
        line.parse::<usize>().unwrap()
    };
    until("all rules", async || rules().await == SITES + 1).await;

    consul.kill();
    busy.tricot.logs("Consul cannot be relied on").await;
    consul.restart().await;
    busy.recovers(&consul).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(13) {
        assert_eq!(rules().await, SITES + 2);
        busy.load.more(5).await;
    }

    consul.deregister(r#"{"Node": "n1", "ServiceID": "site-7"}"#).await;
    let took = until_within("a rule less", RECOVERY, async || rules().await == SITES + 1).await;
    println!("a service that is gone is gone after {took:?}");
    busy.load.stop().await.assert_all_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_on_while_consul_is_silent() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let busy = Busy::start(&consul, &[]).await;

    consul.pause();
    busy.load.more(500).await;
    // A client that is new needs nothing of Consul either.
    assert_eq!(busy.client.status(HOST, "/").await, Some(200));
    consul.resume();
    busy.recovers(&consul).await;

    busy.load.stop().await.assert_all_ok();
}

/// A token that may do nothing.
async fn powerless(consul: &Consul) -> String {
    let made = consul.put("/v1/acl/token", r#"{"Description": "may do nothing"}"#).await;
    let made: Value = serde_json::from_str(&made).unwrap();
    made["SecretID"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_loses_its_rights_takes_no_rule_away() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default().with_acl(TOKEN)).await) else { return };
    let powerless = powerless(&consul).await;
    let file = consul.dir().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let busy = Busy::start(&consul, &[("TRICOT_CONSUL_TOKEN_FILE", file.to_str().unwrap())]).await;

    std::fs::write(&file, powerless).unwrap();
    busy.tricot.signal(Signal::HUP);
    busy.tricot.logs("token for Consul read again").await;
    // What was asked with the other token is answered with each change.
    let mut n = 0;
    until("a catalog that nobody believes", async || {
        n += 1;
        consul.service("n1", "other", "other-1", 9, &[&format!("tricot other.example.com {n}")]).await;
        busy.tricot.log().count("Consul shows this token no service") > 0
    })
    .await;
    busy.load.more(200).await;
    assert!(busy.has_rule().await);

    std::fs::write(&file, TOKEN).unwrap();
    busy.tricot.signal(Signal::HUP);
    busy.recovers(&consul).await;
    busy.load.stop().await.assert_all_ok();
}

#[tokio::test]
async fn a_catalog_without_any_of_the_rules_is_an_error_that_is_shown() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let site = Site::start("one").await;
    consul.service("n1", "web", "web-1", site.port(), &[TAG, "tricot other.example.com"]).await;
    let tricot = Tricot::start(&consul).await;
    let problems = async || {
        let state: Value = serde_json::from_str(&page(tricot.metrics, "/state.json").await.text()).unwrap();
        state["problems"].as_array().unwrap().clone()
    };
    assert!(problems().await.is_empty());

    consul.deregister(r#"{"Node": "n1", "ServiceID": "web-1"}"#).await;

    tricot.logs("all 2 rules are gone").await;
    let line = tricot.log().all().into_iter().find(|line| line.contains("rules are gone")).unwrap();
    assert!(line.contains(r#""level":"ERROR""#), "{line}");
    let shown = problems().await;
    assert!(shown.len() == 1 && shown[0].as_str().unwrap().contains("all 2 rules are gone"), "{shown:?}");
    assert_eq!(page(tricot.metrics, "/ready").await.status, 200);

    consul.service("n1", "web", "web-1", site.port(), &[TAG]).await;
    until("no problem", async || problems().await.is_empty()).await;
}

#[tokio::test]
async fn a_token_that_is_not_known_is_said_once() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default().with_acl(TOKEN)).await) else { return };
    let mut command = command(consul.addr());
    let unknown = "00000000-0000-4000-8000-00000000dead";
    let tricot = Tricot::spawn(command.env("TRICOT_CONSUL_TOKEN", unknown));

    tricot.logs("consul denies what is watched").await;
    until("the reason", async || {
        page(tricot.metrics, "/rules").await.text().contains("ACL not found (see the token and its policy)")
    })
    .await;

    assert_eq!(tricot.log().count("ACL not found"), 1);
}

#[tokio::test]
async fn a_token_that_never_had_rights_makes_no_table() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default().with_acl(TOKEN)).await) else { return };
    let powerless = powerless(&consul).await;
    let site = Site::start("one").await;
    consul.service("n1", "web", "web-1", site.port(), &[TAG]).await;
    let file = consul.dir().join("token");
    std::fs::write(&file, powerless).unwrap();
    let mut command = command(consul.addr());
    let tricot = Tricot::spawn(command.env("TRICOT_CONSUL_TOKEN_FILE", &file));
    let client = Client::lenient(tricot.https);

    tricot.logs("its policy needs service_prefix").await;
    assert_eq!(page(tricot.metrics, "/healthz").await.status, 503);
    assert_eq!(client.status(HOST, "/").await, Some(503));
    assert_eq!(tricot.log().count("its policy needs service_prefix"), 1);

    std::fs::write(&file, TOKEN).unwrap();
    tricot.signal(Signal::HUP);
    until("a page", async || client.status(HOST, "/").await == Some(200)).await;
    assert_eq!(page(tricot.metrics, "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_token_that_loses_its_rights_leaves_the_proxy_where_it_is() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default().with_acl(TOKEN)).await) else { return };
    let powerless = powerless(&consul).await;
    let file = consul.dir().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let (near, far) = (Site::start("near").await, Site::start("far").await);
    for (node, site, id, port) in
        [("a", "north", "own", 0), ("b", "north", "near", near.port()), ("c", "south", "far", far.port())]
    {
        let meta =
            format!(r#"{{"Node": "{node}", "Address": "127.0.0.1", "NodeMeta": {{"site": "{site}"}}}}"#);
        consul.register(&meta).await;
        if port > 0 {
            consul.service(node, "web", id, port, &[TAG]).await;
        }
    }
    let variables = [
        ("TRICOT_CONSUL_TOKEN_FILE", file.to_str().unwrap()),
        ("TRICOT_NODE_NAME", "a"),
        ("TRICOT_LB", "rr"),
    ];
    let tricot = Tricot::start_with(&consul, &variables).await;
    let client = Client::lenient(tricot.https);
    let nearest = async || {
        let mut conn = client.connect(HOST).await.unwrap();
        let mut all_near = true;
        for _ in 0..4 {
            all_near &= conn.get(HOST, "/").await.unwrap().text() == "near";
        }
        all_near
    };
    until("the proxy's own site", nearest).await;

    std::fs::write(&file, powerless).unwrap();
    tricot.signal(Signal::HUP);
    tricot.logs("token for Consul read again").await;
    let mut n = 0;
    until("a node that cannot be seen", async || {
        n += 1;
        let node = format!(
            r#"{{"Node": "a", "Address": "127.0.0.1", "NodeMeta": {{"site": "north", "n": "{n}"}}}}"#
        );
        consul.register(&node).await;
        tricot.log().count("Consul knows no node of this name") > 0
    })
    .await;

    for _ in 0..20 {
        assert!(nearest().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_in_the_middle_of_a_cluster_is_not_noticed_by_clients() {
    let Some([one, mut two, three]) = or_skip(Consul::cluster(ConsulOptions::default()).await) else {
        return;
    };
    let busy = Busy::start(&one, &[]).await;

    two.kill();
    busy.load.more(100).await;
    busy.recovers(&three).await;

    busy.load.stop().await.assert_all_ok();
}

#[tokio::test]
async fn a_first_table_has_all_sites_however_late_consul_is() {
    const SITES: usize = 40;
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    for n in 0..SITES {
        let tag = format!("tricot site-{n}.example.com");
        consul.service("n1", &format!("site-{n}"), &format!("site-{n}"), 9, &[&tag]).await;
    }
    // Nobody listens there yet.
    let port = Port::take();
    let tricot = Tricot::spawn(&mut command(port.addr()));
    tricot.logs("Consul cannot be relied on").await;

    let listener = port.listen();
    let to = consul.addr();
    let relay = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut agent = TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut client, &mut agent).await
            });
        }
    });
    tricot.has_table().await;

    let first = tricot.log().wait_for("rules", |line| line.contains(r#""message":"rules""#));
    assert!(first.contains(&format!(r#""rules":{SITES},"#)), "{first}");
    relay.abort();
}
