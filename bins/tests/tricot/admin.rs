//! What operators see: metrics, rules, logs.

use std::collections::BTreeSet;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::PebbleOptions;
use meshlib::test_util::or_skip;
use serde_json::Value;

use crate::ask::Client;
use crate::ask::page;
use crate::ask::plain;
use crate::certificates::metric;
use crate::child::Running;
use crate::devtools::Page;
use crate::devtools::is_there;
use crate::first::Cluster;
use crate::first::Port;
use crate::process::Tricot;
use crate::process::command;
use crate::process::until;
use crate::site::Site;
use crate::site::SiteOptions;

const HOST: &str = "app.example.com";
const TAG: &str = "tricot app.example.com";
const TOKEN: &str = "b1gs33d0-0000-4000-8000-0000000000aa";

async fn serving(level: &str) -> Option<(Consul, Site, Tricot, Client)> {
    let consul = or_skip(Consul::start(ConsulOptions::default()).await)?;
    let site = Site::start("one").await;
    consul.service("n1", "web", "web-1", site.port(), &[TAG]).await;
    let tricot = Tricot::start_with(&consul, &[("RUST_LOG", level)]).await;
    let client = Client::lenient(tricot.https);
    Some((consul, site, tricot, client))
}

#[tokio::test]
async fn metrics_have_the_names_that_are_documented() {
    let Some(cluster) = Cluster::start(PebbleOptions::default()).await else { return };
    let site = Site::start("one").await;
    let gone = {
        // Nobody listens there any more.
        let gone = Site::start("gone").await;
        gone.port()
    };
    cluster.consul.service("n1", "web", "web-1", site.port(), &[TAG]).await;
    cluster.consul.service("n1", "dead", "dead-1", gone, &["tricot dead.example.com"]).await;
    let tricot = cluster.tricot(&[]).await;
    let client = cluster.client(&tricot).await;
    until("a page with a certificate", async || client.status(HOST, "/").await == Some(200)).await;
    let lenient = Client::lenient(tricot.https);
    assert_eq!(lenient.status("unknown.example.com", "/").await, Some(404));
    assert_eq!(lenient.status("dead.example.com", "/").await, Some(502));
    assert_eq!(plain(tricot.http, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap().status, 301);

    let text = page(tricot.metrics, "/metrics").await.text();

    let types: BTreeSet<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(name, _)| name.starts_with("tricot_"))
        .collect();
    for (name, kind, sample) in [
        (
            "tricot_requests_total",
            "counter",
            r#"{code="200", host="app.example.com", method="GET", service="web"} 1"#,
        ),
        ("tricot_request_duration_seconds", "histogram", r#"service="web""#),
        ("tricot_requests_in_flight", "gauge", r#"{service="web"} 0"#),
        ("tricot_backend_errors_total", "counter", r#"kind="connect""#),
        ("tricot_retries_total", "counter", ""),
        ("tricot_no_route_total", "counter", "tricot_no_route_total 1"),
        ("tricot_redirects_total", "counter", "tricot_redirects_total 1"),
        ("tricot_backends", "gauge", r#"{service="web", state="usable"} 1"#),
        ("tricot_rules", "gauge", "tricot_rules 2"),
        ("tricot_instances_with_tag_problems", "gauge", "tricot_instances_with_tag_problems 0"),
        ("tricot_consul_lost_services", "gauge", "tricot_consul_lost_services 0"),
        ("tricot_table_builds_total", "counter", ""),
        ("tricot_table_age_seconds", "gauge", ""),
        ("tricot_certificate_not_after_seconds", "gauge", r#"name="app.example.com""#),
        ("tricot_certificates", "gauge", r#"state="self_signed""#),
        ("tricot_acme_orders_total", "counter", r#"result="ok""#),
        ("tricot_tls_handshakes_total", "counter", r#"alpn="none", result="ok", version=""#),
        ("tricot_connections", "gauge", r#"listener="https""#),
    ] {
        assert!(types.contains(&(name, kind)), "{name} {kind} in {text}");
        let found = text.lines().any(|line| line.starts_with(name) && line.contains(sample));
        assert!(found, "{name} with {sample} in {text}");
    }
    // A host that a client has made up is no label.
    assert!(!text.contains("unknown.example.com"));
}

#[tokio::test]
async fn a_container_can_ask_itself_whether_it_is_ready() {
    let Some((consul, _site, tricot, _client)) = serving("tricot=info").await else { return };
    tricot.has_table().await;
    let probe = |metrics: String| {
        let mut command = command(consul.addr());
        Running::spawn(command.arg("--probe-ready").env("TRICOT_METRICS_BIND_ADDR", metrics)).ended()
    };

    let ready = probe(tricot.metrics.to_string());
    assert_eq!((ready.code, &*ready.stdout), (Some(0), "ready\n"), "{}", ready.stderr);
    let nobody = probe(Port::take().addr().to_string());
    assert_eq!(nobody.code, Some(1));
    assert!(
        nobody.stderr.starts_with("tricot: not ready: ") && nobody.stdout.is_empty(),
        "{}",
        nobody.stderr
    );
}

#[tokio::test]
async fn requests_that_no_instance_answers_count_for_their_rule() {
    let Some((consul, _site, tricot, client)) = serving("tricot=info").await else { return };
    // Bound, and nobody listens there.
    let dead = Port::take();
    consul.service("n1", "dead", "dead-1", dead.addr().port(), &["tricot dead.example.com"]).await;
    consul.check("n1", "web-1", "c", "critical").await;
    until("503", async || client.status(HOST, "/").await == Some(503)).await;
    until("502", async || client.status("dead.example.com", "/").await == Some(502)).await;

    let text = page(tricot.metrics, "/metrics").await.text();

    for sample in [
        r#"{code="503", host="app.example.com", method="GET", service="web"} 1"#,
        r#"{code="502", host="dead.example.com", method="GET", service="dead"} 1"#,
    ] {
        assert!(text.contains(sample), "{sample} in {text}");
    }
}

#[tokio::test]
async fn only_requests_that_no_rule_is_for_have_no_route() {
    let Some((consul, _site, tricot, client)) = serving("tricot=info").await else { return };
    consul.check("n1", "web-1", "c", "critical").await;
    until("503", async || client.status(HOST, "/").await == Some(503)).await;

    assert_eq!(metric(&tricot, "tricot_no_route_total", "").await, 0.0);
    assert_eq!(client.status("unknown.example.com", "/").await, Some(404));
    assert_eq!(metric(&tricot, "tricot_no_route_total", "").await, 1.0);
}

#[tokio::test]
async fn instances_are_counted_by_how_they_do() {
    let Some((consul, _site, tricot, client)) = serving("tricot=info").await else { return };
    consul.service("n1", "web", "ill", 9, &[TAG]).await;
    consul.check("n1", "ill", "of-ill", "critical").await;
    let leaving = Site::start("leaving").await;
    leaving.hold(true);
    consul.service("n1", "web", "leaving", leaving.port(), &["tricot app.example.com"]).await;
    let backends = async |state: &str| {
        metric(&tricot, "tricot_backends", &format!(r#"service="web", state="{state}""#)).await
    };
    until("all of them", async || backends("usable").await == 2.0).await;
    assert_eq!((backends("critical").await, backends("draining").await), (1.0, 0.0));

    let mut waiting = Vec::new();
    while leaving.count() == 0 {
        let client = client.clone();
        waiting.push(tokio::spawn(async move { client.status(HOST, "/").await }));
        tokio::time::sleep(crate::process::LOOK).await;
    }
    consul.deregister(r#"{"Node": "n1", "ServiceID": "leaving"}"#).await;
    until("one that drains", async || backends("draining").await == 1.0).await;
    assert_eq!((backends("usable").await, backends("critical").await), (1.0, 1.0));
    leaving.hold(false);
    until("none that drains", async || backends("draining").await == 0.0).await;

    consul.check("n1", "web-1", "c", "critical").await;
    until("no instance in service", async || backends("critical").await == 2.0).await;
    assert_eq!(backends("usable").await, 0.0);
}

#[tokio::test]
async fn rules_are_shown_with_their_instances() {
    let Some((consul, site, tricot, client)) = serving("tricot=info").await else { return };
    consul.service("n1", "web", "web-2", 9, &["tricot-https other.example.com/x 7"]).await;
    consul.check("n1", "web-1", "c", "warning").await;
    let rules = async || {
        let shown = page(tricot.metrics, "/rules").await;
        assert_eq!(shown.field("content-type"), Some("application/json"));
        serde_json::from_slice::<Value>(&shown.body).unwrap()
    };
    until("both rules", async || rules().await["rules"].as_array().is_some_and(|rules| rules.len() == 2))
        .await;
    until("a warning", async || rules().await["text"].to_string().contains("warning")).await;
    assert_eq!(client.status(HOST, "/").await, Some(200));

    let shown = rules().await;

    let first = &shown["rules"][0];
    assert_eq!((&first["rule"], &first["host"]), (&"app.example.com 100".into(), &HOST.into()));
    let instance = &first["instances"][0];
    assert_eq!(instance["addr"], site.addr.to_string());
    assert_eq!(
        (&instance["service"], &instance["id"], &instance["node"]),
        (&"web".into(), &"web-1".into(), &"n1".into())
    );
    assert_eq!((&instance["picked"], &instance["state"]), (&1.into(), &"usable".into()));
    let second = &shown["rules"][1];
    assert_eq!(
        (&second["rule"], &second["instances"][0]["tls"]),
        (&"other.example.com/x 7".into(), &true.into())
    );
    assert_eq!(shown["degraded"], Value::Null);
    assert_eq!(shown["rules"][0]["unused"], Value::Array(vec![]));
}

#[tokio::test]
async fn instances_that_are_not_used_are_shown_with_the_reason() {
    let Some((consul, _site, tricot, _client)) = serving("tricot=info").await else { return };
    consul.service("n1", "web", "ill", 9, &[TAG]).await;
    consul.check("n1", "ill", "of-ill", "critical").await;
    consul
        .register(
            r#"{"Node": "n1", "Address": "127.0.0.1", "Service": {"Service": "web", "ID": "lost",
        "Address": "no-such-host.invalid", "Port": 9, "Tags": ["tricot app.example.com"]}}"#,
        )
        .await;
    let unused = async || {
        let rules: Value = serde_json::from_slice(&page(tricot.metrics, "/rules").await.body).unwrap();
        rules["rules"][0]["unused"].as_array().cloned().unwrap_or_default()
    };
    until("both", async || unused().await.len() == 2).await;

    let unused = unused().await;
    assert_eq!((&unused[0]["id"], &unused[0]["why"]), (&"ill".into(), &"a check is critical".into()));
    assert_eq!((&unused[1]["id"], &unused[1]["addr"]), (&"lost".into(), &"no-such-host.invalid:9".into()));
    assert_eq!(unused[1]["why"], "its address is a name that is not found yet");
    let rules = page(tricot.metrics, "/rules").await.text();
    assert!(rules.contains("critical, not used: a check is critical)"), "{rules}");
}

#[tokio::test]
async fn an_instance_that_is_ejected_is_shown_with_its_error() {
    let Some((consul, _site, tricot, client)) = serving("tricot=info").await else { return };
    let gone = Port::take();
    consul.service("n1", "web", "web-2", gone.addr().port(), &[TAG]).await;

    let row = async || {
        let state: Value = serde_json::from_str(&page(tricot.metrics, "/state.json").await.text()).unwrap();
        let rows = state["destinations"][0]["endpoints"].as_array().unwrap();
        rows.iter().find(|row| row["addr"] == gone.addr().to_string()).cloned()
    };
    until("the instance is ejected", async || {
        assert_eq!(client.status(HOST, "/").await, Some(200));
        row().await.is_some_and(|row| row["state"] == "ejected")
    })
    .await;

    let row = row().await.unwrap();
    assert!(row["why"].as_str().is_some_and(|why| why.contains("onnection refused")), "{row}");
}

#[tokio::test]
async fn tags_that_cannot_be_used_are_shown_until_they_are_mended() {
    let Some((consul, _site, tricot, client)) = serving("tricot=info").await else { return };
    let other = "tricot other.example.com";
    consul.service("n1", "typo", "typo-1", 9, &["tricto typo.example.com"]).await;
    consul
        .service("n2", "typo", "typo-2", 9, &[other, "tricot http://oops", "tricot x.example.com first"])
        .await;
    let read = async |path: &'static str| -> Value {
        serde_json::from_slice(&page(tricot.metrics, path).await.body).unwrap()
    };
    until("both instances", async || read("/rules").await["tag_problems"].as_array().unwrap().len() == 3)
        .await;

    let rules = read("/rules").await;
    assert_eq!(rules["tag_problems_left_off"], 0);
    let first = &rules["tag_problems"][0];
    for (field, wanted) in [("service", "typo"), ("node", "n1"), ("id", "typo-1")] {
        assert_eq!(first[field], wanted, "{first}");
    }
    assert!(first["problem"].as_str().unwrap().ends_with("is tricot meant?"), "{first}");
    assert!(rules["tag_problems"][2]["problem"].as_str().unwrap().ends_with("100 is used"), "{rules}");
    assert_eq!(metric(&tricot, "tricot_instances_with_tag_problems", "").await, 2.0);
    let problems = async || read("/state.json").await["problems"].to_string();
    assert!(problems().await.contains("2 instances have tags that cannot be used as they are"));
    assert_eq!(page(tricot.metrics, "/ready").await.status, 200);

    consul.service("n1", "typo", "typo-1", 9, &[other]).await;
    consul.service("n2", "typo", "typo-2", 9, &[other]).await;
    until("no problem", async || problems().await == "[]").await;
    assert_eq!(read("/rules").await["tag_problems"], Value::Array(vec![]));
    assert_eq!(metric(&tricot, "tricot_instances_with_tag_problems", "").await, 0.0);
    assert_eq!(client.status(HOST, "/").await, Some(200));
}

#[tokio::test]
async fn attempts_after_one_that_failed_are_counted() {
    let Some((consul, _site, tricot, client)) = serving("tricot=info").await else { return };
    // Bound, and nobody listens there.
    let dead = Port::take();
    consul.service("n1", "web", "web-2", dead.addr().port(), &[TAG]).await;

    until("a request that failed first", async || {
        assert_eq!(client.status(HOST, "/").await, Some(200));
        metric(&tricot, "tricot_backend_errors_total", r#"kind="connect""#).await > 0.0
    })
    .await;

    let failed = metric(&tricot, "tricot_backend_errors_total", r#"kind="connect""#).await;
    assert_eq!(metric(&tricot, "tricot_retries_total", "").await, failed);
}

#[tokio::test]
async fn what_is_probably_a_mistake_is_said_once() {
    let Some((consul, _site, tricot, client)) = serving("tricot=info").await else { return };
    for id in ["typo-1", "typo-2"] {
        consul.service("n1", "typo", id, 9, &["tricto typo.example.com"]).await;
    }
    let hosts = ["loc", "127.0.0.1", "my_app.example.com"];
    for host in hosts {
        let tag = format!("tricot {host}");
        consul.service("n1", host, &format!("{host}-1"), 9, &[&tag, &format!("{tag}/path")]).await;
    }
    consul.service("n1", "last", "last-1", 9, &["tricot last.example.com"]).await;
    until("the last", async || client.status("last.example.com", "/").await == Some(502)).await;

    tricot.logs("is not known to tricot; is tricot meant?").await;
    for host in hosts {
        tricot.logs(&format!(r#"self-signed one","host":"{host}""#)).await;
        assert_eq!(tricot.log().count(&format!(r#""host":"{host}""#)), 1);
    }
    assert_eq!(tricot.log().count("is not known to tricot; is tricot meant?"), 1);
}

#[tokio::test]
async fn what_is_not_there_is_a_404_on_the_admin_address() {
    let Some((_consul, _site, tricot, _client)) = serving("tricot=info").await else { return };

    assert_eq!(page(tricot.metrics, "/other").await.status, 404);
    let paths = page(tricot.metrics, "/").await.text();
    assert!(["/metrics", "/healthz", "/rules"].iter().all(|path| paths.contains(path)), "{paths}");
    assert_eq!(page(tricot.metrics, "/healthz").await.text(), "ok\n");
}

#[tokio::test]
async fn a_healthy_proxy_is_quiet_about_warnings() {
    let level = "tricot=info";
    let Some(cluster) = Cluster::start(PebbleOptions::default()).await else { return };
    let site = Site::start("one").await;
    let tags = [TAG, "d53-cname x", "(diplonat (tcp_port 1))", "urlprefix-/x"];
    cluster.consul.service("n1", "web", "web-1", site.port(), &tags).await;
    let node = r#"{"Node": "n1", "Address": "127.0.0.1", "NodeMeta": {"site": "north"}}"#;
    cluster.consul.register(node).await;
    let tricot = cluster.tricot(&[("RUST_LOG", level), ("TRICOT_NODE_NAME", "n1")]).await;
    let client = cluster.client(&tricot).await;
    until("a page with a certificate", async || client.status(HOST, "/").await == Some(200)).await;

    tricot.logs("ordered a certificate").await;
    let warnings: Vec<_> =
        tricot.log().all().into_iter().filter(|line| line.contains(r#""level":"WARN""#)).collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
}

#[tokio::test]
async fn a_request_is_a_line_that_names_its_instance_only_to_those_who_look_for_faults() {
    for (level, names) in [("tricot=info", false), ("tricot=debug", true)] {
        let Some((_consul, _site, tricot, client)) = serving(level).await else { return };
        assert_eq!(client.status(HOST, "/x?y").await, Some(200));
        tricot.logs(r#""message":"request""#).await;

        let lines = tricot.log().all();
        let line = lines.iter().find(|line| line.contains(r#""message":"request""#)).unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        for (field, value) in [("client", "127.0.0.1"), ("method", "GET"), ("host", HOST), ("path", "/x?y")] {
            assert_eq!(line[field], value);
        }
        assert_eq!(
            (&line["status"], &line["bytes"], &line["complete"]),
            (&200.into(), &3.into(), &true.into())
        );
        assert_eq!((&line["service"], line.get("reason")), (&"web".into(), None));
        assert_eq!(line.get("node").is_some(), names, "{line}");
        assert_eq!(line.get("instance").map(|it| it == "web-1"), names.then_some(true), "{line}");
        assert_eq!(lines.iter().any(|line| line.contains("sending")), names);
    }
}

#[tokio::test]
async fn a_request_that_no_instance_answers_is_a_line_with_service_and_reason() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    let gone = Site::start("gone").await.port();
    consul.service("n1", "web", "web-1", gone, &[TAG]).await;
    consul.service("n1", "sick", "sick-1", gone, &["tricot sick.example.com"]).await;
    consul.check("n1", "sick-1", "sick", "critical").await;
    for how in ["stdout", "json", "text"] {
        let tricot = Tricot::start_with(&consul, &[("TRICOT_ACCESS_LOG", how)]).await;
        let client = Client::lenient(tricot.https);
        assert_eq!(client.status(HOST, "/failed").await, Some(502));
        assert_eq!(client.status("sick.example.com", "/sick").await, Some(503));
        assert_eq!(client.status("other.example.com", "/unknown").await, Some(404));
        tricot.logs("/unknown").await;

        let lines = tricot.log().all();
        let line = |path: &str| lines.iter().find(|line| line.contains(path)).unwrap().as_str();
        for (path, service, reason) in [
            ("/failed", Some("web"), "refused"),
            ("/sick", Some("sick"), "no instance of this site is in service"),
            ("/unknown", None, "no site is served here"),
        ] {
            let line = line(path);
            assert!(line.contains(reason), "{how}: {line}");
            if how == "text" {
                assert!(line.contains(&format!(" {} \"", service.unwrap_or("-"))), "{line}");
            } else {
                let line: Value = serde_json::from_str(line).unwrap();
                assert_eq!(
                    (line["service"].as_str(), line.get("instance")),
                    (service, None),
                    "{how}: {line}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_its_client_gives_up_counts_for_its_rule_and_is_no_success() {
    let Some((_consul, site, tricot, client)) = serving("tricot=info").await else { return };
    site.hold(true);
    let mut conn = client.connect(HOST).await.unwrap();
    conn.write(&format!("GET /left HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    until("the request at the instance", async || site.count() == 1).await;

    drop(conn);

    tricot.logs("/left").await;
    let line = tricot.log().all().into_iter().find(|line| line.contains("/left")).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["status"], &line["complete"]), (&499.into(), &false.into()), "{line}");
    assert_eq!((&line["host"], &line["service"]), (&HOST.into(), &"web".into()), "{line}");
    assert!(line["reason"].as_str().is_some_and(|reason| reason.contains("the client left")), "{line}");
    let labels = r#"code="499", host="app.example.com", method="GET", service="web""#;
    assert_eq!(metric(&tricot, "tricot_requests_total", labels).await, 1.0);
    assert_eq!(metric(&tricot, "tricot_requests_total", r#"code="200""#).await, 0.0);
}

#[tokio::test]
async fn no_secret_is_in_a_log_however_much_is_logged() {
    let Some(cluster) =
        Cluster::start_with(PebbleOptions::default(), ConsulOptions::default().with_acl(TOKEN)).await
    else {
        return;
    };
    let site = Site::start_with(SiteOptions {
        fields: "Set-Cookie: id=cookie-of-the-site\r\nX-Shown: answer-field\r\n".into(),
        body: "one".into(),
        ..SiteOptions::default()
    })
    .await;
    cluster.consul.service("n1", "web", "web-1", site.port(), &[TAG]).await;
    // Everything that the program and what it is made of can say.
    let tricot = cluster.tricot(&[("RUST_LOG", "trace"), ("TRICOT_CONSUL_TOKEN", TOKEN)]).await;
    let client = cluster.client(&tricot).await;
    until("a page with a certificate", async || client.status(HOST, "/").await == Some(200)).await;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Basic secret-of-the-client\r\nX-Asked: request-field\r\n\
         Proxy-Authorization: Basic other-secret-of-the-client\r\nCookie: id=cookie-of-the-client\r\n\r\n"
    );
    assert_eq!(client.send(HOST, &request).await.unwrap().status, 200);
    assert_eq!(site.last().all("authorization"), ["Basic secret-of-the-client"]);
    tricot.logs("request-field").await;
    tricot.logs("answer-field").await;
    let kept = cluster.consul.get("/v1/kv/tricot/?recurse").await.body;
    assert!(kept.contains("certs"), "there is a key to keep secret");

    let log = tricot.log().all().join("\n") + &tricot.stderr().all().join("\n");

    let own = log
        .lines()
        .filter(|line| line.contains(r#""target":"tricot""#) || line.contains(r#""target":"meshlib"#));
    let own: String = own.collect();
    for secret in [
        TOKEN,
        "secret-of-the-client",
        "cookie-of-the-client",
        "cookie-of-the-site",
        "PRIVATE KEY",
        "key_pem",
    ] {
        assert!(!own.contains(secret), "{secret} in a line of ours");
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} in {line:?}");
    }
}

/// While requests come: what the page shows was true between before and after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_the_dashboard_under_load() {
    if !is_there() {
        return;
    }
    let Some((consul, _site, tricot, client)) = serving("tricot=info").await else { return };
    let gone = Site::start("gone").await.port();
    consul.service("n1", "dead", "dead-1", gone, &["tricot dead.example.com"]).await;
    until("both are known", async || client.status("dead.example.com", "/").await == Some(502)).await;
    let load = tokio::spawn(async move {
        loop {
            for host in [HOST, "dead.example.com"] {
                client.status(host, "/").await;
            }
        }
    });
    let requests = async || metric(&tricot, "tricot_requests_total", "").await;

    let mut page = Page::open();
    page.go(format_args!("http://{}/dashboard", tricot.metrics));

    let before = requests().await;
    let ended = "Number([...document.querySelectorAll('dt')].find((it) => it.textContent === 'Ended')\
                 .nextElementSibling.textContent.replaceAll(',', ''))";
    page.until("the page is renewed", format_args!("{ended} > {before}"));
    let shown = page.evaluate(ended).as_f64().unwrap();
    let after = requests().await;

    assert!(2.0 < shown && before < shown && shown <= after, "{before} {shown} {after}");
    let text = page.evaluate("document.body.textContent").to_string();
    for part in ["tricot", HOST, "dead.example.com", "live"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let failed = page.evaluate(format_args!(
        "Number([...document.querySelectorAll('tbody tr')].find((it) => it.textContent.startsWith('127.0.0.1:{gone} '))\
         .cells[7].textContent.replaceAll(',', ''))"
    ));
    assert!(failed.as_u64().is_some_and(|failed| failed > 0), "{failed}");
    assert_eq!(page.console(), [""; 0]);
    assert_eq!(page.requests_elsewhere(tricot.metrics), [""; 0]);
    load.abort();
}
